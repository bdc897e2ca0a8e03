"""When one check is probed: at absolute times, an interval apart, the first at a random point of the first interval.

Jitter keeps the checks of all nodes from marching in step. It only ever shortens an interval, so that
``interval * fall + timeout`` stays a promise. A probe that was late is repeated at once, but only once: a node that is
late all the time needs no more work. Pure, but for the chance it is given.
"""

from __future__ import annotations

from collections.abc import Callable

from anycastlb.core.decision import health
from anycastlb.core.model import Check, CheckState
from anycastlb.engine.attempt import Attempt

SHORTEST = 0.9
"""The share of a check's interval that jitter leaves at least."""
SPREAD = 60.0
"""Seconds within which every check has been probed for the first time, however long its interval is."""


class Schedule:
    """``due``: when the check is to be probed next."""

    __slots__ = ("_chance", "_check", "_repeated", "due")

    def __init__(self, check: Check, chance: Callable[[], float], now: float) -> None:
        self._check, self._chance = check, chance
        self._repeated = False
        self.due = now + chance() * min(check.interval, SPREAD)

    def advance(self, state: CheckState, ended: Attempt | None, now: float) -> None:
        """After a probe (None: it could not be sent), which left this state."""
        self._repeated = ended is not None and ended.outcome == "late" and not self._repeated
        pause = 0.0 if self._repeated else self._pause(state)
        self.due = max(self.due + pause, now)  # a probe that took longer skips a turn

    def may_be_stirred(self, state: CheckState) -> bool:
        """Does it wait longer than an interval, because its target is down?"""
        return self._check.down_interval is not None and state.up is False and not state.streak and not self._repeated

    def stir(self, now: float) -> None:
        """Another target of its kind is back: probe soon."""
        self.due = now + self._chance() * self._check.interval * (1 - SHORTEST)

    def _pause(self, state: CheckState) -> float:
        return health.pause(self._check, state) * (SHORTEST + (1 - SHORTEST) * self._chance())
