"""R8: what the evaluator says of a request is what HAProxy of both releases does with it.

Random documents with rules, and with graphs as ELB had them, all served at once under a hostname each, and random
requests for them. ``ANYCASTLB_EXAMPLES`` says how many documents there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from anycastlb.core.catalog.http.route import parse_route
from anycastlb.core.http import rewrite
from anycastlb.core.http.entries import compile_graph
from anycastlb.core.http.evaluate import walk
from anycastlb.core.http.graph import Graph, Leaf, Status
from anycastlb.core.http.request import Request, Target
from anycastlb.core.http.routes import graph_of
from anycastlb.core.http.static import engine_row
from anycastlb.core.model import Balancing, HttpRoute, HttpSite, SiteKey
from tests.support import haproxy, http_documents
from tests.support.examples import EXAMPLES
from tests.support.haproxy import LOOPBACK, RELEASES, Haproxy, gateway
from tests.support.haproxy_rows import Wanted, at, server
from tests.support.haproxy_world import World
from tests.support.http_machine import WireRequest
from tests.support.origin import Client, Origin, Reply, origins
from tests.support.ports import free_port

DOCUMENTS = EXAMPLES or 40
REQUESTS = 10
"""For each document."""
POOLS = ("blog", "web", "10.0.0.1:80")
T = TypeVar("T")


def drawn(strategy: st.SearchStrategy[T], count: int) -> list[T]:
    """Always the same examples."""
    examples: list[T] = []

    @settings(
        max_examples=count, derandomize=True, database=None, phases=[Phase.generate], deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(strategy)
    def collect(example: T) -> None:
        examples.append(example)

    collect()
    return examples[:count]


def readable(documents: list[Any]) -> list[Graph]:
    routes = (parse_route(f"routes/r{place}", f"r{place}", one) for place, one in enumerate(documents))
    return [graph_of(route) for route in routes if isinstance(route, HttpRoute)]


@pytest.mark.parametrize("release", RELEASES)
async def test_haproxy_does_what_the_evaluator_says(
    release: str, require: Callable[[str], str], tmp_path: Path
) -> None:
    of_elb = [{"gateways": ["web"], "graph": graph} for graph in drawn(http_documents.elb_graphs(), DOCUMENTS // 4)]
    graphs = readable([*drawn(http_documents.routes, DOCUMENTS), *of_elb])
    asked = drawn(st.lists(http_documents.requests, min_size=REQUESTS, max_size=REQUESTS), len(graphs))
    files = haproxy.installation(tmp_path, require(release))
    real = Haproxy(files)
    world = World(real, files, free_port())
    async with origins(*POOLS) as servers:
        try:
            await world.start(wanted(graphs, world.port, servers))
            client, wrong, ends = Client(world.port), [], Counter[str]()
            for place, (graph, requests) in enumerate(zip(graphs, asked, strict=False)):
                for wire in requests:
                    reply, head = await ask(client, f"r{place}.example", wire, servers)
                    ends[end_of(reply)] += 1
                    difference = differs(graph, f"r{place}.example", wire, world.port, reply, head)
                    wrong += [(difference, wire, graph)] if difference else []
        finally:
            world.runtime.close()
            real.stop()
    assert wrong == [], f"{len(wrong)} of {len(graphs) * REQUESTS} requests"
    assert ends.keys() == {*POOLS, "redirect", "403", "404"}, ends


def wanted(graphs: list[Graph], port: int, servers: dict[str, Origin]) -> Wanted:
    pools: dict[str, Any] = {name: SimpleNamespace(balancing=Balancing()) for name in POOLS}
    row = engine_row([gateway(port)], graphs, pools)
    assert row.config
    compiled = map(compile_graph, graphs)
    return Wanted(
        row.config,
        row.digest,
        {at(one.name, "s"): server(servers[one.pool].port) for one in row.config.sections},
        {SiteKey("web", f"r{place}.example"): HttpSite(one.root, one.entries) for place, one in enumerate(compiled)},
    )


async def ask(client: Client, host: str, wire: WireRequest, servers: dict[str, Origin]) -> tuple[Reply, str]:
    """The reply, and the head that a server was sent, if any was."""
    for origin in servers.values():
        origin.heads.clear()
    path = wire.path + (f"?{wire.query}" if wire.query else "")
    headers = [f"{name}: {value}" for name, value in wire.headers]
    reply = await client.get(path, host, wire.method, *headers, "X-B: b")
    heads = [head for origin in servers.values() for head in origin.heads]
    return reply, "".join(heads)


def end_of(reply: Reply) -> str:
    return reply.body if reply.status == 200 else "redirect" if "location:" in reply.head else str(reply.status)


def differs(graph: Graph, host: str, wire: WireRequest, port: int, reply: Reply, head: str) -> str:
    """What HAProxy did otherwise than the evaluator says."""
    request = Request(wire.method, host, wire.path, wire.query, (*wire.headers, ("x-b", "b")), LOOPBACK)
    walked = walk(graph, request)
    ends = [end for _, end in walked.ends]
    if isinstance(ends[0], Status):
        return "" if reply.status == ends[0].code else f"status {reply.status} instead of {ends[0].code}"
    leaf = next((end for end in ends if isinstance(end, Leaf) and reply.body in (end.pool, "")), None)
    if leaf is None:
        return f"pool {reply.body!r} ({reply.status}) instead of {ends}"
    if leaf.redirect:
        where = rewrite.location(leaf, leaf.redirect, request, Target("http", port), walked.path)
        said = [line.partition(": ")[2] for line in reply.head.splitlines() if line.lower().startswith("location:")]
        return "" if (reply.status, said) == (leaf.redirect.status, [where]) else f"{reply} instead of {where}"
    return head_differs(leaf, rewrite.sent_path(leaf, walked.path), host, wire, head)


def head_differs(leaf: Leaf, path: str, host: str, wire: WireRequest, head: str) -> str:
    first, *lines = head.splitlines()
    query = f"?{wire.query}" if wire.query else ""
    if first != f"{wire.method} {path}{query} HTTP/1.1":
        return f"{first!r} instead of {path!r}"
    sent = {line.partition(": ")[0].lower(): line.partition(": ")[2] for line in lines}
    expected = {"host": (leaf.rewrite and leaf.rewrite.host) or host, "x-b": "b"}
    for change in leaf.header_changes:
        expected |= dict(change.set) | dict.fromkeys(change.remove)
    return "".join(f"{name}: {sent.get(name)!r} instead of {value!r}" for name, value in expected.items()
                   if sent.get(name) != value)  # fmt: skip
