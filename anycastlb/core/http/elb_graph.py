"""ELB's own graph of a domain as a decision graph.

What ELB gets wrong is not kept: a regular expression that does not match leads to ``fail`` (in ELB a path rule never
does), the pattern of a user agent is matched without regard to case (ELB lowers the header, and not the pattern), and a
path that is rewritten begins with a slash. A missing edge answers 403, as in ELB. Pure.
"""

from __future__ import annotations

from collections.abc import Callable

from anycastlb.core.http.graph import (
    MAX_STEPS,
    PATH,
    DeepGraph,
    Graph,
    GraphBuilder,
    Leaf,
    Node,
    Status,
    Subject,
    Table,
    Test,
    steps,
)
from anycastlb.core.http.patterns import pattern
from anycastlb.core.model import ElbGraph, ElbRule, HeaderChange

NO_EDGE = Status(403)
AGENT = Subject("header", "user-agent")


def elb_graph(route: str, document: ElbGraph) -> Graph:
    """Every edge leads to a rule of the document. Raises ``DeepGraph``."""
    rules = {rule.name: rule for rule in document.rules}
    builder = GraphBuilder()
    places: dict[str, int] = {}
    way: list[str] = []

    def place(name: str) -> int:
        if not name:
            return builder.add(NO_EDGE)
        if name in way:
            cycle = " -> ".join([*way[way.index(name) :], name])
            raise DeepGraph(f"graph.rules.{way[-1]}", f"expected no rule that leads back to itself: {cycle}")
        if len(way) > MAX_STEPS:
            raise DeepGraph("graph", f"expected at most {MAX_STEPS} tests in a row")
        if name not in places:
            way.append(name)
            places[name] = builder.add(_node(rules[name], place))
            way.pop()
        return places[name]

    graph = builder.graph(route, place(document.init))
    if (length := steps(graph)) > MAX_STEPS:
        raise DeepGraph("graph", f"expected at most {MAX_STEPS} tests in a row, not {length}")
    return graph


def _node(rule: ElbRule, place: Callable[[str], int]) -> Node:
    if rule.type == "backend":
        return Leaf(rule.name, rule.pool, (HeaderChange("request", rule.headers),) if rule.headers else ())
    yes, no = place(rule.succ), place(rule.fail)
    if rule.type == "ua":
        return Test(AGENT, f"(?i){rule.pattern}", True, yes, no)
    if not rule.regex:
        return Table(PATH, (), ((rule.pattern, yes),), no)
    template = "" if not rule.rewrite else r"/\1" if pattern(rule.pattern).groups else "/"
    return Test(PATH, rule.pattern, True, yes, no, template)
