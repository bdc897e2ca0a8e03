"""A dynamic update (RFC 2136) of one name as a compare-and-swap: the server does all of it, or nothing."""

from __future__ import annotations

from collections.abc import Sequence

import dns.name
import dns.rdata
import dns.update

from anycastlb.adapters.drivers.names.zone_records import MARKER, Standing, rdata, txt, types


def compare_and_swap(
    update: dns.update.UpdateMessage, name: str, before: Standing | None, after: Standing
) -> dns.update.UpdateMessage:
    """Add what turns ``before`` into ``after``, if exactly ``before`` still stands at the name. None: the name is not
    ours yet, and nothing may stand there."""
    host, marker = dns.name.from_text(name), dns.name.from_text(MARKER + name)
    had = before or Standing()
    _expect(update, marker, "TXT", [txt(had.marker)] if before else [])
    for kind in types(name):
        _expect(update, host, kind, rdata(kind, had.records.get(kind, ())))
    if before is None:
        _expect(update, host, "CNAME", [])
    for kind in types(name):
        wanted = after.records.get(kind, frozenset())
        if wanted != had.records.get(kind, frozenset()) or after.ttls.get(kind) != had.ttls.get(kind):
            _put(update, host, after.ttls.get(kind, 0), kind, rdata(kind, wanted))
    if after.marker != had.marker:
        data = [txt(after.marker)] if after.marker else []
        _put(update, marker, max(after.ttls.values(), default=0), "TXT", data)
    return update


def _expect(update: dns.update.UpdateMessage, name: dns.name.Name, kind: str, data: Sequence[dns.rdata.Rdata]) -> None:
    """Exactly these records stand there, or none does."""
    if data:
        update.present(name, *data)
    else:
        update.absent(name, kind)


def _put(
    update: dns.update.UpdateMessage, name: dns.name.Name, ttl: int, kind: str, data: Sequence[dns.rdata.Rdata]
) -> None:
    """From now on exactly these records stand there."""
    update.delete(name, kind)
    for record in data:
        update.add(name, ttl, record)
