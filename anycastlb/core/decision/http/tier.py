"""The HTTP tier of one decision: from documents and health to verdicts and rows, and what the next decision needs.

It is decided before the VIPs are, since the gates of gateways go by it. What nothing has changed about is taken from
the last decision, object by object; without ``[http]`` it is nothing at all.

Pure. Decision record: docs/decisions/0019-http-tier.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from anycastlb.core.decision import health
from anycastlb.core.decision.basis import Refusals
from anycastlb.core.decision.containment import Containment
from anycastlb.core.decision.http import spread
from anycastlb.core.decision.http.compiled import NOTHING, Compiled, compiled
from anycastlb.core.decision.http.gateways import judge_gateway, judge_route, listener, listening
from anycastlb.core.decision.http.listening import Listening
from anycastlb.core.decision.http.pools import NEW, PoolResult, decide_pool, removed_pool, rows_of_removed
from anycastlb.core.decision.own_drain import withdrawn
from anycastlb.core.delta import Edited, shared
from anycastlb.core.identity import same_objects
from anycastlb.core.model import (
    EMPTY,
    NO_HTTP,
    Gateway,
    Health,
    HttpCertificate,
    HttpMemory,
    HttpRoute,
    HttpServer,
    HttpServerKey,
    HttpVerdicts,
    Inputs,
    Memory,
    PoolMemory,
    PoolVerdict,
    RemovedGateway,
    RouteVerdict,
    Rows,
    Service,
    SiteKey,
)

Sections: TypeAlias = Mapping[str, tuple[Mapping[str, HttpServer], Mapping[HttpServerKey, HttpServer]]]
ENGINE = "config"
"""The key of the one row of ``http_engine``."""


FORGOTTEN = HttpMemory()


@dataclass(frozen=True, slots=True)
class HttpTables:
    """The rows that are wanted."""

    http_engine: Rows = field(default_factory=lambda: EMPTY)
    http_certificates: Rows = field(default_factory=lambda: EMPTY)
    http_servers: Rows = field(default_factory=lambda: EMPTY)
    http_sites: Rows = field(default_factory=lambda: EMPTY)


@dataclass(frozen=True, slots=True)
class Tier:
    """The HTTP tier of one decision."""

    services: tuple[Service, ...] = ()
    """All that stand on VIPs: the catalog's services, and the gateways as services."""
    made_of: tuple[tuple[Service, ...], tuple[Gateway, ...], tuple[spread.Share, ...]] = ((), (), ())
    """What ``services`` was made of."""
    sharing: tuple[Service, ...] = ()
    """Of these the gateways whose connections nodes share."""
    wanted: Mapping[str, Service] = field(default_factory=lambda: EMPTY)
    """Every pool that is asked for, by name."""
    asked_by: tuple[object, ...] = ()
    """What asks for them."""
    health: Health = field(default_factory=lambda: EMPTY)
    """What their results were made from, besides their memory."""
    results: Mapping[str, PoolResult] = field(default_factory=lambda: EMPTY)
    compiled: Compiled = NOTHING
    sections: Sections = field(default_factory=lambda: EMPTY)
    """By the name of a section: the servers of its pool, and the rows that they make."""
    tables: HttpTables = HttpTables()
    verdicts: HttpVerdicts = NO_HTTP
    listening: Mapping[str, Listening] = field(default_factory=lambda: EMPTY)
    """What gates go by, by the gateway's name."""
    judged_by: tuple[Any, ...] = ()
    """What the verdicts were made of, besides what was refused."""
    refused: Refusals = field(default_factory=lambda: EMPTY)
    memory: HttpMemory = FORGOTTEN
    wakes: tuple[float, ...] = ()


OFF = Tier()


def http_tier(
    last: Tier, inputs: Inputs, memory: Memory, refused: Refusals, now: float, contained: Containment
) -> Tier:
    """``last``: of a decision whose ``memory`` this one goes on from, or ``OFF``."""
    catalog, before = inputs.catalog, memory.http
    if not inputs.policy.http:
        return last if last.services is catalog.services else replace(OFF, services=catalog.services)
    refused = _of_rows(refused)
    gateways = () if inputs.stopping and withdrawn(memory.node_drain) else catalog.gateways
    gone = _removed(before, gateways, now)
    routes = (*catalog.routes, *(route for one in gone.values() for route in one.routes))
    serving = (*gateways, *(one.gateway for one in gone.values()))
    asked_by = catalog.pools, catalog.services, *(routes if serving else ())
    same = same_objects(last.asked_by, asked_by)
    wanted = last.wanted if same else _pools(inputs, routes if serving else ())
    results = _results(last, wanted, inputs, before, refused, now, contained)
    pools, rows, services = _memories(results, before, now)
    made = compiled(last.compiled, serving, routes if serving else (), services, contained)
    tables, sections = _tables(last, made, rows, inputs.certificates)
    verdicts, heard = _verdicts(last, inputs, results, refused)
    marks = spread.marks(serving, before, inputs.policy.spread)
    shares = tuple(
        (marks.get((one.vips[0], one.port)), spread.sharing(one, inputs, memory, now)) for one in catalog.gateways
    )
    placed = catalog.services, catalog.gateways, shares
    standing, sharing = last.services, last.sharing
    if placed[0] is not last.made_of[0] or placed[1] is not last.made_of[1] or shares != last.made_of[2]:
        listeners = tuple(listener(one, *share) for one, share in zip(catalog.gateways, shares, strict=True))
        standing = (*catalog.services, *listeners) if listeners else catalog.services
        sharing = tuple(service for service in listeners if service.backends)
    after = HttpMemory(
        pools=shared(before.pools, pools),
        gateways=gateways,
        routes=catalog.routes,
        removed=shared(before.removed, gone),
        marks=shared(before.marks, marks),
    )
    return Tier(
        services=standing,
        made_of=placed,
        sharing=sharing,
        wanted=wanted,
        asked_by=asked_by,
        health=inputs.health,
        results=results,
        compiled=made,
        sections=sections,
        tables=tables,
        verdicts=verdicts,
        listening=heard,
        judged_by=_judged_by(inputs, results),
        refused=refused,
        memory=before if after == before else after,
        wakes=(
            *(wake for result in results.values() for wake in result.wakes),
            *(one.until for one in gone.values()),
            *spread.wakes(catalog.gateways, inputs, memory, now),
            *(item.until for name, one in pools.items() if name not in results for item in one.leaving.values()),
        ),
    )


# ------------------------------------------------------------ steps


def _removed(before: HttpMemory, gateways: Iterable[Gateway], now: float) -> dict[str, RemovedGateway]:
    """The gateways nobody asks for any more, until their drain is over."""
    names = {gateway.name for gateway in gateways}
    gone = {name: one for name, one in before.removed.items() if name not in names and one.until > now}
    for gateway in before.gateways:
        if gateway.name not in names and gateway.name not in gone and gateway.drain:
            routes = tuple(route for route in before.routes if gateway.name in route.gateways)
            gone[gateway.name] = RemovedGateway(gateway, routes, now + gateway.drain)
    return gone


def _pools(inputs: Inputs, routes: Iterable[HttpRoute]) -> dict[str, Service]:
    """The catalog's pools, and the services with VIPs that routes send requests to."""
    catalog = inputs.catalog
    wanted = {pool.name: pool for pool in catalog.pools}
    others = {name for route in routes for name in route.pools()} - wanted.keys()
    if others:
        wanted |= {service.name: service for service in catalog.services if service.name in others}
    return wanted


def _results(
    last: Tier,
    wanted: Mapping[str, Service],
    inputs: Inputs,
    before: HttpMemory,
    refused: Refusals,
    now: float,
    contained: Containment,
) -> Mapping[str, PoolResult]:
    results = {}
    turned = frozenset(health.turned(last.health, inputs.health))
    for name, pool in wanted.items():
        known, memory = last.results.get(name), before.pools.get(name, NEW)
        failures = inputs.passive.get(name, EMPTY)
        same = known is not None and known.service is pool and known.memory is memory and known.failures is failures
        if known is not None and same and known.until > now and not refused and known.checks.isdisjoint(turned):
            results[name] = known
            continue
        made = contained.of(f"pool {name}", decide_pool, pool, inputs.health, failures, memory, refused, now)
        if made is not None:
            results[name] = made
    return shared(last.results, results)


def _memories(
    results: Mapping[str, PoolResult], before: HttpMemory, now: float
) -> tuple[dict[str, PoolMemory], dict[str, Mapping[str, HttpServer]], tuple[Service, ...]]:
    """The memory and the rows of every pool, those that are removed included; and the services that have a section."""
    memories = {name: result.memory for name, result in results.items()}
    rows = {name: result.rows for name, result in results.items()}
    services = {name: result.service for name, result in results.items()}
    for name, memory in before.pools.items():
        if name not in results and (kept := removed_pool(memory, now)) is not None and kept.service is not None:
            memories[name], rows[name], services[name] = kept, rows_of_removed(kept), kept.service
    return memories, rows, tuple(services[name] for name in sorted(services))


def _tables(
    last: Tier, made: Compiled, rows: Mapping[str, Mapping[str, HttpServer]], certificates: Mapping[str, str]
) -> tuple[HttpTables, Sections]:
    if made.engine is None or made.engine.config is None:
        return HttpTables(), {}
    sections: dict[str, tuple[Mapping[str, HttpServer], Mapping[HttpServerKey, HttpServer]]] = {}
    for section in made.engine.config.sections:
        servers, known = rows.get(section.pool, EMPTY), last.sections.get(section.name)
        if known is not None and (known[0] is servers or known[0] == servers):
            sections[section.name] = known
        else:
            sections[section.name] = servers, {HttpServerKey(section.name, name): row for name, row in servers.items()}
    before = last.tables
    wanted = {ENGINE: made.engine}
    tables = HttpTables(
        http_engine=shared(before.http_engine, wanted),
        http_certificates=shared(before.http_certificates, _certificates(made.gateways, certificates)),
        http_servers=_servers(last, sections),
        http_sites=made.sites,
    )
    return (before if tables == before else tables), sections


def _servers(last: Tier, sections: Sections) -> Rows:
    """The rows of all sections; no key of those that are as they were is hashed."""
    before = last.tables.http_servers
    if not same_objects(last.sections, sections):
        return shared(before, {key: row for _, keyed in sections.values() for key, row in keyed.items()})
    pairs = [
        (old[1], new[1]) for old, new in zip(last.sections.values(), sections.values(), strict=True) if old is not new
    ]
    if any(old.keys() != new.keys() for old, new in pairs):
        return shared(before, {key: row for _, keyed in sections.values() for key, row in keyed.items()})
    changed = {key: row for old, new in pairs for key, row in new.items() if old[key] != row}
    return Edited(before, changed) if changed else before


def _certificates(gateways: Iterable[Gateway], known: Mapping[str, str]) -> dict[str, HttpCertificate]:
    """Those that gateways use, as far as the node has them."""
    users: dict[str, set[str]] = {}
    for gateway in gateways:
        for name in gateway.tls.certificates if gateway.tls else ():
            users.setdefault(name, set()).add(gateway.name)
    return {
        name: HttpCertificate(known[name], tuple(sorted(gateways)))
        for name, gateways in sorted(users.items())
        if name in known
    }


def _of_rows(refused: Refusals) -> Refusals:
    """Those of servers and sites. Gates go by that HAProxy is away, and no pool or route is judged anew for it."""
    return {key: why for key, why in refused.items() if isinstance(key, HttpServerKey | SiteKey)}


def _judged_by(inputs: Inputs, results: Mapping[str, PoolResult]) -> tuple[Any, ...]:
    return results, inputs.catalog.routes, inputs.catalog.gateways


def _routes(
    last: Tier, inputs: Inputs, pools: Mapping[str, PoolVerdict], gateways: frozenset[str], refused: Refusals
) -> dict[str, RouteVerdict]:
    """Judged anew are the routes that are not as they were, and those of which a pool is another object than before."""
    before, routes, known = last.verdicts, inputs.catalog.routes, frozenset[int]()
    if last.judged_by and last.judged_by[2] is inputs.catalog.gateways and last.refused == refused:
        known = frozenset(map(id, last.judged_by[1]))
    touched = {name for name in {**before.pools, **pools} if pools.get(name) is not before.pools.get(name)}
    return {
        route.name: past
        if id(route) in known and touched.isdisjoint((past := before.routes[route.name]).pools)
        else judge_route(route, pools, gateways, refused)
        for route in routes
    }


def _verdicts(
    last: Tier, inputs: Inputs, results: Mapping[str, PoolResult], refused: Refusals
) -> tuple[HttpVerdicts, Mapping[str, Listening]]:
    if same_objects(last.judged_by, _judged_by(inputs, results)) and last.refused == refused:
        return last.verdicts, last.listening
    catalog = inputs.catalog
    pools = shared(last.verdicts.pools, {name: results[name].verdict for name in sorted(results)})
    names = frozenset(gateway.name for gateway in catalog.gateways)
    routes = _routes(last, inputs, pools, names, refused)
    by_gateway: dict[str, list[HttpRoute]] = {name: [] for name in names}
    for route in catalog.routes:
        for gateway_name in route.gateways:
            if gateway_name in by_gateway:
                by_gateway[gateway_name].append(route)
    gateways, heard = {}, {}
    for gateway in catalog.gateways:
        own = by_gateway[gateway.name]
        gateways[gateway.name] = judge_gateway(gateway, [(route, routes[route.name]) for route in own])
        used = {name for route in own for name in routes[route.name].pools if name in pools}
        heard[gateway.name] = listening(gateways[gateway.name], gateway.port, [pools[name] for name in sorted(used)])
    verdicts = HttpVerdicts(pools, shared(last.verdicts.routes, routes), shared(last.verdicts.gateways, gateways))
    return (last.verdicts if verdicts == last.verdicts else verdicts), shared(last.listening, heard)
