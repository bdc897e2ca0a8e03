"""Run one plain check, probe after probe, on the lean engine: what ``engine.coroutine_check`` does, without a task."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Concatenate, ParamSpec

from anycastlb.adapters.checks import Exchange, Found
from anycastlb.adapters.checks.probe.lean import LeanProbe, Poller
from anycastlb.core.model import Check
from anycastlb.engine.attempt import Attempt, conclude
from anycastlb.engine.places import Habit
from anycastlb.engine.probing import Probing
from anycastlb.engine.schedule import Schedule
from anycastlb.engine.verdicts import Course

P = ParamSpec("P")
Step = Callable[Concatenate["LeanCheck", P], None]
TOGETHER, SHARE = 0.025, 0.025
"""Checks that are due within so many seconds, and within this share of their interval, are made in one turn. It makes
none of them later."""
AGAIN = 1.0
"""Seconds after which a check is run again that a fault of ours has ended."""


def contained(step: Step[P]) -> Step[P]:
    """A fault of ours in a step of one check, which somebody else calls, ends no other: this one fails, and goes on."""

    @wraps(step)
    def within(check: LeanCheck, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            step(check, *args, **kwargs)
        except Exception as exc:
            check.fail(exc)

    return within


class LeanCheck:
    """It runs from when it is made until ``cancel``."""

    __slots__ = (
        "_cancel_stir",
        "_check",
        "_course",
        "_ended",
        "_grain",
        "_habit",
        "_poller",
        "_probe",
        "_probing",
        "_schedule",
        "_turn",
        "_waiting",
    )

    def __init__(self, check: Check, exchange: Exchange, probing: Probing, poller: Poller) -> None:
        self._check, self._probing, self._poller = check, probing, poller
        self._course = Course(check)
        self._probe = LeanProbe(poller, check, exchange, self._conclude)
        self._schedule = Schedule(check, probing.chance, probing.clock())
        self._grain = min(TOGETHER, SHARE * check.interval)
        self._habit: Habit | None = None
        """With which it holds a place."""
        self._waiting: Habit | None = None
        """With which it waits for one."""
        self._cancel_stir: Callable[[], None] | None = None
        self._ended = False
        self._turn = 0
        """Counts the timers that were set: only the last one counts."""
        self._wait()

    def cancel(self) -> None:
        """End the check, and leave nothing of it behind."""
        self._ended = True
        self._turn += 1
        self._calm()
        self._probe.cancel()
        if self._waiting is not None:
            self._probing.places.give_up(self._waiting, self._placed)
        self._leave()

    def fail(self, exc: Exception) -> None:
        """A fault of ours has ended its last step: begin anew."""
        self._probing.verdicts.broken(self._check, exc)
        self._probe.cancel()
        self._leave()
        self._turn += 1
        self._poller.call_at(self._probing.clock() + AGAIN, partial(self._due, self._turn))

    def _wait(self) -> None:
        """Until it is due."""
        self._turn += 1
        due = self._schedule.due
        self._poller.call_at(due - due % self._grain, partial(self._due, self._turn))

    @contained
    def _due(self, turn: int) -> None:
        if turn == self._turn:
            self._calm()
            self._try()

    @contained
    def _enter(self) -> None:
        self._try()

    def _try(self) -> None:
        """Take a place, as soon as there is a way to the target and a place."""
        if self._ended or not self._probing.ready(self._check, self._enter):
            return
        habit = self._course.habit
        if self._probing.places.enter(habit, self._placed):
            self._habit = habit
            self._start()
        else:
            self._waiting = habit

    def _placed(self) -> None:
        """It holds the place that it waited for. It begins in a turn of its own: another check has called."""
        self._habit, self._waiting = self._waiting, None
        self._poller.call_at(self._probing.clock(), self._begin)

    @contained
    def _begin(self) -> None:
        if self._habit is not None:  # else it was cancelled since
            self._start()

    def _start(self) -> None:
        check, path = self._check, None
        if check.via is not None and (path := self._probing.path(self._course, check.via)) is None:
            self._next(None, self._probing.clock())
            return
        self._probe.begin(path)

    @contained
    def _conclude(self, outcome: Found | Exception) -> None:
        probe, verdicts, ended = self._probe, self._probing.verdicts, None
        at, lost = probe.ended, probe.lost
        if not isinstance(outcome, Found) or not verdicts.again(self._course, outcome, at - probe.started, lost, at):
            ended = conclude(self._check, outcome, probe.started, at, lost, probe.fair)
            verdicts.conclude(self._course, ended)
        self._next(ended, at)

    def _next(self, ended: Attempt | None, now: float) -> None:
        self._leave()
        state = self._course.state
        self._schedule.advance(state, ended, now)
        self._wait()
        if self._schedule.may_be_stirred(state):
            self._cancel_stir = self._probing.verdicts.on_stir(self._course, self._stir)

    @contained
    def _stir(self) -> None:
        self._cancel_stir = None
        self._schedule.stir(self._probing.clock())
        self._wait()

    def _calm(self) -> None:
        if self._cancel_stir is not None:
            self._cancel_stir()
            self._cancel_stir = None

    def _leave(self) -> None:
        if self._habit is not None:
            habit, self._habit = self._habit, None
            self._probing.places.leave(habit)
