"""The results of probes, and the state that each check has because of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from anycastlb.core.model.check import Check


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one probe."""

    ok: bool
    detail: str
    """``HTTP 503``, ``connection refused``: in the words an operator would use."""
    duration: float
    at: float
    weight: int | None = None
    """The weight the target asked for, in percent of its nominal weight; None = it did not ask for one."""
    drain: bool = False
    """The target asked for no new flows."""


@dataclass(frozen=True, slots=True)
class CheckState:
    """The folded results of one check. ``up`` is None until the first result."""

    up: bool | None = None
    streak: int = 0
    """Consecutive results that contradict ``up``."""
    since: float = 0.0
    last: Result | None = None
    asks: tuple[int | None, bool] = (None, False)
    """What the last good result asked for: a weight in percent of the nominal one, and to be drained."""
    agreed: int = 0
    """Consecutive results that agreed with ``up`` since it was reached."""
    recent: tuple[Result, ...] = ()
    """Evidence: the last results, oldest first."""
    failures: tuple[Result, ...] = ()
    """Evidence: the last failures, which outlive the successes after them; oldest first."""
    record: tuple[float, int] = (0.0, 0)
    """Of at most the last hundred results: how many were good (a moving average once full), and how many there were."""
    unproven: Result | None = None
    """The last probe, if it proves nothing about the target; None as soon as one does."""


Health: TypeAlias = Mapping[Check, CheckState]
