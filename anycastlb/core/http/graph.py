"""The decision graph of a route: what is looked at, one thing after the other, until it is clear what becomes of a
request.

It is one value for both kinds of documents, for rules (``rules_graph``) and for ELB's own graph (``elb_graph``), and
the only thing that ``entries`` compiles and ``evaluate`` walks. An edge is the place of a node in ``Graph.nodes``, of
which the first is the root. A graph has no cycle, and no way through it is longer than ``MAX_STEPS``, since HAProxy's
configuration has only so many. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

from anycastlb.core.model import AnycastlbError, Filter, HeaderChange, Redirect, Retry, Rewrite

MAX_STEPS = 16
COMMON = Retry()
SLOTS = 10_000
"""Into which chance is divided."""


class DeepGraph(AnycastlbError):
    """A graph that HAProxy could not walk: it has a cycle, or too many tests in a row."""

    def __init__(self, path: str, expected: str) -> None:
        super().__init__(f"{path}: {expected}")
        self.path, self.expected = path, expected


@dataclass(frozen=True, slots=True)
class Subject:
    """What a node looks at."""

    kind: Literal["path", "method", "header", "query", "chance", "source", "cookie"]
    name: str = ""
    """Of the header, the parameter of the query or the cookie."""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" if self.name else self.kind


PATH = Subject("path")


@dataclass(frozen=True)
class Table:
    """Where a word leads, by its longest known beginning."""

    subject: Subject
    exact: tuple[tuple[str, int], ...]
    prefixes: tuple[tuple[str, int], ...]
    """Beginnings of the text, not of whole segments."""
    default: int

    def edges(self) -> Iterator[int]:
        yield from (to for _, to in (*self.exact, *self.prefixes))
        yield self.default

    @cached_property
    def _index(self) -> tuple[dict[str, int], dict[str, int], list[int]]:
        """Exact words and prefixes by text, and the lengths of prefixes, the longest first."""
        return dict(self.exact), dict(self.prefixes), sorted({len(text) for text, _ in self.prefixes}, reverse=True)

    def next(self, word: str) -> int:
        exact, prefixes, lengths = self._index
        if (to := exact.get(word)) is not None:
            return to
        fitting = (prefixes.get(word[:length]) for length in lengths if length <= len(word))
        return next((to for to in fitting if to is not None), self.default)

    def fitting(self, word: str) -> tuple[str, bool] | None:
        """The text by which a word leads where it does, and whether that is the whole word; None: by default."""
        exact, prefixes, lengths = self._index
        if word in exact:
            return word, True
        return next(((word[:length], False) for length in lengths if word[:length] in prefixes), None)


@dataclass(frozen=True, slots=True)
class Test:
    """Whether something is there and equals a text, or matches a regular expression."""

    subject: Subject
    value: str
    regex: bool
    yes: int
    no: int
    rewrite: str = ""
    """A template that makes the path of the match: only of a path, and of a regular expression."""

    def edges(self) -> Iterator[int]:
        yield self.yes
        yield self.no


@dataclass(frozen=True, slots=True)
class Split:
    """Chance, or what is constant of a client, divides the requests."""

    subject: Subject
    shares: tuple[tuple[int, int], ...]
    """Slots, of all ``SLOTS`` together, and where they lead."""

    def edges(self) -> Iterator[int]:
        return (to for _, to in self.shares)

    def next(self, slot: int) -> int:
        for slots, to in self.shares:
            if slot < slots:
                return to
            slot -= slots
        raise ValueError(f"expected a slot below {SLOTS}")


@dataclass(frozen=True, slots=True)
class Leaf:
    """What becomes of a request in the end: it goes to a pool, changed by filters, or it is redirected."""

    rule: str
    pool: str
    """Empty: a redirect is the answer."""
    filters: tuple[Filter, ...] = ()
    retry: Retry = COMMON
    timeout: float | None = None
    segments: int = 0
    """How many segments the prefix has that matched, which a filter replaces."""

    def edges(self) -> Iterator[int]:
        return iter(())

    @property
    def redirect(self) -> Redirect | None:
        return next((one for one in self.filters if isinstance(one, Redirect)), None)

    @property
    def rewrite(self) -> Rewrite | None:
        return next((one for one in self.filters if isinstance(one, Rewrite)), None)

    @property
    def header_changes(self) -> tuple[HeaderChange, ...]:
        return tuple(one for one in self.filters if isinstance(one, HeaderChange))


@dataclass(frozen=True, slots=True)
class Status:
    """HAProxy answers itself."""

    code: int

    def edges(self) -> Iterator[int]:
        return iter(())


Node: TypeAlias = Table | Test | Split | Leaf | Status
ENDS = (Leaf, Status)


@dataclass(frozen=True, slots=True)
class Graph:
    """All nodes that the first one leads to."""

    route: str
    """The name of the route, for counters and logs."""
    nodes: tuple[Node, ...]


class GraphBuilder:
    """Collects nodes, equal ones once, behind the edges that lead to them. The last one that is added is the root."""

    def __init__(self) -> None:
        self._places: dict[Node, int] = {}

    def add(self, node: Node) -> int:
        return self._places.setdefault(node, len(self._places))

    def graph(self, route: str, root: int) -> Graph:
        """The graph from ``root`` on, numbered in the order in which its nodes are reached."""
        nodes = list(self._places)
        order = {root: 0}
        for place in (queue := [root]):
            for edge in nodes[place].edges():
                if edge not in order:
                    order[edge] = len(order)
                    queue.append(edge)
        return Graph(route, tuple(_renumbered(nodes[place], order) for place in order))


def _renumbered(node: Node, order: dict[int, int]) -> Node:
    match node:
        case Table(subject, exact, prefixes, default):
            words = tuple((word, order[to]) for word, to in exact)
            return Table(subject, words, tuple((text, order[to]) for text, to in prefixes), order[default])
        case Test(subject, value, regex, yes, no, rewrite):
            return Test(subject, value, regex, order[yes], order[no], rewrite)
        case Split(subject, shares):
            return Split(subject, tuple((slots, order[to]) for slots, to in shares))
    return node


def steps(graph: Graph) -> int:
    """The length of the longest way through it: how many nodes are not its end."""
    longest: dict[int, int] = {}

    def length(place: int) -> int:
        if place not in longest:
            node = graph.nodes[place]
            longest[place] = 0 if isinstance(node, ENDS) else 1 + max(map(length, node.edges()))
        return longest[place]

    return length(0)


def slots_of(weights: list[int]) -> list[int]:
    """``SLOTS`` divided by weights, at least one for each that is above 0."""
    total = sum(weights)
    slots = [max(1, weight * SLOTS // total) if weight else 0 for weight in weights]
    slots[weights.index(max(weights))] += SLOTS - sum(slots)
    return slots
