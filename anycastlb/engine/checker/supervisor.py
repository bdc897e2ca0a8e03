"""Run checks in a checker process, and start another one when it dies or hangs.

It is started with the first check that needs it. What it reports is folded here. While it does not run, no verdict
changes; if that lasts, every check is *not known*, which counts as a failure after ``verdicts.UNPROVEN``.

How long a process has been silent is counted in turns of the daemon's own loop. A daemon that was stopped itself, or is
late, takes no other process for hung: a stop of any length is one turn.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from itertools import count
from typing import Any, TypeVar

from anycastlb.adapters.system.clock import Clock
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.backoff import Backoff
from anycastlb.core.events import Event
from anycastlb.core.model import Check, CheckState, ForwardPath, Result
from anycastlb.engine import unchecked
from anycastlb.engine.checker.child import Child
from anycastlb.engine.checker.protocol import (
    Bounds,
    Broken,
    again,
    frame,
    plain_bounds,
    plain_check,
    plain_path,
    read_attempt,
    receive,
)
from anycastlb.engine.probing import MAX_AT_ONCE
from anycastlb.engine.verdicts import Course, Verdicts

START = 60.0
"""Seconds that a new process has until its first report; twice as many after one that was given up, and so on."""
MAX_START = 240.0
"""A node whose machine is so slow that no process starts in time must not end one after the other for ever."""
SILENCE = 5.0
"""Seconds without a report after which the process hangs, and is killed. It reports every second."""
MAX_SILENCE = 60.0
"""It doubles up to this while one process after the other hangs soon: perhaps it is the machine that is slow."""
STEADY = 60.0
"""A process that ran so many seconds is no failed start."""
LASTS = 10.0
"""Seconds without a report after which the checks are not known, and between two times of saying so."""
TURN = 0.25
"""Seconds between two looks at how long the process has been silent."""
SLICE = 100
"""Checks that are handled in one go, so that nobody else in the loop waits long."""
RESTART = Backoff(0.1, 30.0)

T = TypeVar("T")


class CheckerProcess:
    """One process, and the checks that it runs."""

    def __init__(self, bounds: Bounds, verdicts: Verdicts, journal: Journal, clock: Clock) -> None:
        self._bounds, self._verdicts, self._journal, self._clock = bounds, verdicts, journal, clock
        self._wanted: Set[Check] = frozenset()
        self._resettle, self._at_rest = asyncio.Event(), asyncio.Event()
        self._at_rest.set()
        self._needed = asyncio.Event()
        self._courses: dict[int, Course] = {}
        self._numbers: dict[Check, int] = {}
        self._next = count(1)
        self._good: dict[int, Result] = {}
        """The last good result that was sent in full."""
        self._marks: Mapping[ForwardPath, int | str] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._silent = 0.0
        """Seconds without a report of any process."""
        self._patience = START
        """Seconds that this process still has until its next report."""
        self._silence = SILENCE
        """Seconds that it has from one report to the next."""
        self._why = "no process has reported yet"
        self._running = 0
        """How many checks the process runs."""
        self.load = (0, 0, MAX_AT_ONCE)

    @property
    def running(self) -> int:
        return self._running + len(self._numbers) - len(self._courses)

    def want(self, checks: Set[Check]) -> None:
        """Run these from now on, and stop all others."""
        self._wanted = checks
        self._at_rest.clear()
        self._resettle.set()

    def mark(self, marks: Mapping[ForwardPath, int | str]) -> None:
        if marks != self._marks:
            self._marks = marks
            self._send(marks=self._plain_marks())

    async def settled(self) -> None:
        """Return when all that needs no probe is known of the checks that are wanted."""
        await self._at_rest.wait()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._settle())
            await self._needed.wait()
            tasks.create_task(self._watch())
            await self._supervise()

    async def _settle(self) -> None:
        """Have run what is wanted, and nothing else."""
        while True:
            await self._resettle.wait()
            self._resettle.clear()
            async for checks in slices(self._numbers.keys() - self._wanted):
                self._send(stop=[self._drop(check) for check in checks])
            unasked = unchecked.known(self._clock.monotonic())
            async for checks in slices(self._wanted - self._numbers.keys()):
                self._run([number for check in checks if (number := self._add(check, unasked)) in self._courses])
            if not self._resettle.is_set():
                self._at_rest.set()

    def _add(self, check: Check, unasked: CheckState) -> int:
        """``unasked``: the state of a check that no process need be asked for."""
        number = self._numbers[check] = next(self._next)
        with self._contained(check):
            if check.type == unchecked.TYPE:
                unchecked.Unchecked(check, self._verdicts, unasked)
            else:
                self._courses[number] = Course(check)
                self._needed.set()
        return number

    def _run(self, numbers: Iterable[int]) -> None:
        """Have these checks run, as far as they are still wanted."""
        plain = []
        for number in numbers:
            if course := self._courses.get(number):
                with self._contained(course.check):
                    plain.append([number, plain_check(course.check)])
        self._send(run=plain)

    @contextmanager
    def _contained(self, check: Check) -> Iterator[None]:
        """A fault of ours in making one check is that check's, and no other's."""
        try:
            yield
        except Exception as exc:
            self._verdicts.broken(check, exc)

    def _drop(self, check: Check) -> int:
        number = self._numbers.pop(check)
        self._courses.pop(number, None)
        self._good.pop(number, None)
        self._verdicts.forget(check)
        return number

    async def _supervise(self) -> None:
        """Keep one process running."""
        failures = 0
        while True:
            started = self._clock.monotonic()
            self._why = await self._live()
            steady = self._clock.monotonic() - started > STEADY
            failures = 0 if steady else failures + 1
            hung = self._patience <= 0
            self._silence = min(2 * self._silence, MAX_SILENCE) if hung and not steady else SILENCE
            reason = f"{self._why}; another one is started, and no verdict changes meanwhile"
            self._journal.emit(Event("failure", "checker process", reason=reason, level="error"))
            await asyncio.sleep(RESTART.delay(failures, self._clock.chance()))

    async def _live(self) -> str:
        """One process, from its start until it is gone; why that is."""
        self._patience = min(START * self._silence / SILENCE, MAX_START)
        try:
            child = Child()
        except OSError as exc:
            return f"it cannot be started: {exc}"
        try:
            why = await self._talk(child.socket)
        except OSError as exc:
            why = f"it cannot be talked to: {exc}"
        finally:
            status = await child.end()
        return why or f"it ended with status {status}"

    async def _talk(self, sock: socket.socket) -> str:
        """Until the process has closed its end, or is not listened to any more: why that is, if it is known."""
        reader, writer = await asyncio.open_connection(sock=sock)
        self._writer = writer
        try:
            self._writer.write(frame(plain_bounds(self._bounds)))
            self._send(marks=self._plain_marks())
            async for numbers in slices(self._courses):
                self._run(numbers)
            while True:
                self._take(await receive(reader))
                await asyncio.sleep(0)  # there may be more, and others have their turn between
        except (EOFError, OSError):
            return f"it gave no sign of life for {self._silent:.1f} s" if self._patience <= 0 else ""
        except Exception as exc:  # it talks to strangers: whatever it sends is its own end, and not the daemon's
            return f"it sent what is no report: {type(exc).__name__}: {exc!s:.200}"
        finally:
            writer.transport.abort()
            self._writer = None
            self._running, self.load = 0, (0, 0, MAX_AT_ONCE)

    async def _watch(self) -> None:
        """Give a process up that hangs; while nobody reports, every check is not known."""
        doubt_at = LASTS
        while True:
            await asyncio.sleep(TURN)
            self._silent += TURN
            self._patience -= TURN
            if self._patience <= 0 and self._writer is not None:
                self._writer.transport.abort()  # which the one who listens hears as its end
            doubt_at = min(doubt_at, self._silent + LASTS)
            if self._silent >= doubt_at:
                doubt_at += LASTS
                async for numbers in slices(self._courses):
                    for course in filter(None, map(self._courses.get, numbers)):
                        self._verdicts.lack(course, f"the checks of this node do not run: {self._why}")

    def _take(self, message: Mapping[str, Any]) -> None:
        self._silent, self._patience = 0.0, self._silence
        self._running = int(message["running"])
        taken, waiting, limit = map(int, message["load"])
        self.load = (taken, waiting, limit)
        conclude = self._verdicts.conclude
        for values in message["results"]:
            number, second, third, *_ = values
            if (course := self._courses.get(number)) is None:
                continue  # it is not wanted any more
            if type(second) is int and type(third) is int:
                conclude(course, again(self._good[number], second, third))
            else:
                self._take_result(number, course, values[1:])

    def _take_result(self, number: int, course: Course, values: list[Any]) -> None:
        """Raises what bad values raise."""
        match values:
            case ["ended", detail, *plain]:
                ended = read_attempt(str(detail), plain)
                if ended.outcome == "good":
                    self._good[number] = ended.result
                self._verdicts.conclude(course, ended)
            case ["withheld", reason]:
                self._verdicts.withhold(course, str(reason))
            case ["missed", why]:
                self._verdicts.miss(course, str(why))
            case ["lacking", what]:
                self._verdicts.lack(course, str(what))
            case ["broken", what]:
                self._verdicts.broken(course.check, Broken(str(what)))
            case _:
                raise ValueError(f"a result {values!r:.80}")

    def _send(self, **message: Any) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(frame(message))

    def _plain_marks(self) -> list[Any]:
        return [[plain_path(via), mark] for via, mark in self._marks.items()]


async def slices(items: Collection[T]) -> AsyncIterator[list[T]]:
    """What they are now, in pieces, with a turn of the loop for others after each."""
    every = list(items)
    for begin in range(0, len(every), SLICE):
        yield every[begin : begin + SLICE]
        await asyncio.sleep(0)
