"""Compare two decisions in all that anybody could see of them."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from anycastlb.core.decision import plan, proof
from anycastlb.core.model import Change, Decision, State


def differences(one: Decision, other: Decision) -> list[str]:
    """In what they differ, in words: the parts of the product's own proof, and what is written because of them."""
    words = []
    for part in proof.differences(one, other):
        value = attrgetter(part.removeprefix("the order of "))
        words.append(f"{part}: {value(one)!r} is not {value(other)!r}")
    for start in (State(), other.desired):
        a, b = (_by_object(plan.diff(start, decision.desired)) for decision in (one, other))
        if a != b:
            words.append(f"the plan: {a} is not {b}")
    return words


def _by_object(changes: tuple[Change, ...]) -> dict[Any, list[Change]]:
    """The changes of each service, VIP or name, in their order: no other order means anything."""
    of: dict[Any, list[Change]] = {}
    for change in changes:
        of.setdefault(change.key.service if change.table == "destinations" else change.key, []).append(change)
    return of
