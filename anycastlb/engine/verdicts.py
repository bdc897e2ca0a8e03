"""Fold the results of probes into the state of each check, and say when a state has turned.

A probe that says nothing of its target changes no verdict: this node lacked what it needs to probe, or it was itself
too late to look. What keeps a verdict from being proven is shown with it, and a verdict that has stood unproven for
``UNPROVEN`` counts as failed. Nothing is scheduled here, and nothing is waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import wraps
from typing import Concatenate, ParamSpec

from anycastlb.adapters.checks import Found
from anycastlb.adapters.system.clock import Clock
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.decision import health, weights
from anycastlb.core.delta import Edited
from anycastlb.core.events import Event
from anycastlb.core.model import Check, CheckState, Health, Result
from anycastlb.engine.attempt import Attempt
from anycastlb.engine.observer import Observer
from anycastlb.engine.places import Habit

COMPLAINTS = 60.0
"""Seconds between two events that say that this node cannot probe, or that it probes too late."""
UNPROVEN = 300.0
"""Seconds that a verdict stands from the first probe that says nothing of the target; then that counts as a failure.

It does not count from the last one that did: the whole node may have stood still since then."""
PROMPT = 0.9
"""The share of its time-out within which a check was answered; else it counts as hanging."""
Publish = Callable[[Health, bool], None]
"""Takes the state of every check, and whether a verdict has turned."""
WORDS = {None: "unknown", True: "up", False: "down"}
P = ParamSpec("P")


class Course:
    """What is known of one check while it is run."""

    __slots__ = ("check", "habit", "kind", "state", "unproven_since")

    def __init__(self, check: Check) -> None:
        self.check = check
        self.state = health.UNKNOWN
        self.unproven_since: float | None = None
        """When it first had a result that says nothing of its target, since the last one that does."""
        self.habit: Habit = "untried"
        self.kind: Hashable = (
            check.type,
            check.params,
            check.interval,
            check.timeout,
            check.rise,
            check.fall,
            check.down_interval,
        )
        """Checks that differ in nothing but their target are of one kind, as those of one pool are."""

    def answered(self, seconds: float) -> None:
        """A probe that says something of its target has ended after so many seconds in which this node looked."""
        self.habit = "answered" if seconds < PROMPT * self.check.timeout else "hanging"
        self.unproven_since = None


Take = Callable[Concatenate["Verdicts", Course, P], None]


def contained(take: Take[P]) -> Take[P]:
    """A fault of ours in taking what a probe found is that check's, and no other's."""

    @wraps(take)
    def within(verdicts: Verdicts, course: Course, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            take(verdicts, course, *args, **kwargs)
        except Exception as exc:
            verdicts.broken(course.check, exc)

    return within


class Verdicts:
    """The state of every check that has had a result. ``turned`` is set when a decision may depend on a change."""

    def __init__(self, journal: Journal, clock: Clock, observer: Observer) -> None:
        self.states: dict[Check, CheckState] = {}
        self.turned = asyncio.Event()
        self._news: dict[Check, CheckState] = {}
        """What was taken since the last snapshot."""
        self._snapshot: Health | None = None
        """The last one; None once there are other checks than it has."""
        self._journal, self._clock, self._observer = journal, clock.monotonic, observer
        self._complain_at = self._clock()
        self._stirred: dict[Hashable, dict[Callable[[], None], None]] = {}

    @property
    def fresh(self) -> bool:
        """Is there anything new since the last snapshot?"""
        return bool(self._news)

    def snapshot(self) -> Health:
        """All states as they are now. Nobody can change it; what is not new is not copied."""
        news, self._news = self._news, {}
        if self._snapshot is None:
            self._snapshot = Edited(dict(self.states), {})
        elif news:
            self._snapshot = Edited(self._snapshot, news)
        return self._snapshot

    def forget(self, check: Check) -> None:
        """The check is not run any more. What it found must not be believed when it returns."""
        if self.states.pop(check, None) is not None:
            self._news.pop(check, None)
            self._snapshot = None
        self.turned.set()

    def _take(self, check: Check, state: CheckState) -> None:
        if check not in self.states:
            self._snapshot = None
        self.states[check] = self._news[check] = state

    def on_stir(self, course: Course, act: Callable[[], None]) -> Callable[[], None]:
        """Act once when a check of this one's kind that was down is answered again; returns what cancels it.

        Targets that went down together may be back together, and this node must not announce long before it knows.
        """
        waiting = self._stirred.setdefault(course.kind, {})
        waiting[act] = None
        return lambda: waiting.pop(act, None)

    def fold(self, course: Course, result: Result) -> None:
        """Take a result that says something of the target, or counts as if it did."""
        check, before = course.check, course.state
        after = course.state = health.step(before, result, check.rise, check.fall)
        self._take(check, after)
        if after.up is not before.up:
            self._tell(check, before.up, after)
        if _matters(before, after):
            self.turned.set()
        if check.down_interval is not None and before.up is False and result.ok and not before.streak:
            for act in self._stirred.pop(course.kind, {}):
                act()

    def settle(self, check: Check, state: CheckState) -> None:
        """Take the state of a check that needs no probe, and was never known before."""
        self._observer.observe_result(check.type, "good", 0.0)
        self._take(check, state)
        self._tell(check, None, state)
        self.turned.set()

    def broken(self, check: Check, exc: Exception) -> None:
        """A fault of ours keeps this check from being made or judged: nobody knows its target to be well."""
        text = f"internal error in the check of {check.address}, which counts as down: {type(exc).__name__}: {exc}"
        before = self.states.get(check)
        if before is None or before.last is None or before.last.detail != text:
            reason = f"{text}; please report it"
            self._journal.emit(Event("check", check.type, reason, after="down", level="error", code="internal_error"))
        now = self._clock()
        since = before.since if before is not None and before.up is False else now
        self._take(check, CheckState(False, since=since, last=Result(False, text, 0.0, now)))
        self.turned.set()

    @contained
    def conclude(self, course: Course, ended: Attempt) -> None:
        """Take what a probe proves."""
        outcome, result, lost = ended
        if not ended.proves:
            self._learn_nothing(course, result.detail, outcome)
            return
        check = course.check
        self._observer.observe_result(check.type, outcome, result.duration)
        course.answered(result.duration - lost)
        self.fold(course, result)

    def again(self, course: Course, found: Found, took: float, lost: float, at: float) -> bool:
        """Take a good result that says what the last one said, where that needs no folding; False if it does."""
        return False

    @contained
    def miss(self, course: Course, why: str) -> None:
        """No probe could be sent, and that counts as a failure."""
        self._observer.observe_result(course.check.type, "withheld", None)
        self.fold(course, Result(False, why, 0.0, self._clock()))

    @contained
    def lack(self, course: Course, what: str) -> None:
        """No probe could be sent, and that says nothing of the target."""
        self._learn_nothing(course, what, "unknown")

    def _learn_nothing(self, course: Course, why: str, outcome: str) -> None:
        """A probe says nothing of the target. No verdict changes, unless this lasts too long."""
        check, now, before = course.check, self._clock(), course.state
        self._observer.observe_result(check.type, outcome, None)
        result = Result(False, f"not known: {why}", 0.0, now)
        if now >= self._complain_at:
            self._complain_at = now + COMPLAINTS
            self._warn(check, result)
        if course.unproven_since is None:
            course.unproven_since = now
        if before.up is not None and now - course.unproven_since > UNPROVEN:
            self.fold(course, result)
            self._show(course, replace(course.state, unproven=result))
            return
        last = result if before.up is None else before.last
        self._show(course, replace(before, last=last, unproven=result))

    @contained
    def withhold(self, course: Course, reason: str) -> None:
        """Record that this node cannot run the check. Without any verdict this says nothing of the backend; with one it
        counts as a failure, since a verdict must not stand unproven for ever."""
        check, before = course.check, course.state
        self._observer.observe_result(check.type, "withheld", None)
        result = Result(False, f"cannot be checked: {reason}", 0.0, self._clock())
        if before.up is not None:
            self.fold(course, result)
            return
        if before.last is None or before.last.detail != result.detail:
            self._warn(check, result)
            self.turned.set()  # no verdict has changed, but what is shown of the check has
        self._show(course, replace(before, last=result))

    def _show(self, course: Course, state: CheckState) -> None:
        """Publish another state of the same verdict."""
        course.state = state
        self._take(course.check, state)

    def _warn(self, check: Check, result: Result) -> None:
        self._journal.emit(Event("check", str(check), reason=result.detail, after="unknown", level="error"))

    def _tell(self, check: Check, before: bool | None, after: CheckState) -> None:
        reason = after.last.detail if after.last else ""
        self._journal.emit(
            Event(
                "check",
                str(check),
                reason=reason,
                before=WORDS[before],
                after=WORDS[after.up],
                level="info" if after.up else "warning",
            )
        )


async def publish_changes(verdicts: Verdicts, publish: Publish) -> None:
    """Publish for ever: a turned verdict at once (many in one go), mere fresh evidence every second."""
    while True:
        try:
            async with asyncio.timeout(1.0):
                await verdicts.turned.wait()
        except TimeoutError:
            if not verdicts.fresh:
                continue
        turned = verdicts.turned.is_set()
        verdicts.turned.clear()
        publish(verdicts.snapshot(), turned)


def _matters(before: CheckState, after: CheckState) -> bool:
    """Has anything changed that a decision depends on: the verdict, or the weight that the target asks for or has
    earned?"""
    if before.up is not after.up or before.asks != after.asks:
        return True
    (had, of), (has, now_of) = before.record, after.record
    if had == of and has == now_of:  # every result was good, which earns the whole weight
        return False
    return weights.earned(had, of) != weights.earned(has, now_of)
