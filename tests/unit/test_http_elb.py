"""ELB's own document, as its README has it, and what becomes of requests by it."""

from __future__ import annotations

from typing import Any

import pytest

from anycastlb.core.catalog.http.route import parse_route
from anycastlb.core.http.entries import compile_graph
from anycastlb.core.http.evaluate import walk
from anycastlb.core.http.graph import Leaf, Status
from anycastlb.core.http.request import Request
from anycastlb.core.http.rewrite import sent_path
from anycastlb.core.http.routes import graph_of
from anycastlb.core.model import HttpRoute
from tests.support.http_machine import Machine, WireRequest, node_of
from tests.support.http_tree import DOCUMENTS, EXAMPLE, README, changed, read

REWRITTEN = changed(EXAMPLE, "rules", "r4", "args", "rewrite", to=True)
PREFIX = {
    "init": "p",
    "rules": {
        "p": {"type": "path", "args": {"pattern": "/path1", "succ": "b"}},
        "b": {"type": "backend", "args": {"servername": "upstream2", "expires": "30d", "X-Path": "/a b"}},
    },
}
CASES = [
    (EXAMPLE, "HTTPie/0.9.9", "/blog/x", "r2", "/blog/x"),
    (EXAMPLE, "HTTPie/0.9.9", "/blog/", "r3", "/blog/"),  # ELB goes to r2 here, as to every path (E1)
    (EXAMPLE, "HTTPie/0.9.9", "/other", "r3", "/other"),
    (EXAMPLE, "curl/7", "/blog/x", "r3", "/blog/x"),
    (EXAMPLE, None, "/blog/x", "r3", "/blog/x"),
    (REWRITTEN, "HTTPie/0.9.9", "/blog/x", "r2", "/x"),  # ELB sends a path without a slash (E6)
    (REWRITTEN, "HTTPie/0.9.9", "/blog/x/y", "r2", "/x/y"),
    (REWRITTEN, "HTTPie/0.9.9", "/blog///evil.example", "r2", "/evil.example"),
    (REWRITTEN, "HTTPie/0.9.9", "/zzz", "r3", "/zzz"),
    (PREFIX, "x", "/path1/zzz", "b", "/path1/zzz"),
    (PREFIX, "x", "/path12", "b", "/path12"),  # a prefix of the text, not of segments
    (PREFIX, "x", "/nope", 403, "/nope"),
]


def route(graph: Any) -> HttpRoute:
    parsed = parse_route("routes/old.example", "old.example", {"gateways": ["web"], "graph": graph})
    assert isinstance(parsed, HttpRoute), parsed
    return parsed


@pytest.mark.parametrize(("document", "agent", "path", "rule", "sent"), CASES)
def test_the_example_of_elbs_readme(document: Any, agent: str | None, path: str, rule: str | int, sent: str) -> None:
    headers = (("user-agent", agent),) if agent else ()
    graph = graph_of(route(document))
    way = walk(graph, Request("GET", "old.example", path, headers=headers))
    ((_, end),) = way.ends
    compiled = compile_graph(graph)
    outcome = Machine(compiled.entries).run(compiled.root, WireRequest("GET", path, headers=headers))
    if isinstance(end, Status):
        assert (end.code, outcome.node) == (rule, f"!{rule}")
        return
    assert isinstance(end, Leaf) and (end.rule, sent_path(end, way.path)) == (rule, sent)
    assert node_of(graph, outcome.node) is end and outcome.path == sent


def test_the_example_is_taken_as_it_stands_but_for_its_comma() -> None:
    pools = {name: {"port": 80} for name in ("services/upstrimg1", "services/upstream2")}
    key, text = "routes/127.0.0.1", '{"gateways": ["web"], "graph": %s}'
    found = read({**DOCUMENTS, **pools, key: (text % README).encode()})
    assert [problem.key for problem in found.problems] == [key] and "JSON" in found.problems[0].expected
    found = read({**DOCUMENTS, **pools, key: (text % README.replace("},\n}", "}\n}")).encode()})
    assert not found.problems and found.routes[0].hostnames == ("127.0.0.1",)


def test_other_arguments_of_a_backend_become_headers() -> None:
    compiled = compile_graph(graph_of(route(PREFIX)))
    set_ = [(entry.key.partition("|")[2], entry.value) for entry in compiled.entries if entry.map == "do"]
    assert set_ == [("request.set.expires", "30d"), ("request.set.x-path", "/a b")]


ENTRIES = r"""
leaf >:D.2 upstream2
leaf >:D.3 upstrimg1
next h.user-agent:4:D.0:p7dc62fa56e2c| >:D.2
next h.user-agent:4:D.0:p7dc62fa56e2c|1? p:w5:D.1:w2b6e3d418c85
next p:w5:D.1:w2b6e3d418c85| >:D.2
next p:w5:D.1:w2b6e3d418c85|1? >:D.3
re4 (*LIMIT_MATCH=20000)\Ap7dc62fa56e2c\|=.*?(?:(?i)httpie([^\t\n\f\r\x20]+)$) 1
re5 (*LIMIT_MATCH=20000)\Aw2b6e3d418c85\|=(?:(?<=\Aw2b6e3d418c85\|=)\/blog\/([^\t\n\f\r\x20]+)$) /\1
"""


def test_the_entries_of_the_example() -> None:
    """Decision record 19, by one example in full: a change of it is a change of HAProxy's configuration too."""
    compiled = compile_graph(graph_of(route(REWRITTEN)))
    digest = compiled.root.split(":")[2].removesuffix(".0")
    lines = [f"{entry.map} {entry.key} {entry.value}".replace(digest, "D") for entry in compiled.entries]
    assert lines == ENTRIES.strip().splitlines()


def test_another_version_has_other_ids_and_an_equal_one_the_same() -> None:
    one, same, other = (compile_graph(graph_of(route(graph))) for graph in (EXAMPLE, dict(EXAMPLE), REWRITTEN))
    assert one == same and one.root != other.root
    ids = [{entry.key for entry in compiled.entries if entry.map == "next"} for compiled in (one, other)]
    assert ids[0].isdisjoint(ids[1])
