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
"""Seconds without a change after which a table counts as stable, if there are other nodes: they publish their statuses
once a second."""
STRAY = 5
KEPT = 6
"""Samples of the traffic that are kept."""


@dataclass(frozen=True, slots=True)
class DrainFacts:
    """What the next stage depends on."""

    cause: Literal["drained", "stopping"]
    rules: DrainRules
    deadline: float = 0.0
    announced: bool = True
    """Did this node announce anything until now?"""
    marked: bool = False
    """Did its routes carry the community already? Only its former process can have done so."""
    has_peers: bool = False
    """Are there other living nodes?"""
    trouble: Reason | None = None
    """Why the table is not stable, if so."""
    table: int = 0
    """A number that is another whenever the table is."""
    traffic: Traffic | None = None


def step(before: NodeDrain | None, facts: DrainFacts, now: float) -> tuple[NodeDrain, float | None]:
    """How far the node is after this look, and when to look again (None: nothing changes by itself)."""
    drain = _begun(facts, now) if before is None else _continued(before, facts)
    while (further := _further(drain, facts, now)) is not None:
        drain = further
    return drain, _wake(drain, facts, now)


def _begun(facts: DrainFacts, now: float) -> NodeDrain:
    first: Stage = "waiting"
    if not facts.announced:
        first = "withdrawn"
    elif facts.marked or facts.cause == "stopping":
        first = "graceful"
    return _entered(first, facts, now)


def _continued(drain: NodeDrain, facts: DrainFacts) -> NodeDrain:
    """The same stage, perhaps for another cause: a node that is stopped after its routes are gone counts no packets."""
    if drain.stage == "withdrawn" and facts.cause != drain.cause:
        reason = _stage_reason(drain.stage, facts.cause, facts.rules)
        return replace(drain, cause=facts.cause, until=None, reason=reason)
    return replace(drain, cause=facts.cause)


def _entered(stage: Stage, facts: DrainFacts, now: float, late: Reason | None = None) -> NodeDrain:
    """The first moment of a stage. ``late``: why the stage before it ended because its time was over."""
    rules, cause, until = facts.rules, facts.cause, None
    if stage == "waiting":
        until = now + rules.settle
    elif stage == "graceful":
        until = now + rules.graceful
    elif stage == "withdrawn" and cause == "drained":
        until = now + facts.deadline
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


def _further(drain: NodeDrain, facts: DrainFacts, now: float) -> NodeDrain | None:
    """The next step from here; None if there is none now."""
    if drain.stage == "waiting":
        return _waiting(drain, facts, now)
    drain = (counted := _counted(drain, facts.traffic)) or drain
    if drain.stage == "graceful" and drain.until is not None and now >= drain.until:
        return replace(_entered("withdrawn", facts, now), samples=drain.samples)
    if drain.stage == "withdrawn" and drain.cause == "drained":
        if drain.calm is not None and drain.samples[-1].at >= drain.calm.at + QUIET:
            return replace(_entered("drained", facts, now), samples=drain.samples)
        if drain.until is not None and now >= drain.until:
            return replace(_entered("drained", facts, now, _late(drain)), samples=drain.samples)
    return counted


def _waiting(drain: NodeDrain, facts: DrainFacts, now: float) -> NodeDrain | None:
    if facts.cause == "stopping":
        return _entered("graceful", facts, now)
    if drain.until is not None and now >= drain.until:
        why = f": {facts.trouble}" if facts.trouble else ""
        late = Reason("unsettled", f"it waited no longer than {facts.rules.settle:g} s for a stable table{why}")
        return _entered("graceful", facts, now, late if facts.rules.settle else None)
    unchanged = drain.unchanged
    if facts.trouble:
        unchanged = None
    elif unchanged is None or unchanged[0] != facts.table:
        unchanged = facts.table, now
    if unchanged is not None and now >= unchanged[1] + _steady(facts):
        return _entered("graceful", facts, now)
    waiting = replace(drain, unchanged=unchanged, reason=_waits(facts.trouble))
    return waiting if waiting != drain else None


def _waits(trouble: Reason | None) -> Reason:
    cause = trouble or Reason("settling", f"nothing may change for {STEADY:g} s")
    return Reason(cause.code, f"it waits for a stable table: {cause}", cause.object)


def _steady(facts: DrainFacts) -> float:
    return STEADY if facts.has_peers else 0.0


def _late(drain: NodeDrain) -> Reason:
    if not drain.samples:
        return Reason("overdue", "its time is over; nobody counts what still comes")
    return Reason("overdue", f"its time is over, and {rate(drain):.0f} packets/s still came")


def _counted(drain: NodeDrain, traffic: Traffic | None) -> NodeDrain | None:
    """With one sample more; None if it is no news."""
    last = drain.samples[-1].at if drain.samples else drain.since - LOOK
    if traffic is None or drain.stage == "drained" or traffic.at <= last:
        return None
    calm = drain.calm
    if drain.stage == "withdrawn":
        if traffic.at < drain.since:
            calm = None
        elif calm is None or not 0 <= traffic.packets - calm.packets <= STRAY:
            calm = traffic
    return replace(drain, samples=(*drain.samples, traffic)[-KEPT:], calm=calm)


def _wake(drain: NodeDrain, facts: DrainFacts, now: float) -> float | None:
    if drain.until is None:
        return None
    if drain.unchanged is not None:
        return min(drain.until, now + LOOK, drain.unchanged[1] + _steady(facts))
    return min(drain.until, now + LOOK)
