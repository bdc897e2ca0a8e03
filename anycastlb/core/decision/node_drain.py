"""How a node leaves the routes, stage by stage, so that no flow notices.

Theory of operation
-------------------

*The stages* (``Stage``), in their order:

* ``waiting``: while a table is about to change somewhere, a flow that moves to another node may meet another backend
  there. So a planned drain waits until the tables are stable and the same on all nodes, but no longer than
  ``settle``.
* ``graceful``: every route stays up with the community 65535:0 (RFC 8326), so that routers move flows to other nodes
  while both ways still work. It lasts ``graceful`` seconds.
* ``withdrawn``: the routes are gone. VIPs and services stay for what still comes. It ends when almost no packet came
  for ``QUIET`` seconds, or after ``deadline``.
* ``drained``: the node may be taken away.

*What moves them.* ``step`` is called once in each decision with what is going on (``DrainFacts``), and may pass
several stages at once. A stage that has nothing to do, as its time in node.toml is 0, is passed at once. A node that
stops passes through ``graceful`` and ``withdrawn`` only: its own drain times follow. A node that announced nothing
begins with ``withdrawn``; one whose routes carry the community already (its former process put it there) begins with
``graceful``. Undraining ends the drain at any stage.

*Why it is safe.* Every stage that waits for something has a latest end (``until``), so nothing that other nodes or the
traffic do can hold a drain up for ever; ``overdue`` says that this was the reason. Stages only go forward. What depends
on the traffic can shorten a stage, and never lengthen it.

docs/ROLLING.md explains the stages to operators.
Decision record: docs/decisions/0011-decisions-as-a-pipeline-reasons-as-values.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from anycastlb.core.decision.drain_traffic import LOOK, QUIET, rate
from anycastlb.core.model import DrainRules, NodeDrain, Reason, Stage, Traffic

COMMUNITY = "65535:0"
"""GRACEFUL_SHUTDOWN of RFC 8326, always as numbers: a word of its name would end ExaBGP."""
STEADY = 3.0
"""Seconds without a change after which a table counts as stable, in company: statuses are published once a second."""
STRAY = 5
KEPT = 6
"""Samples of the traffic that are kept."""


@dataclass(frozen=True, slots=True)
class DrainFacts:
    """What the next stage depends on."""

    cause: Literal["", "drained", "stopping"]
    rules: DrainRules
    deadline: float = 0.0
    announced: bool = True
    """Did this node announce anything until now?"""
    marked: bool = False
    """Did its routes carry the community already? Only its former process can have done so."""
    company: bool = False
    """Are there other living nodes?"""
    trouble: Reason | None = None
    """Why the table is not stable, if so."""
    table: int = 0
    """A number that is another whenever the table is."""
    traffic: Traffic | None = None


def step(before: NodeDrain | None, seen: DrainFacts, now: float) -> tuple[NodeDrain | None, float | None]:
    """How far the node is after this look, and when to look again (None: nothing changes by itself)."""
    if not seen.cause:
        return None, None
    leave = _begun(seen, now) if before is None else _continued(before, seen)
    while (further := _further(leave, seen, now)) is not None:
        leave = further
    return leave, _wake(leave, seen, now)


def _begun(seen: DrainFacts, now: float) -> NodeDrain:
    first: Stage = "waiting"
    if not seen.announced:
        first = "withdrawn"
    elif seen.marked or seen.cause == "stopping":
        first = "graceful"
    return _entered(first, seen, now)


def _continued(leave: NodeDrain, seen: DrainFacts) -> NodeDrain:
    """The same stage, perhaps for another cause: a node that is stopped after its routes are gone counts no packets."""
    cause = seen.cause or leave.cause
    if leave.stage == "withdrawn" and cause != leave.cause:
        return replace(leave, cause=cause, until=None, reason=_stage_reason(leave.stage, cause, seen.rules))
    return replace(leave, cause=cause)


def _entered(stage: Stage, seen: DrainFacts, now: float, late: Reason | None = None) -> NodeDrain:
    """The first moment of a stage. ``late``: why the stage before it ended because its time was over."""
    rules, cause, until = seen.rules, seen.cause or "drained", None
    if stage == "waiting":
        until = now + rules.settle
    elif stage == "graceful":
        until = now + rules.graceful
    elif stage == "withdrawn" and cause == "drained":
        until = now + seen.deadline
    reason = _stage_reason(stage, cause, rules)
    if late:
        reason = late if stage == "drained" else reason.also(late.text, late.code)
    return NodeDrain(stage, cause, now, until, reason, overdue=bool(late))


def _stage_reason(stage: Stage, cause: str, rules: DrainRules) -> Reason:
    if stage == "waiting":
        return _waits(None)
    if stage == "graceful":
        text = f"its routes carry {COMMUNITY} for {rules.graceful:g} s, so that routers prefer other nodes"
        return Reason("graceful", text)
    if stage == "drained":
        return Reason("drained", "nothing comes any more")
    if cause == "drained":
        text = f"its routes are withdrawn; it waits until almost no packet came for {QUIET:g} s"
        return Reason("withdrawn", text)
    return Reason("withdrawn", "its routes are withdrawn; what it serves ends when its drain time is over")


def _further(leave: NodeDrain, seen: DrainFacts, now: float) -> NodeDrain | None:
    """The next step from here; None if there is none now."""
    if leave.stage == "waiting":
        return _waiting(leave, seen, now)
    leave = (counted := _counted(leave, seen.traffic)) or leave
    if leave.stage == "graceful" and leave.until is not None and now >= leave.until:
        return replace(_entered("withdrawn", seen, now), samples=leave.samples)
    if leave.stage == "withdrawn" and leave.cause == "drained":
        if leave.calm is not None and leave.samples[-1].at >= leave.calm.at + QUIET:
            return replace(_entered("drained", seen, now), samples=leave.samples)
        if leave.until is not None and now >= leave.until:
            return replace(_entered("drained", seen, now, _late(leave)), samples=leave.samples)
    return counted


def _waiting(leave: NodeDrain, seen: DrainFacts, now: float) -> NodeDrain | None:
    if seen.cause == "stopping":
        return _entered("graceful", seen, now)
    if leave.until is not None and now >= leave.until:
        why = f": {seen.trouble}" if seen.trouble else ""
        late = Reason("unsettled", f"it waited no longer than {seen.rules.settle:g} s for a stable table{why}")
        return _entered("graceful", seen, now, late if seen.rules.settle else None)
    unchanged = leave.unchanged
    if seen.trouble:
        unchanged = None
    elif unchanged is None or unchanged[0] != seen.table:
        unchanged = seen.table, now
    if unchanged is not None and now >= unchanged[1] + _steady(seen):
        return _entered("graceful", seen, now)
    waiting = replace(leave, unchanged=unchanged, reason=_waits(seen.trouble))
    return waiting if waiting != leave else None


def _waits(trouble: Reason | None) -> Reason:
    cause = trouble or Reason("settling", f"nothing may change for {STEADY:g} s")
    return Reason(cause.code, f"it waits for a stable table: {cause}", cause.object)


def _steady(seen: DrainFacts) -> float:
    return STEADY if seen.company else 0.0


def _late(leave: NodeDrain) -> Reason:
    if not leave.samples:
        return Reason("overdue", "its time is over; nobody counts what still comes")
    return Reason("overdue", f"its time is over, and {rate(leave):.0f} packets/s still came")


def _counted(leave: NodeDrain, traffic: Traffic | None) -> NodeDrain | None:
    """With one sample more; None if it is no news."""
    last = leave.samples[-1].at if leave.samples else leave.since - LOOK
    if traffic is None or leave.stage == "drained" or traffic.at <= last:
        return None
    calm = leave.calm
    if leave.stage == "withdrawn":
        if traffic.at < leave.since:
            calm = None
        elif calm is None or not 0 <= traffic.packets - calm.packets <= STRAY:
            calm = traffic
    return replace(leave, samples=(*leave.samples, traffic)[-KEPT:], calm=calm)


def _wake(leave: NodeDrain, seen: DrainFacts, now: float) -> float | None:
    if leave.until is None:
        return None
    if leave.stage == "waiting" and leave.unchanged is not None:
        return min(leave.until, now + LOOK, leave.unchanged[1] + _steady(seen))
    return min(leave.until, now + LOOK)
