"""Fold the results of probes into the state of each check, and say when a state has turned.

A probe that says nothing of its target changes no verdict: this node lacked what it needs to probe, or it was itself
too late to look. What keeps a verdict from being proven is shown with it, and a verdict that has stood unproven for
``UNPROVEN`` counts as failed. Nothing is scheduled here, and nothing is waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import replace

from anycastlb.adapters.system.clock import Clock
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.decision import health, weights
from anycastlb.core.events import Event
from anycastlb.core.model import Check, CheckState, Result
from anycastlb.engine.observer import Observer

COMPLAINTS = 60.0
"""Seconds between two events that say that this node cannot probe, or that it probes too late."""
UNPROVEN = 300.0
"""Seconds that a verdict stands although no probe says anything of the target; then that counts as a failure."""
WORDS = {None: "unknown", True: "up", False: "down"}


class Verdicts:
    """The state of every check that has had a result. ``turned`` is set when a decision may depend on a change."""

    def __init__(self, journal: Journal, clock: Clock, observer: Observer) -> None:
        self.states: dict[Check, CheckState] = {}
        self.turned = asyncio.Event()
        self.fresh = False
        """Is there anything new since it was last set to False?"""
        self._journal, self._clock, self._observer = journal, clock.monotonic, observer
        self._proven: dict[Check, float] = {}
        """When each check last had a result that says something of its target."""
        self._complain_at = self._clock()
        self._stirred: dict[Hashable, list[Callable[[], None]]] = {}

    def forget(self, check: Check) -> None:
        """The check is not run any more. What it found must not be believed when it returns."""
        self.states.pop(check, None)
        self._proven.pop(check, None)
        self.turned.set()

    def on_stir(self, check: Check, act: Callable[[], None]) -> Callable[[], None]:
        """Act once when a check of this one's kind that was down is answered again; returns what cancels it.

        Targets that went down together may be back together, and this node must not announce long before it knows.
        """
        waiting = self._stirred.setdefault(_kind(check), [])
        waiting.append(act)
        return lambda: waiting.remove(act) if act in waiting else None

    def fold(self, check: Check, result: Result) -> CheckState:
        """The state after a result that says something of the target, or counts as if it did."""
        before = self.states.get(check, health.UNKNOWN)
        after = self.states[check] = health.step(before, result, check.rise, check.fall)
        self.fresh = True
        if after.up != before.up:
            self._journal.emit(
                Event(
                    "check",
                    str(check),
                    reason=result.detail,
                    before=WORDS[before.up],
                    after=WORDS[after.up],
                    level="info" if after.up else "warning",
                )
            )
        if _matters(before) != _matters(after):
            self.turned.set()
        if check.down_interval is not None and before.up is False and result.ok and not before.streak:
            for act in self._stirred.pop(_kind(check), ()):
                act()
        return after

    def prove(self, check: Check, result: Result) -> CheckState:
        """The state after a probe that was answered, or had its time and was not."""
        self._proven[check] = result.at
        return self.fold(check, result)

    def learn_nothing(self, check: Check, why: str, outcome: str) -> CheckState:
        """The state after a probe that says nothing of the target. No verdict changes, unless this lasts too long."""
        self._observer.observe_result(check.type, outcome, None)
        now = self._clock()
        detail = f"not known: {why}"
        if now >= self._complain_at:
            self._complain_at = now + COMPLAINTS
            self._journal.emit(Event("check", str(check), reason=detail, after="unknown", level="error"))
        before = self.states.get(check, health.UNKNOWN)
        result = Result(False, detail, 0.0, now)
        if before.up is not None and now - self._proven.setdefault(check, now) > UNPROVEN:
            return self.fold(check, result)
        last = result if before.up is None else before.last
        after = self.states[check] = replace(before, last=last, unproven=result)
        self.fresh = True
        return after

    def withhold(self, check: Check, reason: str) -> CheckState:
        """Record that this node cannot run the check. Without any verdict this says nothing of the backend; with one it
        counts as a failure, since a verdict must not stand unproven for ever."""
        self._observer.observe_result(check.type, "withheld", None)
        before = self.states.get(check, health.UNKNOWN)
        result = Result(False, f"cannot be checked: {reason}", 0.0, self._clock())
        if before.up is not None:
            return self.fold(check, result)
        if before.last is None or before.last.detail != result.detail:
            self._journal.emit(Event("check", str(check), reason=result.detail, after="unknown", level="error"))
            self.turned.set()  # no verdict has changed, but what is shown of the check has
        after = self.states[check] = replace(before, last=result)
        self.fresh = True
        return after


def _kind(check: Check) -> Hashable:
    """Checks that differ in nothing but their target are of one kind, as those of one pool are."""
    return check.type, check.params, check.interval, check.timeout, check.rise, check.fall, check.down_interval


def _matters(state: CheckState) -> tuple[object, ...]:
    """What of a state a decision depends on: the verdict, and the weight that the target asks for or has earned."""
    return state.up, state.asks, weights.earned(*state.record)
