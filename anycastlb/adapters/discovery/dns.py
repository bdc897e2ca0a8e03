"""Resolve a DNS name (A, AAAA, or SRV with the addresses of its targets) again and again, whenever its TTL is over.

A name that does not exist, or has no such record, is an answer without instances. A resolver that fails, refuses or
keeps silent is an error, and so is one target of SRV that cannot be looked up: half an answer is none. Nothing is
cached, and a truncated answer is fetched over TCP (docs/decisions/0002).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import dns.asyncresolver
import dns.exception
import dns.resolver

from anycastlb.adapters.discovery import DiscoveryAnswer, ordered
from anycastlb.adapters.system.cancellation import cancellable
from anycastlb.core.fields import address
from anycastlb.core.model import Address, DnsInstances, Instance, SourceError, endpoint

SHORTEST, LONGEST = 1.0, 300.0
"""Seconds between two queries, whatever the TTL says."""
ATTEMPT, LIFETIME = 2.0, 5.0
"""Seconds: for one server to answer, and for all attempts of one query together."""
MAX_TARGETS = 256


@dataclass(frozen=True, slots=True)
class Records:
    """What one query brought; ``why`` there is nothing, if so."""

    records: tuple[Any, ...]
    ttl: float
    why: str = ""


class DnsDiscovery:
    def __init__(self, wanted: DnsInstances, port: int = 53, shortest: float = SHORTEST) -> None:
        self._wanted, self._port, self._shortest = wanted, port, shortest
        self._next = 0.0
        """When the last answer has grown old, on the loop's clock."""
        self.reads = 0
        """Whole answers read so far."""

    async def read(self, after: DiscoveryAnswer | None) -> DiscoveryAnswer:
        """See ``Discovery``."""
        while True:
            if after is not None:
                await asyncio.sleep(self._next - asyncio.get_running_loop().time())
            answer = await self._ask()
            if after is None or not after.same(answer):
                return answer

    async def close(self) -> None:
        """Nothing stays open between queries."""

    async def _ask(self) -> DiscoveryAnswer:
        self.reads += 1
        wanted = self._wanted
        response = await self._query(wanted.name, wanted.type)
        if wanted.type == "SRV":
            answer, ttl = await self._targets(response)
        else:
            instances, problems = _at([str(record.address) for record in response.records])
            answer, ttl = DiscoveryAnswer(instances, problems=(*problems, *filter(None, [response.why]))), response.ttl
        self._next = asyncio.get_running_loop().time() + min(max(ttl, self._shortest), LONGEST)
        return answer

    async def _targets(self, services: Records) -> tuple[DiscoveryAnswer, float]:
        """The instances behind SRV records, and for how long. Raises ``SourceError``."""
        if len(services.records) > MAX_TARGETS:
            raise self._fault(f"{len(services.records)} SRV records; expected at most {MAX_TARGETS}")
        offered = [record for record in services.records if record.target.to_text() != "."]
        names = sorted({record.target.to_text() for record in offered})
        queries: list[tuple[str, Literal["A", "AAAA"]]] = [(name, kind) for name in names for kind in ("A", "AAAA")]
        addresses = await self._together(queries)
        hosts = {
            name: [str(r.address) for kind in ("A", "AAAA") for r in addresses[name, kind].records] for name in names
        }
        problems = [f"the target {name:.80} has no address" for name in names if not hosts[name]]
        instances, unusable = spread(
            (int(r.priority), int(r.weight), int(r.port), hosts[r.target.to_text()]) for r in offered
        )
        why = services.why or ("" if offered else f"{self._wanted.name}: the service is not offered (its target is .)")
        remarks = (*problems, *unusable, *([why] if why else []))
        # A host of one family answers for the other with a negative TTL; only what was found counts.
        ttls = [records.ttl for records in addresses.values() if records.records]
        return DiscoveryAnswer(instances, problems=remarks), min([services.ttl, *ttls])

    async def _together(
        self, queries: list[tuple[str, Literal["A", "AAAA"]]]
    ) -> dict[tuple[str, Literal["A", "AAAA"]], Records]:
        """All queries, eight at a time. Raises the first one's ``SourceError``."""
        records: dict[tuple[str, Literal["A", "AAAA"]], Records] = {}
        failures: list[SourceError] = []
        some = asyncio.Semaphore(8)

        async def ask(name: str, kind: Literal["A", "AAAA"]) -> None:
            async with some:
                if failures:
                    return
                try:
                    records[name, kind] = await self._query(name, kind)
                except SourceError as exc:
                    failures.append(exc)

        async with asyncio.TaskGroup() as group:
            for name, kind in queries:
                group.create_task(ask(name, kind))
        if failures:
            raise failures[0]
        return records

    async def _query(self, name: str, kind: str) -> Records:
        """The records of one name. Raises ``SourceError``."""
        try:
            resolver = dns.asyncresolver.Resolver(configure=self._wanted.resolver is None)
            if self._wanted.resolver is not None:
                resolver.nameservers = [str(self._wanted.resolver)]
            resolver.port, resolver.timeout, resolver.lifetime = self._port, ATTEMPT, LIFETIME
            answer = await cancellable(resolver.resolve(name, kind, search=False, raise_on_no_answer=False))
        except dns.resolver.NXDOMAIN as exc:
            responses: Mapping[Any, Any] = exc.kwargs.get("responses", {})
            ttls = [response.resolve_chaining().minimum_ttl for response in responses.values()]
            return Records((), min(ttls, default=0), f"no instance: the name {name:.80} does not exist (NXDOMAIN)")
        except (dns.exception.DNSException, OSError, ValueError) as exc:
            raise self._fault(f"{kind} of {name:.80}: {_error_text(exc)}") from exc
        ttl = answer.chaining_result.minimum_ttl
        if answer.rrset is None:
            return Records((), ttl, f"no instance: the name {name:.80} has no {kind} record")
        return Records(tuple(answer.rrset), ttl)

    def _fault(self, what: str) -> SourceError:
        where = self._wanted.resolver or "the host's resolver"
        return SourceError(f"DNS at {where}: {what}")


# ---------------------------------------------------------------- pure


def spread(records: Iterable[tuple[int, int, int, list[str]]]) -> tuple[tuple[Instance, ...], list[str]]:
    """Instances from SRV records as (priority, weight, port, addresses), and what was unusable.

    The lowest priority is used, all others are fallback. A weight of 0 means *hardly ever* beside others (RFC 2782), so
    it becomes 1; where all are 0 there is no opinion.
    """
    rows = sorted(records, key=lambda row: row[0])
    best = rows[0][0] if rows else 0
    weighed = any(weight for _, weight, _, _ in rows)
    instances: dict[tuple[Address, int], Instance] = {}
    problems: list[str] = []
    for priority, weight, port, texts in rows:
        addresses, bad = _usable(texts)
        problems += bad
        for where in addresses:
            name = endpoint(where, port)
            given = max(1, weight) if weighed else None
            instance = Instance(name, where, port or None, given, fallback=priority > best)
            instances.setdefault((where, port), instance)
    return ordered(instances.values()), problems


def _at(texts: Iterable[str]) -> tuple[tuple[Instance, ...], list[str]]:
    addresses, problems = _usable(texts)
    return ordered(Instance(str(where), where) for where in addresses), problems


def _usable(texts: Iterable[str]) -> tuple[list[Address], list[str]]:
    addresses: list[Address] = []
    problems: list[str] = []
    for text in texts:
        try:
            addresses.append(address(text))
        except ValueError as exc:
            problems.append(f"an address is left out: expected {exc}")
    return addresses, problems


def _error_text(error: Exception) -> str:
    """A fault in words that are the same each time it happens: the library's carry times and counts."""
    if isinstance(error, dns.exception.Timeout):
        return f"no answer within {LIFETIME:.0f} s; expected a resolver that answers there"
    if isinstance(error, dns.resolver.NoNameservers):
        causes = {str(cause) for _, _, _, cause, _ in error.kwargs.get("errors", ())}
        return f"{', '.join(sorted(causes)) or 'no server left to ask'}"[:200]
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
