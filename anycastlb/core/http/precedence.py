"""Which match of a route counts where several fit: Gateway API's order.

An exact path comes before a prefix, a longer prefix before a shorter one, and those before regular expressions. Then
a match with a method comes before one without, then the one with more headers, then with more parameters of the
query, and at last the one that stands first. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from anycastlb.core.model import Match, PathMatch, Rule

RANK = {"exact": 0, "prefix": 1, "regex": 2}


class Candidate(NamedTuple):
    """One match of one rule."""

    rule: Rule
    match: Match


def candidates(rules: Iterable[Rule]) -> tuple[Candidate, ...]:
    """Every match of the rules, in the order in which they are tried."""
    listed = [Candidate(rule, match) for rule in rules for match in rule.matches]
    return tuple(sorted(listed, key=lambda candidate: _rank(candidate.match)))


def _rank(match: Match) -> tuple[int, int, bool, int, int]:
    path = match.path
    length = len(path.value) if path.kind == "prefix" else 0
    return RANK[path.kind], -length, not match.method, -len(match.headers), -len(match.query)


def covers(prefix: str, path: str) -> bool:
    """Is a path below a prefix of whole segments? ``/blog`` covers ``/blog`` and ``/blog/x``, and not ``/blogs``."""
    return prefix == "/" or path == prefix or path.startswith(prefix + "/")


def may_hold(condition: PathMatch, at: PathMatch) -> bool:
    """May a condition hold for a path of which the most that tables can tell is known: ``at``?"""
    if condition.kind == "prefix":
        return covers(condition.value, at.value)
    return condition.kind == "regex" or condition == at
