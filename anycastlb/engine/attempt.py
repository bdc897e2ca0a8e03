"""Run one probe, and say what it proves.

A probe that found its target healthy, or that was refused, or whose time is over, is evidence. One that this node
could not send for want of descriptors, memory or ports is not, and neither is one that failed while this node was
itself so late that the target could not be heard in time (``adapters.system.lateness``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from anycastlb.adapters.checks import CheckType, Down, Found
from anycastlb.adapters.checks.probe.sockets import error_text, own_lack
from anycastlb.adapters.system.lateness import Deadline
from anycastlb.core.model import Check, ProbePath, Result

Outcome = Literal["good", "bad", "timeout", "error", "late", "unknown"]
"""``error``: a fault of the probe itself. ``late`` and ``unknown`` say nothing of the target."""


@dataclass(frozen=True, slots=True)
class Attempt:
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
    found: Found | None = None
    failure: tuple[Outcome, str] = ("good", "")
    try:
        async with deadline:
            found = await types[check.type].probe(check, probe_path)
    except TimeoutError:
        failure = "timeout", timeout_text(check)
    except Exception as exc:
        failure = judged(exc)
    ended = clock()
    took = ended - started
    if found is not None:
        result = Result(True, found.detail, took, ended, found.weight, found.drain)
        return Attempt("good", result, deadline.lost)
    outcome, detail = failure
    if outcome != "unknown" and deadline.lost >= check.timeout and not (outcome == "timeout" and deadline.fair):
        outcome, detail = "late", late_text(detail, deadline.lost)
    return Attempt(outcome, Result(False, detail, took, ended), deadline.lost)


def judged(error: Exception) -> tuple[Outcome, str]:
    """What a probe's exception means."""
    if lack := own_lack(error):
        return "unknown", f"this node could not probe: {error_text(lack)}"
    if isinstance(error, Down):
        return "bad", str(error)
    return "error", f"the probe failed: {type(error).__name__}: {error}"  # a fault of the probe must not end the check


def timeout_text(check: Check) -> str:
    return f"no answer within {check.timeout:g} s"


def late_text(detail: str, lost: float) -> str:
    return f"{detail}, but this node itself was {lost:.1f} s late"
