"""Run one probe, and say what it proves.

A probe that found its target healthy, or that was refused, or whose time is over, is evidence. One that this node
could not send for want of descriptors, memory or ports is not, and neither is one that failed while this node was
itself so late that the target could not be heard in time (``adapters.system.lateness``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from anycastlb.adapters.checks import CheckType, Down, Found
from anycastlb.adapters.checks.probe.sockets import error_text, own_lack
from anycastlb.adapters.system.lateness import Deadline
from anycastlb.core.model import Check, ProbePath, Result

Outcome = Literal["good", "bad", "timeout", "error", "late", "unknown"]
"""``error``: a fault of the probe itself. ``late`` and ``unknown`` say nothing of the target."""


class Attempt(NamedTuple):
    """One probe that has ended."""

    outcome: Outcome
    result: Result
    lost: float = 0.0
    """Seconds of its duration in which this node did not look."""

    @property
    def proves(self) -> bool:
        """Does it say anything of the target?"""
        return self.outcome not in ("late", "unknown")


async def attempt(
    types: Mapping[str, CheckType], check: Check, probe_path: ProbePath | None, clock: Callable[[], float]
) -> Attempt:
    """Probe the target once. Raises nothing but CancelledError."""
    started, deadline = clock(), Deadline(check.timeout)
    outcome: Found | Exception
    try:
        async with deadline:
            outcome = await types[check.type].probe(check, probe_path)
    except Exception as exc:
        outcome = exc
    ended = clock()
    return conclude(check, outcome, started, ended, deadline.lost, deadline.fair)


def conclude(
    check: Check, outcome: Found | Exception, started: float, ended: float, lost: float, fair: bool
) -> Attempt:
    """What a probe proves that found this, or raised it, between these moments.

    ``lost``: the seconds that this node did not look; ``fair``: had the target all its time nevertheless?
    """
    took = ended - started
    if isinstance(outcome, Found):
        return Attempt("good", Result(True, outcome.detail, took, ended, outcome.weight, outcome.drain), lost)
    kind, detail = _judged(check, outcome)
    if kind != "unknown" and lost >= check.timeout and not (kind == "timeout" and fair):
        kind, detail = "late", f"{detail}, but this node itself was {lost:.1f} s late"
    return Attempt(kind, Result(False, detail, took, ended), lost)


def _judged(check: Check, error: Exception) -> tuple[Outcome, str]:
    """What a probe's exception means."""
    if isinstance(error, TimeoutError) and error.errno is None:
        return "timeout", f"no answer within {check.timeout:g} s"
    if lack := own_lack(error):
        return "unknown", f"this node could not probe: {error_text(lack)}"
    if isinstance(error, Down):
        return "bad", str(error)
    return "error", f"the probe failed: {type(error).__name__}: {error}"  # a fault of the probe must not end the check
