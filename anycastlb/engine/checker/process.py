"""The checker process: run the checks that the daemon wants, and report what each probe proved.

It ends when the daemon does, decides nothing, writes to nothing but its socket, and keeps of the daemon's
capabilities only the one that marks packets; the programs that it starts for checks have none.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from anycastlb.adapters.checks import CheckType, Found, types
from anycastlb.adapters.checks.probe.path import find_path
from anycastlb.adapters.checks.probe.reach import Reach
from anycastlb.adapters.system.clock import SYSTEM
from anycastlb.adapters.system.journal import Journal
from anycastlb.adapters.system.privileges import end_with, keep_only_marks
from anycastlb.core.events import Event
from anycastlb.core.model import Check, CheckState, Result
from anycastlb.engine.attempt import Attempt
from anycastlb.engine.checker.protocol import (
    Bounds,
    frame,
    plain_again,
    plain_attempt,
    read_bounds,
    read_check,
    read_path,
    receive,
    says_the_same,
)
from anycastlb.engine.observer import NOBODY
from anycastlb.engine.probing import Probing
from anycastlb.engine.runner import Runner
from anycastlb.engine.verdicts import Course, Verdicts

PERIOD = 1.0
"""Seconds between two reports when no verdict turns."""
MAX_RESULTS = 200
"""Results in one report: the daemon does not do more at once."""
MAX_KEPT = 500_000
"""Results kept for a daemon that does not read; the oldest go first."""


class Silent(Journal):
    """The daemon writes what happens to its log: it has the same results."""

    def emit(self, event: Event) -> None:
        pass


class Recorder(Verdicts):
    """Folds what the times of the checks depend on, and keeps what the daemon is to hear."""

    def __init__(self) -> None:
        super().__init__(Silent(), SYSTEM, NOBODY)
        self._numbers: dict[Check, int] = {}
        self._good: dict[int, Result] = {}
        """The last good result that the daemon hears in full."""
        self._results: list[Sequence[Any]] = []

    def know(self, check: Check, number: int) -> None:
        """By this number the daemon knows this check."""
        self._numbers[check] = number

    def drop(self, check: Check, number: int) -> None:
        """The daemon does not want to hear of it by this number any more."""
        self._good.pop(number, None)
        if self._numbers.get(check) == number:
            del self._numbers[check]

    @property
    def known(self) -> Collection[Check]:
        return self._numbers.keys()

    def take(self) -> list[Sequence[Any]]:
        """What is new since the last time."""
        results, self._results = self._results, []
        return results

    def conclude(self, course: Course, ended: Attempt) -> None:
        number = self._numbers.get(course.check)
        if number is not None:
            outcome, result, _ = ended
            if outcome != "good":
                self._keep(number, "ended", *plain_attempt(ended))
            elif (good := self._good.get(number)) and says_the_same(good, result):
                self._keep(number, *plain_again(result.duration, result.at))
            else:
                self._keep(number, "ended", *plain_attempt(ended))
                self._good[number] = result
        super().conclude(course, ended)

    def again(self, course: Course, found: Found, took: float, lost: float, at: float) -> bool:
        number, state = self._numbers.get(course.check), course.state
        if number is None or not state.up or state.streak:
            return False
        good = self._good.get(number)
        if good is None or not says_the_same(good, found):
            return False
        self._keep(number, *plain_again(took, at))
        course.answered(took - lost)
        return True

    def fold(self, course: Course, result: Result) -> None:
        if not (result.ok and steady(course.state, result)):
            super().fold(course, result)

    def withhold(self, course: Course, reason: str) -> None:
        self._note(course, "withheld", reason)
        super().withhold(course, reason)

    def miss(self, course: Course, why: str) -> None:
        self._note(course, "missed", why)
        super().miss(course, why)

    def lack(self, course: Course, what: str) -> None:
        self._note(course, "lacking", what)
        super().lack(course, what)

    def broken(self, check: Check, exc: Exception) -> None:
        super().broken(check, exc)
        if (number := self._numbers.get(check)) is not None:
            self.unmade(number, exc)

    def unmade(self, number: int, exc: Exception) -> None:
        """A fault of ours keeps the check of this number from being made or judged; the daemon says so."""
        self._keep(number, "broken", f"{type(exc).__name__}: {exc!s:.200}")
        self.turned.set()

    def _note(self, course: Course, kind: str, text: str) -> None:
        number = self._numbers.get(course.check)
        if number is not None:
            self._keep(number, kind, text)

    def _keep(self, *values: Any) -> None:
        self._results.append(values)
        if len(self._results) > MAX_KEPT:
            del self._results[: MAX_KEPT // 2]
            self._good.clear()  # what was to be heard in full may be gone


def steady(state: CheckState, good: Result) -> bool:
    """Does this good result change nothing that a check's times depend on, or that the daemon is to hear at once?"""
    return bool(state.up) and not state.streak and state.asks == (good.weight, good.drain)


class Checker:
    """The process's end of the socket."""

    def __init__(self, bounds: Bounds) -> None:
        reach = Reach(bounds.settings.networks, bounds.closed)
        self._types: Mapping[str, CheckType] = types(bounds.settings, reach)
        self._recorder = Recorder()
        find = partial(find_path, foreign=bounds.foreign)
        self._runner = Runner(Probing(self._types, self._recorder, SYSTEM, find))
        self._checks: dict[int, Check] = {}

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until the daemon closes the socket."""
        async with asyncio.TaskGroup() as tasks:
            working = [tasks.create_task(self._runner.run()), tasks.create_task(self._report(writer))]
            with suppress(EOFError, ConnectionError):
                while True:
                    self._obey(await receive(reader))
            for task in working:
                task.cancel()

    def _obey(self, message: Mapping[str, Any]) -> None:
        recorder = self._recorder
        for number in message.get("stop", ()):
            if check := self._checks.pop(number, None):
                recorder.drop(check, number)
        for number, plain in message.get("run", ()):
            try:
                check = self._checks[number] = read_check(plain, self._types)
            except Exception as exc:
                recorder.unmade(number, exc)
            else:
                recorder.know(check, number)
        if "run" in message or "stop" in message:
            self._runner.want(recorder.known)
        if "marks" in message:
            self._runner.mark({read_path(via): mark for via, mark in message["marks"]})

    async def _report(self, writer: asyncio.StreamWriter) -> None:
        turned = self._recorder.turned
        with suppress(ConnectionError):  # who reads hears of the end, too
            while True:
                turned.clear()
                results, load, running = self._recorder.take(), self._runner.load, self._runner.running
                for begin in range(0, len(results) or 1, MAX_RESULTS):
                    report = {"results": results[begin : begin + MAX_RESULTS], "load": load, "running": running}
                    writer.write(frame(report))
                    await writer.drain()
                with suppress(TimeoutError):
                    async with asyncio.timeout(PERIOD):
                        await turned.wait()


async def serve(descriptor: int) -> None:
    """Talk to the daemon on this inherited socket until it has ended."""
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=descriptor))
    await Checker(read_bounds(await receive(reader))).run(reader, writer)


def main(descriptor: int) -> None:
    try:
        end_with(os.getppid())  # if that is the daemon no more, the socket is closed
        keep_only_marks()
    except OSError as exc:  # a stricter sandbox than ours; checks matter more
        print(f"the checker process keeps the daemon's privileges: {exc}", file=sys.stderr, flush=True)
    asyncio.run(serve(descriptor))
