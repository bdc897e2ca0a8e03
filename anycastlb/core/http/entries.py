"""A decision graph as entries of HAProxy's maps, which a configuration that never changes interprets.

docs/decisions/0019-http-tier.md says what the configuration does with them; ``tests/support/http_machine.py`` does the
same in Python. The ids of nodes hold a digest of the whole graph, so that a new version stands beside the old one until
its hostname is switched. Nothing from a document is anything but a key or a value here. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeAlias

from anycastlb.core.http.graph import SLOTS, Graph, Leaf, Node, Split, Status, Subject, Table, Test
from anycastlb.core.http.names import section
from anycastlb.core.http.patterns import SHARDS, Pattern, exactly, pattern
from anycastlb.core.model import HeaderChange, MapEntry, MapName, PathRewrite

Entries: TypeAlias = Iterator[MapEntry]
TOKENS = {"path": "p", "method": "m", "header": "h", "query": "q", "chance": "c", "source": "cs", "cookie": "cc"}
REGEX: tuple[MapName, ...] = ("re0", "re1", "re2", "re3", "re4", "re5", "re6", "re7")
PREFIX_ONLY = {"strip"}
"""What a leaf does that changes nothing but the beginning of the path."""


@dataclass(frozen=True, slots=True)
class CompiledGraph:
    """What a graph is for HAProxy."""

    root: str
    entries: tuple[MapEntry, ...]
    """Sorted, each once."""


@dataclass(frozen=True, slots=True)
class PatternName:
    """What a regular expression is called in the maps: by its content, and by what is made of its match."""

    name: str
    shard: int


def compile_graph(graph: Graph) -> CompiledGraph:
    digest = sha256(repr(graph).encode()).hexdigest()[:12]
    ids = tuple(_id(node, f"{digest}.{place}") for place, node in enumerate(graph.nodes))
    entries = {entry for place in range(len(ids)) for entry in _entries(graph, ids, place)}
    return CompiledGraph(ids[0], tuple(sorted(entries)))


def token(subject: Subject) -> str:
    """A subject as it stands in the id of a node."""
    short = TOKENS[subject.kind]
    return f"{short}.{subject.name}" if subject.name else short


def pattern_name(expression: Pattern, template: str = "") -> PatternName:
    """``template``: what the path becomes of the match; empty if it stays."""
    name = expression.id
    if template:
        name = "w" + sha256(f"{name} {template}".encode()).hexdigest()[:12]
    return PatternName(name, int(name[-2:], 16) % SHARDS)


def _id(node: Node, own: str) -> str:
    match node:
        case Status(code):
            return f"!{code}"
        case Leaf():
            return f"{_kind(node)}:{own}"
        case Table() | Split():
            return f"{token(node.subject)}:t:{own}"
    if node.subject.kind == "method":
        return f"m:t:{own}"
    if (expression := _expression(node)) is None:
        return f"{token(node.subject)}:e:{own}"
    named = pattern_name(expression, node.rewrite)
    return f"{token(node.subject)}:{'w' if node.rewrite else ''}{named.shard}:{own}:{named.name}"


def _kind(leaf: Leaf) -> str:
    if not leaf.pool:
        return "~"
    changes = {what for what, _ in _changes(leaf)}
    return ">" if not changes else ">+" if changes <= PREFIX_ONLY else ">++"


def _expression(node: Test) -> Pattern | None:
    """The regular expression of a test; also of a text with a space, which no key of a map can have."""
    if node.regex:
        return pattern(node.value)
    if " " not in node.value:
        return None
    return pattern(exactly(node.value))


def _entries(graph: Graph, ids: tuple[str, ...], place: int) -> Entries:
    node, own = graph.nodes[place], ids[place]
    match node:
        case Table():
            yield MapEntry("next", f"{own}|", ids[node.default])
            yield from (MapEntry("next", f"{own}|={word}?", ids[to]) for word, to in node.exact)
            yield from (MapEntry("next", f"{own}|={prefix}", ids[to]) for prefix, to in node.prefixes)
        case Split():
            yield from _split(own, node, ids)
        case Test():
            yield from _test(own, node)
            yield MapEntry("next", f"{own}|", ids[node.no])
            yield MapEntry("next", f"{own}|={node.value}?" if ":t:" in own else f"{own}|1?", ids[node.yes])
        case Leaf():
            if node.pool:
                yield MapEntry("leaf", own, section(node.pool, node.retry))
            for what, value in _changes(node):
                yield MapEntry("do", f"{own}|{what}", value)
            yield from _rewrites(node)


def _test(own: str, node: Test) -> Entries:
    """The entries that say whether the test is met."""
    if (expression := _expression(node)) is not None:
        yield from _pattern_entries(expression, node.rewrite)
    elif ":e:" in own:
        yield MapEntry("eq", f"{own}|={node.value}", "1")


def _pattern_entries(expression: Pattern, template: str) -> Entries:
    named = pattern_name(expression, template)
    yield MapEntry(REGEX[named.shard], expression.key(named.name), template or "1")


def _split(own: str, node: Split, ids: tuple[str, ...]) -> Entries:
    """The largest share is everything else; the others are the beginnings of their numbers, all of five digits."""
    largest = max(range(len(node.shares)), key=lambda place: node.shares[place][0])
    low = SLOTS
    for place, (slots, to) in enumerate(node.shares):
        if place == largest:
            yield MapEntry("next", f"{own}|", ids[to])
        else:
            yield from (MapEntry("next", f"{own}|={digits}", ids[to]) for digits in beginnings(low, low + slots))
        low += slots


def beginnings(low: int, end: int) -> Iterator[str]:
    """The fewest beginnings of numbers that cover ``low`` to ``end`` (not with it), of equally many digits."""
    while low < end:
        size = 1
        while low % (size * 10) == 0 and low + size * 10 <= end:
            size *= 10
        yield str(low // size)
        low += size


def _changes(leaf: Leaf) -> Iterator[tuple[str, str]]:
    """What happens at a leaf besides sending the request to its section, as keys and values of the map ``do``."""
    redirect, rewrite = leaf.redirect, leaf.rewrite
    if leaf.timeout is not None:
        yield "timeout", str(max(1, round(leaf.timeout * 1000)))
    if redirect is not None:
        yield "code", str(redirect.status)
        yield from (("scheme", redirect.scheme) for _ in redirect.scheme[:1])
        yield from (("port", str(port)) for port in (redirect.port,) if port)
    owner = redirect or rewrite
    if owner is not None and owner.host:
        yield "host", owner.host
    if owner is not None and owner.path is not None:
        yield from _path_changes(owner.path, leaf.segments)
    for change in leaf.header_changes:
        yield from _header_changes(change)


def _path_changes(change: PathRewrite, segments: int) -> Iterator[tuple[str, str]]:
    if change.kind == "full":
        yield "path", change.value
    elif change.kind == "regex":
        named = pattern_name(pattern(change.pattern), change.value)
        yield "rw", f"{named.shard}:{named.name}"
    else:
        yield "strip", f"{segments}:{change.value}"


def _rewrites(leaf: Leaf) -> Entries:
    """The entries of the regular expressions that rewrite at a leaf."""
    owner = leaf.redirect or leaf.rewrite
    if owner is not None and owner.path is not None and owner.path.kind == "regex":
        yield from _pattern_entries(pattern(owner.path.pattern), owner.path.value)


def _header_changes(change: HeaderChange) -> Iterator[tuple[str, str]]:
    yield from ((f"{change.of}.set.{name}", value) for name, value in change.set)
    yield from ((f"{change.of}.add.{name}", value) for name, value in change.add)
    yield from ((f"{change.of}.del.{name}", "1") for name in change.remove)
