"""What would change for requests that were seen: two versions of the routes, compared request by request.

The share of a request that goes elsewhere is what the two versions do not have in common: if a canary gets 10 % instead
of 5 %, each of its requests moves by 5 %. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from anycastlb.core.http.evaluate import walk
from anycastlb.core.http.graph import SLOTS, Leaf, Status
from anycastlb.core.http.request import Request
from anycastlb.core.http.rewrite import sent_path
from anycastlb.core.http.sites import Sites
from anycastlb.core.model import HttpRoute


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request goes: a pool and the path that it is asked for, a status, or a redirect."""

    what: str
    path: str = ""


@dataclass(frozen=True, slots=True)
class Moved:
    """Requests that would go elsewhere, by the rules that decide of them."""

    before: str
    """``ROUTE/RULE``, or a status where no rule does."""
    after: str
    requests: float
    example: Request


@dataclass(frozen=True, slots=True)
class Simulation:
    requests: int
    moved: float
    """How many of them would go elsewhere."""
    by_rule: tuple[Moved, ...]
    """The most first."""


def simulate(
    before: Iterable[HttpRoute], after: Iterable[HttpRoute], gateway: str, requests: Iterable[Request]
) -> Simulation:
    """``gateway``: the name of the one that the requests came to."""
    old, new = Sites(before), Sites(after)
    moved: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], Request] = {}
    count = 0
    for request in requests:
        count += 1
        (there, rule), (here, now) = _places(old, gateway, request), _places(new, gateway, request)
        slots = sum((there - here).values())
        if slots:
            moved[rule, now] += slots
            examples.setdefault((rule, now), request)
    by_rule = [Moved(rule, now, slots / SLOTS, examples[rule, now]) for (rule, now), slots in moved.most_common()]
    return Simulation(count, sum(moved.values()) / SLOTS, tuple(by_rule))


def _places(sites: Sites, gateway: str, request: Request) -> tuple[Counter[Place], str]:
    """Where a request goes, in slots of chance, and the rule that says so."""
    site = sites.find(gateway, request.host)
    if site is None:
        return Counter({Place("404"): SLOTS}), "404"
    way = walk(site.graph, request)
    places: Counter[Place] = Counter()
    rule = ""
    for slots, end in way.ends:
        places[_place(end, way.path)] += slots
        rule = f"{site.route.name}/{end.rule}" if isinstance(end, Leaf) else str(end.code)
    return places, rule


def _place(end: Leaf | Status, path: str) -> Place:
    if isinstance(end, Status):
        return Place(str(end.code))
    if (redirect := end.redirect) is not None:
        return Place(f"{redirect.status} {redirect.scheme} {redirect.host} {redirect.port} {redirect.path}", path)
    return Place(end.pool, sent_path(end, path))
