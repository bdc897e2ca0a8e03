"""The static part of HAProxy's configuration, and the sites: the wanted rows of ``http_engine`` and ``http_sites``.

What is static costs a reload when it changes, so as little as possible is. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from hashlib import sha256

from anycastlb.core.http.entries import CompiledGraph, token
from anycastlb.core.http.graph import ENDS, Graph, Leaf
from anycastlb.core.http.names import COMMON, section
from anycastlb.core.model import (
    Announce,
    Gateway,
    HeaderChange,
    HttpConfig,
    HttpEngine,
    HttpRoute,
    HttpSite,
    Section,
    Service,
    SiteKey,
)

ALWAYS = frozenset({"p", "m", "c", "cs"})
"""Subjects without a name are always there, so that the first rule that looks at one takes no reload."""


def engine_row(gateways: Iterable[Gateway], graphs: Iterable[Graph], pools: Mapping[str, Service]) -> HttpEngine:
    """The row of ``http_engine``. ``pools``: every service that has a section, by name."""
    nodes = [node for graph in graphs for node in graph.nodes]
    leaves = [node for node in nodes if isinstance(node, Leaf)]
    retries = {(name, COMMON) for name in pools} | {(leaf.pool, leaf.retry) for leaf in leaves if leaf.pool in pools}
    changes = {(change.of, name) for leaf in leaves for change in leaf.header_changes for name in _names(change)}
    config = HttpConfig(
        gateways=tuple(sorted(map(_as_listener, gateways), key=lambda gateway: gateway.name)),
        sections=tuple(
            Section(section(name, retry), name, pools[name].balancing, retry)
            for name, retry in sorted(retries, key=lambda pair: section(*pair))
        ),
        subjects=tuple(sorted(ALWAYS | {token(node.subject) for node in nodes if not isinstance(node, ENDS)})),
        request_headers=tuple(sorted(name for of, name in changes if of == "request")),
        response_headers=tuple(sorted(name for of, name in changes if of == "response")),
    )
    return engine_of(config)


def engine_of(config: HttpConfig) -> HttpEngine:
    """The row of a configuration."""
    listens = frozenset(claim for gateway in config.gateways for claim in gateway.claims())
    return HttpEngine(sha256(repr(config).encode()).hexdigest()[:16], config, listens)


def site_rows(route: HttpRoute, compiled: CompiledGraph) -> dict[SiteKey, HttpSite]:
    """The rows of ``http_sites`` of one route."""
    site = HttpSite(compiled.root, compiled.entries)
    return {SiteKey(gateway, host): site for gateway in route.gateways for host in route.hostnames}


def _as_listener(gateway: Gateway) -> Gateway:
    """The gateway without all that is no business of HAProxy's."""
    return replace(gateway, spread="mh", when="any", announce=Announce(), drain=0.0)


def _names(change: HeaderChange) -> Iterable[str]:
    return (*(name for name, _ in (*change.set, *change.add)), *change.remove)
