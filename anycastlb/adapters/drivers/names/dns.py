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
from collections.abc import AsyncIterator, Collection, Sequence
from pathlib import Path

import dns.name
import dns.rcode
import dns.tsig
import dns.update

from anycastlb.adapters.drivers.names import RACED, tsig, zone_records
from anycastlb.adapters.drivers.names.known_names import KnownNames
from anycastlb.adapters.drivers.names.zone_records import MARKER, Standing
from anycastlb.adapters.drivers.names.zone_server import ATTEMPT, MEANT, UNMET, ZoneServer
from anycastlb.adapters.drivers.names.zone_update import compare_and_swap
from anycastlb.core.model import Change, DriverError, Rows, Table
from anycastlb.settings import DnsSettings

AT_ONCE = 8
"""Names that are looked up at the same time."""


class DnsZone:
    """``memory``: the file of names that are or were ours."""

    table: Table = "dns_records"

    def __init__(self, settings: DnsSettings, memory: Path | None = None, attempt: float = ATTEMPT) -> None:
        assert settings.zone and settings.tsig_key_file
        self._server, self._key_file = ZoneServer(settings, attempt), settings.tsig_key_file
        self._zone, self._owner = dns.name.from_text(settings.zone), settings.owner
        self.where, self.period = self._server.where, settings.refresh
        self._names = KnownNames(memory)
        self._standing: dict[str, Standing] = {}
        """By name: what the last look showed, and what was written since."""

    async def look(self, names: Collection[str]) -> Rows:
        known = await self._names.recall()
        key, some = tsig.read(self._key_file), asyncio.Semaphore(AT_ONCE)
        ours: dict[str, Standing] = {}
        failures: list[DriverError] = []

        async def ask(name: str) -> None:
            async with some:
                if failures:
                    return
                try:
                    if standing := await self._at(name, key):
                        ours[name] = standing
                except DriverError as exc:
                    failures.append(exc)

        async with asyncio.TaskGroup() as group:
            for name in sorted({*names, *known}):
                group.create_task(ask(name))
        if failures:
            raise failures[0]
        self._standing = ours
        await self._names.remember(set(ours))
        return {row_key: row for name, standing in ours.items() for row_key, row in zone_records.rows(name, standing)}

    async def write(self, changes: Sequence[Change]) -> AsyncIterator[tuple[Change, str]]:
        key, by_name = tsig.read(self._key_file), defaultdict(list)
        for change in changes:
            by_name[change.key.name].append(change)
        await self._names.remember({*(await self._names.recall()), *by_name})
        for name, together in by_name.items():
            reason = await self._swap(name, together, key)
            for change in together:
                yield change, reason

    async def close(self) -> None:
        """Nothing stays open between questions."""

    async def _at(self, name: str, key: dns.tsig.Key) -> Standing | None:
        """What stands at a name of ours; None if it is not ours."""
        if zone_records.unusable(name, self._zone):
            return None
        markers, _ = await self._server.ask(MARKER + name, "TXT", key)
        if len(markers) != 1 or (service := zone_records.marked(b"".join(markers[0].strings), self._owner)) is None:
            return None
        standing = Standing(service, b"".join(markers[0].strings))
        for kind in zone_records.types(name):
            records, ttl = await self._server.ask(name, kind, key)
            if records:
                standing.records[kind] = frozenset(zone_records.data(record) for record in records)
                standing.ttls[kind] = ttl
        return standing

    async def _swap(self, name: str, changes: Sequence[Change], key: dns.tsig.Key) -> str:
        """Make these changes of one name at once; the reason if that cannot be."""
        if reason := zone_records.unusable(name, self._zone):
            return reason
        before = self._standing.get(name)
        after = zone_records.changed(before, changes, self._owner)
        update = compare_and_swap(dns.update.UpdateMessage(self._zone, keyring=key), name, before, after)
        rcode = (await self._server.exchange(update, key)).rcode()
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
        markers, _ = await self._server.ask(MARKER + name, "TXT", key)
        if markers:
            owner = b"".join(markers[0].strings).decode(errors="replace")
            return f"the name belongs to somebody else, by its marker {owner!r:.120}; choose another name"
        present = [
            kind for kind in (*zone_records.types(name), "CNAME") if (await self._server.ask(name, kind, key))[0]
        ]
        return (
            f"there are records that anycastlb did not make ({', '.join(present) or 'of another type'}): they are left "
            "alone; delete them, or choose another name in the service's dns"
        )
