"""What stands at one name of a DNS zone, as rows of ours and as records on the wire."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.TXT

from anycastlb.core.model import Change, DnsKey, DnsRecord, RecordType

MARKER = "_anycastlb."


@dataclass
class Standing:
    """What stands at a name that is ours."""

    service: str = ""
    marker: bytes = b""
    records: dict[RecordType, frozenset[str]] = field(default_factory=dict)
    """By type; a type that is not there is missing."""
    ttls: dict[RecordType, int] = field(default_factory=dict)


def types(name: str) -> tuple[RecordType, ...]:
    return ("SRV",) if name.startswith("_") else ("A", "AAAA")


def unusable(name: str, zone: dns.name.Name) -> str:
    """Why this cannot be a name in the zone; empty if it can."""
    if any(char.isspace() for char in name):
        return f"{name!r:.80} is no domain name; give the service a name of its own in its dns"
    try:
        if dns.name.from_text(MARKER + name).is_subdomain(zone):
            return ""
    except (dns.exception.DNSException, ValueError) as exc:
        return f"{name!r:.80} is no domain name ({exc}); give the service a name of its own in its dns"
    return f"{name:.80} does not lie in the zone {zone}"


def rows(name: str, standing: Standing) -> list[tuple[DnsKey, DnsRecord]]:
    return [
        (DnsKey(name, kind, data), DnsRecord(standing.ttls[kind], standing.service))
        for kind in standing.records
        for data in sorted(standing.records[kind])
    ]


def changed(before: Standing | None, changes: Sequence[Change], owner: str) -> Standing:
    """What stands there afterwards. All records of one type have one time to live, and all of a name one service."""
    had = before or Standing()
    records = {kind: set(data) for kind, data in had.records.items()}
    ttls, service = dict(had.ttls), had.service
    for change in changes:
        kind = change.key.type
        if change.new is None:
            records.get(kind, set()).discard(change.key.data)
            continue
        records.setdefault(kind, set()).add(change.key.data)
        ttls[kind], service = change.new.ttl, change.new.service
    left = {kind: frozenset(data) for kind, data in records.items() if data}
    marker = f"heritage=anycastlb,owner={owner},service={service}".encode() if left else b""
    return Standing(service, marker, left, {kind: ttls[kind] for kind in left})


def marked(text: bytes, owner: str) -> str | None:
    """The service in our marker; None if it is not ours."""
    begin = f"heritage=anycastlb,owner={owner},service=".encode()
    return text[len(begin) :].decode(errors="replace") if text.startswith(begin) else None


def txt(text: bytes) -> dns.rdata.Rdata:
    parts = [text[at : at + 255] for at in range(0, len(text), 255)]
    return dns.rdtypes.ANY.TXT.TXT(dns.rdataclass.IN, dns.rdatatype.TXT, parts)


def rdata(kind: str, data: Collection[str]) -> list[dns.rdata.Rdata]:
    return [dns.rdata.from_text("IN", kind, text) for text in sorted(data)]


def data(record: Any) -> str:
    """A record's data as our rows have it."""
    if record.rdtype == dns.rdatatype.SRV:
        return f"{record.priority} {record.weight} {record.port} {record.target.to_text().lower()}"
    return str(ip_address(record.address))
