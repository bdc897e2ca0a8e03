"""Publish names in DNS: read at the zone's primary and changed by dynamic updates (RFC 2136), signed with TSIG.

*A name is ours if our marker stands beside it*: a TXT record at ``_anycastlb.<name>`` that names anycastlb, the owner
and the service. Nothing else is ever seen or changed. Other nodes write the same names at the same moments, so every
update is a compare-and-swap: its prerequisites say exactly what this node believes stands at the name (for a name that
is not ours yet: that nothing does), and the server does all of it or nothing. A race is lost harmlessly and looked at
again.

A server cannot be asked which names are ours without a transfer of the zone, so we ask for those that the catalog may
have, and for those that we once knew to be ours: they are kept in a file, since their service may be deleted while this
node is down.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.TXT
import dns.tsig
import dns.update

from anycastlb.adapters.drivers.names import RACED, tsig
from anycastlb.adapters.system.atomic_file import write_atomic
from anycastlb.adapters.system.cancellation import cancellable
from anycastlb.core.model import Change, DnsKey, DnsRecord, DriverError, RecordType, Rows, Table
from anycastlb.settings import DnsSettings

ATTEMPT = 5.0
"""Seconds a server has for one answer."""
AT_ONCE = 8
"""Names that are looked up at the same time."""
MARKER = "_anycastlb."
UNMET = {dns.rcode.YXDOMAIN, dns.rcode.YXRRSET, dns.rcode.NXDOMAIN, dns.rcode.NXRRSET}
"""A prerequisite did not hold."""
UNSIGNED = (
    "its answer is not signed, so it may be anybody's; expected the primary server of dns.zone, one that knows our key"
)
MEANT: Mapping[int, str] = {
    dns.rcode.REFUSED: "REFUSED: expected a server that lets this key query and update the zone (allow-update or "
    "update-policy in BIND, an acl with action update in Knot)",
    dns.rcode.NOTAUTH: "NOTAUTH: expected the primary server of the zone, and a key it knows",
    dns.rcode.NOTZONE: "NOTZONE: the name does not lie in dns.zone",
    dns.rcode.NOTIMP: "NOTIMP: expected a server that takes dynamic updates",
    dns.rcode.SERVFAIL: "SERVFAIL: the server could not do it; see its log",
}


@dataclass
class Standing:
    """What stands at a name that is ours."""

    service: str = ""
    marker: bytes = b""
    records: dict[RecordType, frozenset[str]] = field(default_factory=dict)
    """By type; a type that is not there is missing."""
    ttls: dict[RecordType, int] = field(default_factory=dict)


class DnsZone:
    """``memory``: the file of names that are or were ours."""

    table: Table = "dns_records"

    def __init__(self, settings: DnsSettings, memory: Path | None = None, attempt: float = ATTEMPT) -> None:
        assert settings.server and settings.zone and settings.tsig_key_file
        self._server, self._port, self._key_file = settings.server, settings.port, settings.tsig_key_file
        self._zone = dns.name.from_text(settings.zone)
        self._owner, self._attempt, self._memory = settings.owner, attempt, memory
        self.period = settings.refresh
        self.where = f"DNS zone {settings.zone} at {settings.server}" + (
            f" port {settings.port}" if settings.port != 53 else ""
        )
        self._known: set[str] | None = None
        """What ``memory`` says."""
        self._standing: dict[str, Standing] = {}

    async def look(self, names: Collection[str]) -> Rows:
        known = await self._recall()
        key, some = tsig.read(self._key_file), asyncio.Semaphore(AT_ONCE)
        found: dict[str, Standing] = {}
        failures: list[DriverError] = []

        async def ask(name: str) -> None:
            async with some:
                if failures:
                    return
                try:
                    if standing := await self._at(name, key):
                        found[name] = standing
                except DriverError as exc:
                    failures.append(exc)

        async with asyncio.TaskGroup() as group:
            for name in sorted({*names, *known}):
                group.create_task(ask(name))
        if failures:
            raise failures[0]
        self._standing = found
        await self._remember(set(found))
        return {row_key: row for name, standing in found.items() for row_key, row in _rows(name, standing)}

    async def write(self, changes: Sequence[Change]) -> AsyncIterator[tuple[Change, str]]:
        key, by_name = tsig.read(self._key_file), defaultdict(list)
        for change in changes:
            by_name[change.key.name].append(change)
        await self._remember({*(await self._recall()), *by_name})
        for name, together in by_name.items():
            reason = await self._swap(name, together, key)
            for change in together:
                yield change, reason

    async def close(self) -> None:
        """Nothing stays open between questions."""

    # ------------------------------------------------------------ one name

    async def _at(self, name: str, key: dns.tsig.Key) -> Standing | None:
        """What stands at a name of ours; None if it is not ours."""
        if _unusable(name, self._zone):
            return None
        markers, _ = await self._ask(MARKER + name, "TXT", key)
        if len(markers) != 1 or (service := _marked(b"".join(markers[0].strings), self._owner)) is None:
            return None
        standing = Standing(service, b"".join(markers[0].strings))
        for kind in _types(name):
            records, ttl = await self._ask(name, kind, key)
            if records:
                standing.records[kind] = frozenset(_data(record) for record in records)
                standing.ttls[kind] = ttl
        return standing

    async def _swap(self, name: str, changes: Sequence[Change], key: dns.tsig.Key) -> str:
        """Make these changes of one name at once; the reason if that cannot be."""
        if reason := _unusable(name, self._zone):
            return reason
        before = self._standing.get(name)
        after = _changed(before, changes, self._owner)
        update = dns.update.UpdateMessage(self._zone, keyring=key)
        host, marker = dns.name.from_text(name), dns.name.from_text(MARKER + name)
        _expect(update, marker, "TXT", [_txt(before.marker)] if before else [])
        for kind in _types(name) if before else (*_types(name), "CNAME"):
            _expect(update, host, kind, _rdata(kind, before.records.get(kind, ()) if before else ()))  # type: ignore[call-overload]
        had = before or Standing()
        for kind in _types(name):
            wanted = after.records.get(kind, frozenset())
            if wanted != had.records.get(kind, frozenset()) or after.ttls.get(kind) != had.ttls.get(kind):
                _put(update, host, after.ttls.get(kind, 0), kind, _rdata(kind, wanted))
        if after.marker != had.marker:
            marker_data = [_txt(after.marker)] if after.marker else []
            _put(update, marker, max(after.ttls.values(), default=0), "TXT", marker_data)
        rcode = (await self._exchange(update, key)).rcode()
        if rcode == dns.rcode.NOERROR:
            self._standing.pop(name, None)
            if after.records:
                self._standing[name] = after
            return ""
        if rcode in UNMET:
            return RACED if before else await self._foreign(name, key)
        return MEANT.get(rcode, dns.rcode.to_text(rcode))

    async def _foreign(self, name: str, key: dns.tsig.Key) -> str:
        """Why a name that was not ours could not become ours."""
        if await self._at(name, key):
            return RACED
        markers, _ = await self._ask(MARKER + name, "TXT", key)
        if markers:
            owner = b"".join(markers[0].strings).decode(errors="replace")
            return f"the name belongs to somebody else, by its marker {owner!r:.120}; choose another name"
        present = [kind for kind in (*_types(name), "CNAME") if (await self._ask(name, kind, key))[0]]
        return (
            f"there are records that anycastlb did not make ({', '.join(present) or 'of another type'}): they are left "
            "alone; delete them, or choose another name in the service's dns"
        )

    # ------------------------------------------------------------ the wire

    async def _ask(self, name: str, kind: str, key: dns.tsig.Key) -> tuple[list[Any], int]:
        """The records of one type at one name, and their time to live."""
        asked = dns.name.from_text(name)
        query = dns.message.make_query(asked, kind)
        query.flags &= ~dns.flags.RD
        query.use_tsig(key)
        response = await self._exchange(query, key)
        rcode = response.rcode()
        if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            raise self._fault(MEANT.get(rcode, dns.rcode.to_text(rcode)))
        if not response.flags & dns.flags.AA:
            raise self._fault("it is no authority for the zone; expected the zone's primary server")
        found = response.get_rrset(response.answer, asked, dns.rdataclass.IN, dns.rdatatype.from_text(kind))
        return (list(found), found.ttl) if found else ([], 0)

    async def _exchange(self, message: dns.message.Message, key: dns.tsig.Key) -> dns.message.Message:
        """The answer to a signed message, by TCP: nothing is truncated, and nothing done twice."""
        try:
            answer = await cancellable(dns.asyncquery.tcp(message, self._server, self._attempt, self._port))
        except dns.exception.Timeout as exc:
            raise self._fault(f"no answer within {self._attempt:g} s; expected a name server there") from exc
        except (dns.tsig.PeerBadKey, dns.message.UnknownTSIGKey) as exc:
            raise self._fault(f"BADKEY: it does not know the key {_name(key)}, or lets it do nothing here") from exc
        except (dns.tsig.PeerBadSignature, dns.tsig.BadSignature) as exc:
            raise self._fault(f"BADSIG: it has another secret for the key {_name(key)}") from exc
        except (dns.tsig.PeerBadTime, dns.tsig.BadTime) as exc:
            raise self._fault("BADTIME: its clock and ours differ by more than 5 minutes; set them") from exc
        except (dns.exception.DNSException, OSError, EOFError, ValueError) as exc:
            if "requires a TSIG" in str(exc):  # a bare FormError: dnspython has no type of its own for it
                raise self._fault(UNSIGNED) from exc
            cause = " ".join(str(exc).split()) or type(exc).__name__
            raise self._fault(f"{cause:.200}; expected a name server there") from exc
        if not answer.had_tsig and answer.rcode() in (dns.rcode.NOERROR, *UNMET):
            raise self._fault(UNSIGNED)
        return answer

    def _fault(self, what: str) -> DriverError:
        return DriverError(f"{self.where}: {what}")

    # ------------------------------------------------------------ the names that are or were ours

    async def _recall(self) -> set[str]:
        if self._known is None:
            self._known = await asyncio.to_thread(_load, self._memory) if self._memory else set()
        return self._known

    async def _remember(self, names: set[str]) -> None:
        """Kept before it is written there: a name may be forgotten late, never early."""
        if names != await self._recall():
            self._known = names
            if self._memory:
                await asyncio.to_thread(_save, self._memory, names)


def _load(path: Path) -> set[str]:
    try:
        return set(path.read_text(encoding="utf-8").split())
    except FileNotFoundError:
        return set()
    except (OSError, ValueError) as exc:
        raise DriverError(
            f"{path}: {exc}; expected the names this node has published; delete it if it is broken"
        ) from exc


def _save(path: Path, names: set[str]) -> None:
    try:
        write_atomic(path, "".join(f"{name}\n" for name in sorted(names)).encode())
    except OSError as exc:
        raise DriverError(f"{path}: {exc}; expected a state_dir this node may write to") from exc


# ---------------------------------------------------------------- pure


def _types(name: str) -> tuple[RecordType, ...]:
    return ("SRV",) if name.startswith("_") else ("A", "AAAA")


def _unusable(name: str, zone: dns.name.Name) -> str:
    """Why this cannot be a name in the zone; empty if it can."""
    if any(char.isspace() for char in name):
        return f"{name!r:.80} is no domain name; give the service a name of its own in its dns"
    try:
        if dns.name.from_text(MARKER + name).is_subdomain(zone):
            return ""
    except (dns.exception.DNSException, ValueError) as exc:
        return f"{name!r:.80} is no domain name ({exc}); give the service a name of its own in its dns"
    return f"{name:.80} does not lie in the zone {zone}"


def _rows(name: str, standing: Standing) -> list[tuple[DnsKey, DnsRecord]]:
    return [
        (DnsKey(name, kind, data), DnsRecord(standing.ttls[kind], standing.service))
        for kind in standing.records
        for data in sorted(standing.records[kind])
    ]


def _changed(before: Standing | None, changes: Sequence[Change], owner: str) -> Standing:
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


def _marked(text: bytes, owner: str) -> str | None:
    """The service in our marker; None if it is not ours."""
    begin = f"heritage=anycastlb,owner={owner},service=".encode()
    return text[len(begin) :].decode(errors="replace") if text.startswith(begin) else None


def _txt(text: bytes) -> dns.rdata.Rdata:
    parts = [text[at : at + 255] for at in range(0, len(text), 255)]
    return dns.rdtypes.ANY.TXT.TXT(dns.rdataclass.IN, dns.rdatatype.TXT, parts)


def _rdata(kind: str, data: Collection[str]) -> list[dns.rdata.Rdata]:
    return [dns.rdata.from_text("IN", kind, text) for text in sorted(data)]


def _data(record: Any) -> str:
    """A record's data as our rows have it."""
    if record.rdtype == dns.rdatatype.SRV:
        return f"{record.priority} {record.weight} {record.port} {record.target.to_text().lower()}"
    return str(ip_address(record.address))


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


def _name(key: dns.tsig.Key) -> str:
    return str(key.name.to_text(omit_final_dot=True))
