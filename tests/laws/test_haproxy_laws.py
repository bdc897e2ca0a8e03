"""What the driver of HAProxy reads out of the ids of nodes is what the compiler has put into them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hypothesis import assume, given

from anycastlb.adapters.drivers.haproxy import entries
from anycastlb.adapters.drivers.haproxy.commands import is_data
from anycastlb.adapters.drivers.haproxy.config import keep, offers, render_static
from anycastlb.adapters.drivers.haproxy.entries import Needs, damaged, live, living, missing, needs, stale
from anycastlb.adapters.drivers.haproxy.installation import MAPS, Installation
from anycastlb.core.catalog.http.route import parse_route
from anycastlb.core.http.entries import CompiledGraph, compile_graph
from anycastlb.core.http.graph import Graph
from anycastlb.core.http.routes import graph_of
from anycastlb.core.http.static import engine_row
from anycastlb.core.model import Balancing, HttpConfig, HttpRoute
from tests.support import http_documents

FILES = Installation(Path("/run/h"), Path("/etc/h"), Path("/run/h/s"), Path("/run/h/m"))
POOLS: dict[str, Any] = {name: SimpleNamespace(balancing=Balancing()) for name in ("blog", "web", "10.0.0.1:80")}


def read(document: Any) -> Graph:
    route = parse_route("routes/shop", "shop", document)
    assume(isinstance(route, HttpRoute))
    assert isinstance(route, HttpRoute)
    return graph_of(route)


def maps_of(*graphs: CompiledGraph) -> dict[str, dict[str, str]]:
    maps: dict[str, dict[str, str]] = {name: {} for name in MAPS}
    for graph in graphs:
        for entry in graph.entries:
            maps[entry.map][entry.key] = entry.value
    return maps


def config_of(*graphs: Graph) -> HttpConfig:
    config = engine_row([], graphs, POOLS).config
    assert config
    return config


@given(http_documents.routes, http_documents.routes)
def test_a_graph_lives_as_long_as_a_site_leads_to_it(first: Any, second: Any) -> None:
    one, two = (compile_graph(read(document)) for document in (first, second))
    both = maps_of(one, two)
    assert not list(stale(both, live(both, [one.root, two.root])))
    left = maps_of(one, two)
    for name, key in stale(both, live(both, [one.root])):
        del left[name][key]
    assert left == maps_of(one)
    assert damaged(both, left, [one.root]) == frozenset()
    assert damaged(maps_of(), left, [one.root]) == {entries.graph_of(one.root)} - {""}
    new, wrong = missing(one.entries, maps_of())
    assert {name: keys for name, keys in maps_of(one).items() if keys} == new and not wrong
    assert all(is_data(entry.key, entry.value) for entry in one.entries)


@given(http_documents.routes)
def test_whatever_is_missing_of_a_graph_is_noticed(document: Any) -> None:
    graph = compile_graph(read(document))
    for entry in graph.entries:
        for other in (None, f"{entry.value}x"):
            actual = maps_of(graph)
            del actual[entry.map][entry.key]
            if other:
                actual[entry.map][entry.key] = other
            assert damaged(maps_of(graph), actual, [graph.root]) == {entries.graph_of(graph.root)}, entry


@given(http_documents.routes, http_documents.routes)
def test_a_configuration_offers_what_its_graphs_need(first: Any, second: Any) -> None:
    """And one that follows keeps what the graphs before still need, over the reload."""
    old, new = read(first), read(second)
    before = compile_graph(old).entries
    static = render_static(config_of(old), "0", FILES)
    assert not needs(before) - offers(static)
    graph = compile_graph(old)
    maps = maps_of(graph)
    assert needs(living(maps, live(maps, [graph.root]))) == needs(before)
    config, kept = keep(static, config_of(new), needs(before))
    after = offers(render_static(config, "1", FILES) + kept)
    assert not needs(before) - after and not needs(compile_graph(new).entries) - after
    assert bool(Needs()) is False
