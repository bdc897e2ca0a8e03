"""Routes as HAProxy has them, compiled once for as long as they are the same objects.

Pure. Decision record: docs/decisions/0019-http-tier.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from anycastlb.core.decision.containment import Containment
from anycastlb.core.delta import shared
from anycastlb.core.http.entries import CompiledGraph, compile_graph
from anycastlb.core.http.graph import Graph
from anycastlb.core.http.routes import graph_of
from anycastlb.core.http.static import engine_row, site_rows
from anycastlb.core.identity import same_objects
from anycastlb.core.model import EMPTY, Gateway, HttpEngine, HttpRoute, HttpSite, Service, SiteKey


@dataclass(frozen=True, slots=True)
class CompiledRoute:
    route: HttpRoute
    graph: Graph
    compiled: CompiledGraph


@dataclass(frozen=True, slots=True)
class Compiled:
    """The static part and the sites, and what they were made of."""

    gateways: tuple[Gateway, ...] = ()
    routes: tuple[HttpRoute, ...] = ()
    pools: tuple[Service, ...] = ()
    known: Mapping[int, CompiledRoute] = field(default_factory=lambda: EMPTY)
    """By the identity of the route, which is held."""
    engine: HttpEngine | None = None
    """None: there is no gateway."""
    sites: Mapping[SiteKey, HttpSite] = field(default_factory=lambda: EMPTY)


NOTHING = Compiled()


def compiled(
    last: Compiled,
    gateways: tuple[Gateway, ...],
    routes: tuple[HttpRoute, ...],
    pools: tuple[Service, ...],
    contained: Containment,
) -> Compiled:
    """``gateways`` and ``routes``: also those that are removed and still serve; of what both say, the first counts.
    ``pools``: every service that has a section. What is equal to what ``last`` has is the same object.
    """
    same = same_objects(last.gateways, gateways) and same_objects(last.routes, routes)
    if same and same_objects(last.pools, pools):
        return last
    if not gateways:
        return NOTHING
    if not same:
        known: Mapping[int, CompiledRoute] = dict(_compile(last, routes, contained))
        sites: Mapping[SiteKey, HttpSite] = shared(last.sites, _sites(gateways, known.values()))
    else:
        known, sites = last.known, last.sites
    by_name = {pool.name: pool for pool in pools}
    engine = last.engine
    if not same or _sections(last.pools) != _sections(pools):
        made = engine_row(gateways, [one.graph for one in known.values()], by_name)
        engine = engine if engine == made else made
    return Compiled(gateways, routes, pools, known, engine, sites)


def _compile(
    last: Compiled, routes: Iterable[HttpRoute], contained: Containment
) -> Iterator[tuple[int, CompiledRoute]]:
    for route in routes:
        known = last.known.get(id(route))
        if known is None:
            graph = contained.of(f"route {route.name}", graph_of, route)
            made = None if graph is None else contained.of(f"route {route.name}", compile_graph, graph)
            if graph is None or made is None:
                continue
            known = CompiledRoute(route, graph, made)
        yield id(route), known


def _sites(gateways: Iterable[Gateway], routes: Iterable[CompiledRoute]) -> dict[SiteKey, HttpSite]:
    names = {gateway.name for gateway in gateways}
    sites: dict[SiteKey, HttpSite] = {}
    for one in routes:
        for key, site in site_rows(one.route, one.compiled).items():
            if key.gateway in names:
                sites.setdefault(key, site)
    return sites


def _sections(pools: Iterable[Service]) -> list[tuple[str, object]]:
    """What of the pools is a part of the configuration."""
    return [(pool.name, pool.balancing) for pool in pools]
