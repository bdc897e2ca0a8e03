"""Compare two decisions in all that anybody could see of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from anycastlb.core.decision import plan
from anycastlb.core.decision.rows import by_service
from anycastlb.core.model import Change, Decision, State

LISTED = ("verdicts", "backends", "probe_paths")
"""Tables whose order operators see."""


def differences(one: Decision, other: Decision) -> list[str]:
    """In what they differ, in words. The order of a service's destinations counts, and of what operators see listed."""
    found = [f"{name}: {a!r} is not {b!r}" for name, a, b in _parts(one, other) if a != b]
    for name in LISTED:
        a, b = list(getattr(one, name)), list(getattr(other, name))
        if a != b:
            found.append(f"the order of {name}: {a} is not {b}")
    if by_service(one.desired.destinations) != by_service(other.desired.destinations):
        found.append("the order of destinations")
    for start in (State(), other.desired):
        a, b = (_by_object(plan.diff(start, decision.desired)) for decision in (one, other))
        if a != b:
            found.append(f"the plan: {a} is not {b}")
    return found


def _by_object(changes: tuple[Change, ...]) -> dict[Any, list[Change]]:
    """The changes of each service, VIP or name, in their order: no other order means anything."""
    of: dict[Any, list[Change]] = {}
    for change in changes:
        of.setdefault(change.key.service if change.table == "destinations" else change.key, []).append(change)
    return of


def _parts(one: Any, other: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    for field in fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if field.name in ("desired", "memory"):
            yield from _parts(a, b, f"{field.name}.")
        else:
            yield prefix + field.name, a, b
