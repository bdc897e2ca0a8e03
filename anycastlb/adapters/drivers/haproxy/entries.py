"""Which entries of HAProxy's maps belong to which graph: what is missing, and what nothing leads to any more.

The id of a node is ``SUBJECT:OP:DIGEST.K`` or ``SUBJECT:OP:DIGEST.K:PATTERN``, that of a leaf ``>:DIGEST.K``. All nodes
of a graph have its digest; only patterns are shared by graphs. Pure.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from anycastlb.core.model import MapEntry

Maps: TypeAlias = Mapping[str, Mapping[str, str]]
"""The entries of each map, by its name."""
TWICE = "\0"
"""Stands for the value of a key that a map has more than once, which it never should."""
GRAPH = re.compile(r"[^|]*?:([^:|.]+)\.\d+(?:[:|]|$)")
PATTERN = re.compile(r".*?\\A(\w+)\\\|")
OF_PATTERNS = "re"
"""How the names of those maps begin whose keys are regular expressions."""


@dataclass(frozen=True, slots=True)
class Live:
    """The graphs and patterns that sites lead to."""

    graphs: frozenset[str]
    patterns: frozenset[str]

    def has(self, name: str, key: str) -> bool:
        """Is the key of this map a part of them?"""
        return pattern_of(key) in self.patterns if name.startswith(OF_PATTERNS) else graph_of(key) in self.graphs


def graph_of(key: str) -> str:
    """The digest of the graph that a node, or a key that begins with one, belongs to; empty: to none."""
    found = GRAPH.match(key)
    return found[1] if found else ""


def pattern_of(key: str) -> str:
    """The name of the pattern in a key that is a regular expression."""
    found = PATTERN.match(key)
    return found[1] if found else ""


def live(maps: Maps, roots: Iterable[str]) -> Live:
    graphs = frozenset(filter(None, map(graph_of, roots)))
    named = _patterns(maps)
    return Live(graphs, frozenset(name for graph in graphs for name in named.get(graph, ())))


def _patterns(maps: Maps) -> Mapping[str, set[str]]:
    """The names of the patterns of each graph."""
    named: dict[str, set[str]] = defaultdict(set)
    for key in maps.get("next", ()):
        parts = key.partition("|")[0].split(":")
        if len(parts) == 4:
            named[graph_of(key)].add(parts[3])
    for key, value in maps.get("do", {}).items():
        if key.endswith("|rw"):
            named[graph_of(key)].add(value.partition(":")[2])
    return named


def stale(maps: Maps, alive: Live) -> Iterator[tuple[str, str]]:
    """Maps and keys that no site leads to."""
    return ((name, key) for name, keys in maps.items() for key in keys if not alive.has(name, key))


def damaged(wanted: Maps, actual: Maps, roots: Iterable[str]) -> frozenset[str]:
    """The graphs that lack something, or are not known to be whole.

    A graph is known by the entries that it should have; of one that has none, nothing can be said.
    """
    graphs = live(wanted, roots).graphs
    known = {graph_of(key) for name in ("next", "leaf", "do") for key in wanted.get(name, ())}
    users: dict[str, set[str]] = defaultdict(set)
    for graph, names in _patterns(wanted).items():
        for name in names:
            users[name].add(graph)
    hurt = set(graphs - known)
    for name, entries in wanted.items():
        have = actual.get(name, {})
        for key, value in entries.items():
            if have.get(key) != value:
                hurt |= users[pattern_of(key)] if name.startswith(OF_PATTERNS) else {graph_of(key)}
    return frozenset(hurt & graphs)


@dataclass(frozen=True, slots=True)
class Needs:
    """What entries need of the static configuration, or what a configuration has for them."""

    sections: frozenset[str] = frozenset()
    subjects: frozenset[str] = frozenset()
    headers: frozenset[tuple[str, str]] = frozenset()
    """``request`` or ``response``, and the name."""

    def __sub__(self, other: Needs) -> Needs:
        return Needs(self.sections - other.sections, self.subjects - other.subjects, self.headers - other.headers)

    def __bool__(self) -> bool:
        return bool(self.sections or self.subjects or self.headers)

    def __str__(self) -> str:
        headers = (f"{side} header {name}" for side, name in self.headers)
        return ", ".join(sorted([*(f"pool {name}" for name in self.sections), *self.subjects, *headers]))


def needs(entries: Iterable[MapEntry]) -> Needs:
    sections, subjects, headers = set(), set(), set()
    for name, key, value in entries:
        if name == "leaf":
            sections.add(value)
        elif name == "next":
            subjects.add(key.partition(":")[0])
        elif name == "do":
            side, _, rest = key.partition("|")[2].partition(".")
            if rest:
                headers.add((side, rest.partition(".")[2]))
    return Needs(frozenset(sections), frozenset(subjects), frozenset(headers))


def living(maps: Maps, alive: Live) -> Iterator[MapEntry]:
    """The entries that sites lead to."""
    for name in ("next", "leaf", "do"):
        yield from (MapEntry(name, key, value) for key, value in maps.get(name, {}).items() if alive.has(name, key))


def missing(entries: Collection[MapEntry], actual: Maps) -> tuple[dict[str, dict[str, str]], list[MapEntry]]:
    """What has to be added to each map, and what is there with another value."""
    new: dict[str, dict[str, str]] = {}
    wrong = []
    for entry in entries:
        have = actual[entry.map].get(entry.key)
        if have is None:
            new.setdefault(entry.map, {})[entry.key] = entry.value
        elif have != entry.value:
            wrong.append(entry)
    return new, wrong
