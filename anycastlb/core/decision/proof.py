"""Prove a decision: is it the one that is made from scratch?

Pure. Decision records: docs/decisions/0014-incremental-brain.md and 0018-looks-in-slices.md.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from anycastlb.core.decision.decide import decide
from anycastlb.core.decision.rows import by_service
from anycastlb.core.model import Decision, Inputs, Memory

LISTED = ("verdicts", "backends", "probe_paths")
"""Tables whose order operators see."""


@dataclass(frozen=True, slots=True)
class Made:
    """A decision, and all that it was made from."""

    inputs: Inputs
    memory: Memory
    now: float
    decision: Decision


@dataclass(frozen=True, slots=True)
class Proof:
    """The same decision from scratch, and the parts in which the two differ."""

    decision: Decision
    differences: tuple[str, ...]


def prove(made: Made) -> Proof:
    """Decide from scratch, and compare."""
    afresh = decide(made.inputs, made.memory, made.now)
    return Proof(afresh, differences(made.decision, afresh))


def differences(one: Decision, other: Decision) -> tuple[str, ...]:
    """The parts in which two decisions differ. The order of a service's destinations counts, and of what is listed."""
    names = {field.name for field in fields(Decision)} - {"desired", "memory"}
    differing = {name for name in names if getattr(one, name) != getattr(other, name)}
    for part in ("desired", "memory"):
        mine, theirs = getattr(one, part), getattr(other, part)
        if mine != theirs:
            inside = [f.name for f in fields(mine) if getattr(mine, f.name) != getattr(theirs, f.name)]
            differing |= {f"{part}.{name}" for name in inside}
    differing |= {f"the order of {name}" for name in LISTED if list(getattr(one, name)) != list(getattr(other, name))}
    if by_service(one.desired.destinations) != by_service(other.desired.destinations):
        differing.add("the order of desired.destinations")
    return tuple(sorted(differing))
