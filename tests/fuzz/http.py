"""Mutants of gateways, routes and pools, each in a catalog of good documents that must stay as they are.

What is taken must be fit for HAProxy: every entry one line of a map file, every graph one that can be walked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from anycastlb.core.catalog.edit.bulk import export_documents
from anycastlb.core.http.entries import compile_graph
from anycastlb.core.http.evaluate import walk
from anycastlb.core.http.graph import MAX_STEPS, SLOTS, steps
from anycastlb.core.http.request import Request
from anycastlb.core.http.routes import graph_of
from anycastlb.core.http.static import engine_row
from anycastlb.core.model import Catalog, Entry, Tree
from tests.fuzz.mutation import Mutator
from tests.support.http_tree import DOCUMENTS, ELB, changed, read_tree, tree

GOOD: dict[str, Any] = {**DOCUMENTS, "routes/old.example": {"gateways": ["web"], "graph": ELB}}
TEXTS = (
    "/", "//", "/a b", "/a?b", "/%2e", "/" * 300, "/1/2/3/4/5/6/7/8/9", "*", "*.example", "a.*.b", "[::1]",
    "shop.example:80", "SHOP.example.", "^/(a|b)+$", "(a+)+$", "(?i)x", "(?=x)", r"(a)\1", "a{1000}",
    "((a{9}){9}){9}", "[", r"\Q", r"/\1", r"\9", "(", "Exact", "PathPrefix", "RegularExpression", "URLRewrite",
    "RequestRedirect", "ReplaceFullPath", "ReplaceRegexMatch", "backend", "ua", "path", "r1", "r4", "blog", "web",
    "user-agent", "x_a", "host", "GET", "get", "%[src]", '"', "#", "a\r\nb: c", "roundrobin", "hdr(x)", "source",
    "h2", "1.3", "http",
)  # fmt: skip
REQUESTS = [
    Request("GET", "shop.example", "/blog/x", "page=1", (("user-agent", "HTTPie/1"), ("cookie", "uid=a"))),
    Request("POST", "x", "/"),
    Request("get", "", "/%00//..", "&;=?"),
]


@dataclass(frozen=True)
class Mutant:
    key: str
    entry: Entry
    known: bool
    """Did the node know the good documents?"""


def make(mutator: Mutator) -> Sequence[Mutant]:
    chance, mutants = mutator.chance, []
    for key, good in GOOD.items():
        document = mutator.mutant(good) if chance.random() < 0.3 else good
        for _ in range(chance.choice([1, 1, 2]) if document is good else 0):
            document = _with_text(document, chance.choice(TEXTS), mutator)
        mutants.append(Mutant(key, Entry(mutator.written(document), 99), chance.random() < 0.5))
    return mutants


def _with_text(document: Any, text: str, mutator: Mutator) -> Any:
    """The document with a text in the place of one of its texts."""
    places = list(_places(document, ()))
    return changed(document, *mutator.chance.choice(places), to=text) if places else document


def _places(value: Any, path: tuple[Any, ...]) -> Any:
    if isinstance(value, str) and path:
        yield path
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from _places(item, (*path, key))


@cache
def _well() -> Catalog:
    catalog = read_tree(tree(GOOD))
    assert not catalog.problems
    return catalog


def judge(mutants: Sequence[Mutant]) -> None:
    """Each by itself: the others stay, what was known stays too, and what is taken can be compiled and walked."""
    for mutant in mutants:
        _judge(mutant)


def _judge(mutant: Mutant) -> None:
    entries = {**tree(GOOD).entries, mutant.key: mutant.entry}
    before = _well() if mutant.known else Catalog()
    catalog = read_tree(Tree(entries, 2), before)
    assert all(len(str(problem)) < 3000 for problem in catalog.problems)
    taken = catalog.good.get(mutant.key) == mutant.entry
    assert taken or any(problem.key == mutant.key for problem in catalog.problems), "what is not taken has a problem"
    if mutant.known:
        assert catalog.good.keys() == GOOD.keys(), "what was known is lost"
    elif mutant.key.startswith("routes/"):
        assert catalog.good.keys() >= GOOD.keys() - {mutant.key, *_rivals(catalog)}
    _compile(catalog)
    documents, _ = export_documents(Tree(catalog.good))
    json.dumps(documents, allow_nan=False)


def _rivals(catalog: Catalog) -> set[str]:
    """Routes that lost their hostnames to an older one."""
    return {problem.key for problem in catalog.problems if problem.path == "hostnames"}


def _compile(catalog: Catalog) -> None:
    graphs = [graph_of(route) for route in catalog.routes]
    engine_row(catalog.gateways, graphs, {one.name: one for one in (*catalog.services, *catalog.pools)})
    for graph in graphs:
        assert steps(graph) <= MAX_STEPS
        for entry in compile_graph(graph).entries:
            assert re.fullmatch(r"[!-~]+", entry.key) and re.fullmatch(r"[!-~]([ -~]*[!-~])?", entry.value), entry
        for request in REQUESTS:
            assert sum(slots for slots, _ in walk(graph, request).ends) == SLOTS
