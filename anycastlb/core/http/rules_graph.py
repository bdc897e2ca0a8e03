"""The rules of a route as a decision graph.

First a table of all paths tells the longest prefix, or the exact path. Behind each of its entries stands a chain of
tests: of every match that may hold there, in the order of ``precedence``, until one is met. The chain of a prefix
goes on as the chain of the next shorter one, so they share their nodes. Pure.
"""

from __future__ import annotations

from functools import cache

from anycastlb.core.http.graph import (
    MAX_STEPS,
    PATH,
    DeepGraph,
    Graph,
    GraphBuilder,
    Leaf,
    Split,
    Status,
    Subject,
    Table,
    Test,
    slots_of,
    steps,
)
from anycastlb.core.http.precedence import Candidate, candidates, may_hold
from anycastlb.core.model import Match, PathMatch, PathRewrite, Redirect, Rewrite, Rule

NO_RULE = Status(404)
ROOT = PathMatch("prefix", "/")


def rules_graph(route: str, rules: tuple[Rule, ...]) -> Graph:
    """Raises ``DeepGraph``."""
    builder = _RulesGraph(rules)
    graph = builder.graph(route)
    if (length := steps(graph)) > MAX_STEPS:
        expected = f"expected at most {MAX_STEPS} tests in a row, not {length}"
        raise DeepGraph("rules", f"{expected}: fewer headers, regular expressions or matches for one path")
    return graph


class _RulesGraph:
    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self._candidates = candidates(rules)
        self._builder = GraphBuilder()
        self.chain = cache(self._chain)
        self.end = cache(self._end)

    def graph(self, route: str) -> Graph:
        paths = dict.fromkeys(one.match.path for one in self._candidates if one.match.path.kind != "regex")
        default = self.chain(self._at(ROOT))
        exact: dict[str, int] = {}
        prefixes: dict[str, int] = {}
        for path in paths:
            if path == ROOT:
                continue
            chain = self.chain(self._at(path))
            if path.kind == "exact":
                exact[path.value] = chain
            else:
                prefixes[path.value + "/"] = chain
                exact.setdefault(path.value, chain)  # an exact path was there before it
        if not exact and not prefixes:
            return self._builder.graph(route, default)
        table = Table(PATH, tuple(sorted(exact.items())), tuple(sorted(prefixes.items())), default)
        return self._builder.graph(route, self._builder.add(table))

    def _at(self, path: PathMatch) -> tuple[Candidate, ...]:
        """The matches that may hold for such paths; none after one that does in any case."""
        found = []
        for candidate in self._candidates:
            if may_hold(candidate.match.path, path):
                found.append(candidate)
                if not _tests(candidate.match):
                    break
                if len(found) > MAX_STEPS:
                    raise DeepGraph("rules", f"expected at most {MAX_STEPS} matches that may all hold for {path.value}")
        return tuple(found)

    def _chain(self, rest: tuple[Candidate, ...]) -> int:
        if not rest:
            return self._builder.add(NO_RULE)
        rule, match = rest[0]
        tests = _tests(match)
        node = self.end(rule, _segments(rule, match))
        no = self.chain(rest[1:]) if tests else 0
        for subject, value, regex in reversed(tests):
            node = self._builder.add(Test(subject, value, regex, node, no))
        return node

    def _end(self, rule: Rule, segments: int) -> int:
        """What becomes of a request that a rule has matched."""
        add = self._builder.add
        leaves = [
            add(Leaf(rule.name, pool, rule.filters, rule.retry, rule.timeout, segments))
            for pool in ([ref.pool for ref in rule.refs if ref.weight] or [""])
        ]
        if len(leaves) == 1:
            return leaves[0]
        shares = zip(slots_of([ref.weight for ref in rule.refs if ref.weight]), leaves, strict=True)
        return add(Split(Subject(rule.sticky.by, rule.sticky.cookie), tuple(shares)))


def _tests(match: Match) -> list[tuple[Subject, str, bool]]:
    """What must hold besides what the table of paths tells: what, its value, and whether that is a pattern."""
    tests = [(PATH, match.path.value, True)] if match.path.kind == "regex" else []
    tests += [(Subject("method"), match.method, False)] if match.method else []
    tests += [(Subject("header", one.name), one.value, one.regex) for one in match.headers]
    return tests + [(Subject("query", one.name), one.value, one.regex) for one in match.query]


def _segments(rule: Rule, match: Match) -> int:
    """How many segments of the path a filter of the rule replaces; 0 if none does."""
    changes = [one.path for one in rule.filters if isinstance(one, (Rewrite, Redirect))]
    if not any(isinstance(change, PathRewrite) and change.kind == "prefix" for change in changes):
        return 0
    return match.path.value.count("/") if match.path.value != "/" else 0
