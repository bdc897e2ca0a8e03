"""One pool of the HTTP tier: which of its backends get requests, and with which weights.

It is judged and weighed by the code that does so for a service on a VIP: the same checks, floors, slow starts, drains
and fallbacks. What follows is rows of HAProxy instead of IPVS's. A server that nobody asks for any more is drained for
the drain time of its pool; while nothing is proven yet of what replaces it, it serves on as it was.

Pure. Decision record: docs/decisions/0019-http-tier.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from anycastlb.core.decision import health
from anycastlb.core.decision.basis import Refusals
from anycastlb.core.decision.group_result import ALWAYS, EARLY, NEVER
from anycastlb.core.decision.http import passive
from anycastlb.core.decision.judgement import Judgement, Observed, judge
from anycastlb.core.decision.member import Member, ObservedBackend
from anycastlb.core.decision.pool import weigh
from anycastlb.core.http.names import escaped
from anycastlb.core.model import (
    Address,
    BackendVerdict,
    Check,
    CheckState,
    DestinationKey,
    Endpoint,
    Health,
    HttpServer,
    HttpServerKey,
    Leaving,
    PassiveFailure,
    PoolMemory,
    PoolVerdict,
    ServerState,
    Service,
)

HEAVIEST = 256
"""HAProxy's largest weight."""
NOWHERE: Address = IPv4Address(0)
NEW = PoolMemory()


@dataclass(frozen=True, slots=True)
class PoolResult:
    """What a decision makes of one pool."""

    service: Service
    checks: frozenset[Check]
    """Those of its backends."""
    failures: Mapping[Endpoint, PassiveFailure]
    """Those of its backends that fail requests."""
    memory: PoolMemory
    verdict: PoolVerdict
    rows: Mapping[str, HttpServer]
    """The servers it is to have, by their names in HAProxy, those that leave included."""
    wakes: tuple[float, ...]
    """When something of it next changes by the mere passing of time."""
    until: float
    """Until when it stands if nothing that it was made of changes; ``NEVER``: it is made anew by every decision."""


def place_of(pool: Service) -> Address:
    """The VIP by which a service with VIPs is judged as a pool: its first one."""
    return pool.vips[0] if pool.vips else NOWHERE


def checks_of_pool(pool: Service) -> tuple[Check, ...]:
    """The checks of its backends, in their order."""
    vip = place_of(pool)
    return tuple(pool.check(vip, backend) for backend in pool.members(vip))


def decide_pool(
    pool: Service,
    known: Health,
    failures: Mapping[Endpoint, PassiveFailure],
    memory: PoolMemory,
    refused: Refusals,
    now: float,
) -> PoolResult:
    vip, checks = place_of(pool), checks_of_pool(pool)
    states = tuple(known.get(check, health.UNKNOWN) for check in checks)
    names = {escaped(backend.name) for backend in pool.members(vip)}
    given_up = {name: row for name, row in memory.servers.items() if name not in names}
    seen = _observed(pool, states, failures, memory, refused, given_up, now)
    judged = judge(pool, vip, seen, now)
    weighed = weigh(judged, None, now)
    servers = _servers(judged, weighed.backends.values())
    leaving = _leaving(pool, judged, given_up, {n: i for n, i in memory.leaving.items() if n not in names}, now)
    after = PoolMemory(
        service=pool,
        up_since={(m.backend.address, m.backend.port): m.since for m in judged.members if m.up},
        unproven={(key.address, key.port): since for key, since in judged.unproven.items()},
        serving=judged.verdict.open or bool(judged.verdict.proving),
        servers=servers,
        leaving=leaving,
    )
    after = memory if after == memory else after
    waits = bool(judged.verdict.proving or judged.proving)
    is_refused = any(backend.refusal for backend in seen.backends)
    ends = [failure.until for failure in failures.values() if failure.until > now]
    wakes = (*weighed.wakes, *ends, *(item.until for item in leaving.values()))
    stands = after is memory and not waits and not is_refused and not leaving
    return PoolResult(
        service=pool,
        checks=frozenset(checks),
        failures=failures,
        memory=after,
        verdict=PoolVerdict(
            judged.verdict,
            {verdict.backend: verdict for verdict in _noted(judged, weighed.backends, failures, now)},
            _serves(judged, leaving),
        ),
        rows={**{name: _leaving_row(item) for name, item in leaving.items()}, **servers},
        wakes=(*wakes, now + judged.proving) if waits else wakes,
        until=min((*weighed.wakes, *ends), default=ALWAYS) - EARLY if stands else NEVER,
    )


def removed_pool(memory: PoolMemory, now: float) -> PoolMemory | None:
    """A pool that nobody asks for any more: its servers serve on as they are until its drain is over."""
    drain = memory.service.drain if memory.service is not None else 0.0
    leaving = {name: item for name, item in memory.leaving.items() if item.until > now}
    if memory.service is not None and drain > 0:
        leaving |= {name: Leaving(row, now + drain, drain, serves=True) for name, row in memory.servers.items()}
    return PoolMemory(memory.service, leaving=leaving) if leaving else None


def rows_of_removed(memory: PoolMemory) -> Mapping[str, HttpServer]:
    return {name: _leaving_row(item) for name, item in memory.leaving.items()}


# ------------------------------------------------------------ steps


def _observed(
    pool: Service,
    states: tuple[CheckState, ...],
    failures: Mapping[Endpoint, PassiveFailure],
    memory: PoolMemory,
    refused: Refusals,
    given_up: Mapping[str, HttpServer],
    now: float,
) -> Observed:
    section = escaped(pool.name)
    backends = []
    for backend, state in zip(pool.members(place_of(pool)), states, strict=True):
        at, name = (backend.address, backend.port), escaped(backend.name)
        row = memory.servers.get(name)
        weight = None if row is None else row.weight if row.state == "ready" else 0
        refusal = refused.get(HttpServerKey(section, name)) if refused else None
        backends.append(ObservedBackend(state, memory.up_since.get(at), weight, refusal, memory.unproven.get(at)))
    if failures:
        ups = [backend.state.up is True and backend.refusal is None for backend in backends]
        out = passive.out(pool, ups, failures, now)
        places = [(backend.address, backend.port) for backend in pool.backends]
        backends = [replace(one, out=out.get(at)) for at, one in zip(places, backends, strict=True)]
    serving_on = any(item.serves for item in memory.leaving.values())
    replaced = serving_on or any(row.state == "ready" and row.weight for row in given_up.values())
    return Observed(tuple(backends), None, memory.serving, False, memory.serving, replaced)


def _noted(
    judged: Judgement,
    verdicts: Mapping[DestinationKey, BackendVerdict],
    failures: Mapping[Endpoint, PassiveFailure],
    now: float,
) -> Iterable[BackendVerdict]:
    """The verdicts, with what is said of backends that fail requests and get some all the same."""
    if not failures:
        return verdicts.values()
    gone = {(one.backend.address, one.backend.port) for one in judged.members if not one.up}
    notes = passive.notes(failures, gone, now)
    return [
        replace(verdict, notes=(*verdict.notes, notes[key.address, key.port]))
        if (key.address, key.port) in notes
        else verdict
        for key, verdict in verdicts.items()
    ]


def _servers(judged: Judgement, verdicts: Iterable[BackendVerdict]) -> dict[str, HttpServer]:
    by_name = {verdict.backend: verdict for verdict in verdicts}
    members = judged.members
    largest = max((max(m.nominal, m.backend.override or 0) for m in members), default=0)
    return {escaped(m.backend.name): _row(m, by_name[m.backend.name].weight, largest) for m in members}


def _row(member: Member, weight: int, largest: int) -> HttpServer:
    """Out of use it keeps the weight that it will have again."""
    backend = member.backend
    state: ServerState = "ready" if weight else "drain" if member.up and not member.used else "maint"
    return HttpServer(backend.address, backend.port, scaled(weight or member.nominal, largest), state, backend.upper)


def scaled(weight: int, largest: int) -> int:
    """A weight in HAProxy's coarseness. ``largest``: of its pool."""
    if largest <= HEAVIEST or not weight:
        return weight
    return max(1, weight * HEAVIEST // largest)


def _leaving(
    pool: Service, judged: Judgement, given_up: Mapping[str, HttpServer], before: Mapping[str, Leaving], now: float
) -> dict[str, Leaving]:
    proving, left = judged.proving, {}
    for name, item in before.items():
        if item.serves and proving:
            left[name] = replace(item, until=now + proving + item.drain)
        elif item.serves:
            left[name] = replace(item, serves=False, until=min(item.until, now + item.drain))
        else:
            left[name] = item
    for name, row in given_up.items():
        serves = bool(judged.verdict.proving) and row.state == "ready"
        left[name] = Leaving(row, now + proving * serves + pool.drain, pool.drain, serves)
    return {name: item for name, item in left.items() if item.until > now}


def _leaving_row(item: Leaving) -> HttpServer:
    row: HttpServer = item.row
    return row if item.serves or row.state != "ready" else replace(row, state="drain")


def _serves(judged: Judgement, leaving: Mapping[str, Leaving]) -> bool:
    verdict = judged.verdict
    replaced = any(item.serves for item in leaving.values())
    return verdict.open or bool(verdict.proving and (verdict.up or replaced))
