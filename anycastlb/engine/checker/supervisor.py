"""Run the checks of a node in a checker process, and start another one when it dies or hangs.

What the process reports is folded here. While no process runs, no verdict changes; if that lasts, every check is *not
known*, which counts as a failure after ``verdicts.UNPROVEN``.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping
from itertools import count
from typing import Any

from anycastlb.adapters.system.clock import Clock
from anycastlb.adapters.system.journal import Journal
from anycastlb.adapters.system.lateness import Deadline
from anycastlb.adapters.system.privileges import handing_on_marks
from anycastlb.core.backoff import Backoff
from anycastlb.core.events import Event
from anycastlb.core.model import Check, ForwardPath, Network
from anycastlb.engine.checker.protocol import NotOurs, frame, plain_check, plain_path, read_attempt, receive
from anycastlb.engine.observer import Observer
from anycastlb.engine.prober import MakeChecking
from anycastlb.engine.probing import MAX_AT_ONCE
from anycastlb.engine.verdicts import Course, Publish, Verdicts, publish_changes
from anycastlb.settings import ChecksSettings

START = 60.0
"""Seconds that a new process has until its first report."""
SILENCE = 5.0
"""Seconds without a report after which the process hangs, and is killed. It reports every second."""
STEADY = 60.0
"""A process that ran so many seconds is no failed start."""
LASTS = 10.0
"""Seconds without a report after which the checks are not known, and between two times of saying so."""
RESTART = Backoff(0.1, 30.0)


class CheckerProcess:
    """``Checking`` in a process of its own. ``foreign``: the networks of VIPs, from which nobody is probed."""

    def __init__(
        self,
        settings: ChecksSettings,
        foreign: Iterable[Network],
        publish: Publish,
        journal: Journal,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._hello = {"commands": settings.commands, "foreign": [str(network) for network in foreign]}
        self._publish, self._journal, self._clock = publish, journal, clock
        self._verdicts = Verdicts(journal, clock, observer)
        self._courses: dict[int, Course] = {}
        self._numbers: dict[Check, int] = {}
        self._next = count(1)
        self._marks: Mapping[ForwardPath, int | str] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._heard = clock.monotonic()
        """When the last report came."""
        self._why = "it has not started yet"
        self.running = 0
        self.load = (0, 0, MAX_AT_ONCE)

    def want(self, checks: Iterable[Check]) -> None:
        wanted = frozenset(checks)
        stop = [check for check in self._numbers if check not in wanted]
        run = [check for check in wanted if check not in self._numbers]
        stopped = [self._numbers.pop(check) for check in stop]
        for number in stopped:
            self._verdicts.forget(self._courses.pop(number).check)
        for check in sorted(run, key=str):
            number = self._numbers[check] = next(self._next)
            self._courses[number] = Course(check)
        if stop or run:
            self._send(stop=stopped, run=[[self._numbers[check], plain_check(check)] for check in run])

    def mark(self, marks: Mapping[ForwardPath, int | str]) -> None:
        if marks != self._marks:
            self._marks = marks
            self._send(marks=self._plain_marks())

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(publish_changes(self._verdicts, self._publish))
            tasks.create_task(self._doubt())
            await self._supervise()

    async def _supervise(self) -> None:
        """Keep one process running."""
        failures = 0
        while True:
            started = self._clock.monotonic()
            self._why = await self._live()
            failures = 0 if self._clock.monotonic() - started > STEADY else failures + 1
            reason = f"{self._why}; another one is started, and no verdict changes meanwhile"
            self._journal.emit(Event("failure", "checker process", reason=reason, level="error"))
            await asyncio.sleep(RESTART.delay(failures, self._clock.chance()))

    async def _live(self) -> str:
        """One process, from its start until it is gone; why that is."""
        ours, theirs = socket.socketpair()
        reader, self._writer = await asyncio.open_connection(sock=ours)
        process = None
        try:
            with theirs:
                process = _started(theirs.fileno())
            self._writer.write(frame(self._hello))
            every = [[number, plain_check(course.check)] for number, course in self._courses.items()]
            self._send(run=every, marks=self._plain_marks())
            return await self._listen(reader)
        except (EOFError, OSError) as exc:
            return f"it ended with status {await _ended(process)}" if process else f"it cannot be started: {exc}"
        finally:
            self._writer.close()
            self._writer = None
            self.running, self.load = 0, (0, 0, MAX_AT_ONCE)
            if process:
                process.kill()
                await _ended(process)

    async def _listen(self, reader: asyncio.StreamReader) -> str:
        """Take reports until it hangs. Raises EOFError, OSError."""
        patience = START
        while True:
            try:
                async with Deadline(patience):  # this process's own lateness is no sign of the other one's
                    message = await receive(reader)
                self._take(message)
                await asyncio.sleep(0)  # there may be more, and others have their turn between
            except TimeoutError:
                return f"it gave no sign of life for {patience:g} s"
            except (NotOurs, KeyError, TypeError, ValueError) as exc:
                return f"it sent what is no report: {type(exc).__name__}: {exc}"
            patience = SILENCE

    def _take(self, message: Mapping[str, Any]) -> None:
        self._heard = self._clock.monotonic()
        self.running = int(message["running"])
        taken, waiting, limit = map(int, message["load"])
        self.load = (taken, waiting, limit)
        for number, what, text, *values in message["results"]:
            if (course := self._courses.get(number)) is None:
                continue  # not wanted any more
            match what:
                case "withheld":
                    self._verdicts.withhold(course, str(text))
                case "missed":
                    self._verdicts.miss(course, str(text))
                case "lacking":
                    self._verdicts.lack(course, str(text))
                case "ended":
                    self._verdicts.conclude(course, read_attempt(str(text), values))
                case _:
                    raise ValueError(f"a result of kind {what!r:.40}")

    async def _doubt(self) -> None:
        """While nobody reports, every check is not known."""
        while True:
            await asyncio.sleep(LASTS)
            if self._clock.monotonic() - self._heard > LASTS:
                for course in list(self._courses.values()):
                    self._verdicts.lack(course, f"the checks of this node do not run: {self._why}")

    def _send(self, **message: Any) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(frame(message))

    def _plain_marks(self) -> list[Any]:
        return [[plain_path(via), mark] for via, mark in self._marks.items()]


def _started(descriptor: int) -> subprocess.Popen[bytes]:
    """The process, which inherits this socket. Raises OSError."""
    with handing_on_marks():
        return subprocess.Popen(
            # -P: nothing is imported from wherever the daemon was started
            [sys.executable, "-P", "-m", "anycastlb.engine.checker", str(descriptor)],
            pass_fds=(descriptor,),
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            start_new_session=True,
        )


async def _ended(process: subprocess.Popen[bytes]) -> int:
    """Its status, once it is gone: by itself within a moment, or killed."""
    for _ in range(20):
        if (status := process.poll()) is not None:
            return status
        await asyncio.sleep(0.05)
    process.kill()
    return await asyncio.to_thread(process.wait)


def in_own_process(settings: ChecksSettings, foreign: Iterable[Network]) -> MakeChecking:
    """How a real node runs its checks."""
    networks = tuple(foreign)

    def make(publish: Publish, journal: Journal, clock: Clock, observer: Observer) -> CheckerProcess:
        return CheckerProcess(settings, networks, publish, journal, clock, observer)

    return make
