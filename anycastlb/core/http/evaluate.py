"""What HAProxy does with a request, worked out in Python from the same graph that HAProxy is given.

It serves ``why URL``, ``simulate`` and the tests. A walk notes what was looked at and how it came out, so that every
answer can be explained. Where chance divides the requests, and the request does not say how, all ends are told with
their shares. Pure.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

from anycastlb.core.http.graph import SLOTS, Graph, Leaf, Split, Status, Subject, Table, Test
from anycastlb.core.http.patterns import pattern
from anycastlb.core.http.request import Request
from anycastlb.core.http.rewrite import expanded


@dataclass(frozen=True, slots=True)
class Visit:
    """One node on the way of a request."""

    node: Table | Test | Split
    word: str | None
    """What was looked at; None: the request has no such thing, or chance decides."""
    to: int | None
    """The place of the next node; None: any, by chance."""


@dataclass(frozen=True, slots=True)
class Walk:
    """The way of a request through a graph."""

    visits: tuple[Visit, ...]
    ends: tuple[tuple[int, Leaf | Status], ...]
    """Where it ends, each with the slots of chance, of ``SLOTS``, that lead there."""
    path: str
    """The path there, which a rule on the way may have rewritten."""


def walk(graph: Graph, request: Request, slot: int | None = None) -> Walk:
    """``slot``: what chance gives, of ``SLOTS``; None: anything."""
    visits: list[Visit] = []
    node = graph.nodes[0]
    while not isinstance(node, (Leaf, Status)):
        word, to, path = _step(node, request, slot)
        visits.append(Visit(node, word, to))
        request = replace(request, path=path) if path != request.path else request
        if to is None:
            return Walk(tuple(visits), _shares(graph, node), request.path)
        node = graph.nodes[to]
    return Walk(tuple(visits), ((SLOTS, node),), request.path)


def _step(node: Table | Test | Split, request: Request, slot: int | None) -> tuple[str | None, int | None, str]:
    """What was looked at, where it leads, and the path after it."""
    if isinstance(node, Split):
        known = slot_of(node.subject, request)
        if known is None:
            known = slot
        return None, None if known is None else node.next(known), request.path
    word = request.word(node.subject)
    if isinstance(node, Table):
        return word, node.default if word is None else node.next(word), request.path
    if word is None:
        return None, node.no, request.path
    if not node.regex:
        return word, node.yes if word == node.value else node.no, request.path
    match = pattern(node.value).search(word)
    if match is None:
        return word, node.no, request.path
    return word, node.yes, expanded(node.rewrite, match) if node.rewrite else request.path


def slot_of(subject: Subject, request: Request) -> int | None:
    """The slot that is constant for a client; None if there is no such thing."""
    if subject.kind == "source" and request.source is not None:
        return zlib.crc32(request.source.packed) % SLOTS
    if subject.kind == "cookie" and (cookie := request.cookie(subject.name)) is not None:
        return zlib.crc32(cookie.encode("latin-1", "replace")) % SLOTS
    return None


def _shares(graph: Graph, node: Table | Test | Split) -> tuple[tuple[int, Leaf | Status], ...]:
    assert isinstance(node, Split), "only chance leads anywhere"
    ends = []
    for slots, place in node.shares:
        end = graph.nodes[place]
        assert isinstance(end, (Leaf, Status)), "behind a split the way ends"
        ends.append((slots, end))
    return tuple(ends)
