"""Processes of the lab: each with its log file, ended by its own id, and never left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from tests.lab import lateness
from tests.lab.namespaces import LabError, Namespace

T = TypeVar("T")

GIVE_UP = 120.0
"""Seconds after which a test stops to wait for what should have come long ago. This limit only ends a hang."""
LONGEST = 5.0
"""By how much a machine that is late may stretch that."""
LONGEST_REST = 1.0
"""Seconds between two questions at most, however long an answer takes."""


@contextmanager
def meanwhile(act: Callable[[threading.Event], None]) -> Iterator[None]:
    """``act`` goes on beside the block, until the event that it is given says that the block is over."""
    over = threading.Event()
    thread = threading.Thread(target=act, args=(over,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def until(ask: Callable[[], T], what: str, within: float = GIVE_UP, every: float = 0.02) -> T:
    """Ask until the answer is truthy and return it. Between two questions it rests as long as an answer takes, and at
    least ``every`` seconds: who asks all the time takes the processor from those that are waited for.

    Raises ``LabError`` naming ``what`` when that takes longer than ``within`` seconds, not counting those that the
    machine lost meanwhile (``lateness``).
    """
    since = asked = lateness.now()
    while not (answer := ask()):
        now = time.monotonic()
        took, rest = now - since, max(every, min(now - asked, LONGEST_REST))
        if took > within and (took - (late := lateness.lost(since)) > within or took > LONGEST * within):
            raise LabError(
                f"not within {within:g} s ({took:.1f} s, of which the machine lost {late:.1f} s): {what}; "
                f"last answer: {answer!r}"
            )
        time.sleep(rest)
        asked = time.monotonic()
    return answer


def answers(path: Path) -> bool:
    """Does somebody listen at this socket? That it is in its folder is not enough: it is bound first."""
    with socket.socket(socket.AF_UNIX) as link:
        try:
            link.connect(str(path))
        except OSError:
            return False
    return True


def freeze(pid: int) -> None:
    """Stop a process; returns once no thread of it runs any more.

    A signal alone does not do that: a thread that was not chosen to receive it goes on until another one has, and may
    answer meanwhile.
    """
    os.kill(pid, signal.SIGSTOP)
    until(lambda: _states(pid) <= set("TtZX"), f"process {pid} has stopped")


def thaw(pid: int) -> None:
    """Undo ``freeze``."""
    os.kill(pid, signal.SIGCONT)


def members(group: int) -> list[int]:
    """The processes of a process group."""
    members = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if os.getpgid(int(folder.name)) == group:
                members.append(int(folder.name))
    return members


def _states(pid: int) -> set[str]:
    """The states of the threads of a process."""
    states = set()
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        with suppress(OSError):  # it has ended
            states.add(stat.read_text().rpartition(")")[2].split()[0])
    return states


class Process:
    """A program in a namespace; its output is appended to a log file over all its lives."""

    def __init__(
        self,
        name: str,
        namespace: Namespace,
        argv: Sequence[str],
        log: Path,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self._argv = namespace.argv(*argv)
        self._env = {**os.environ, **(env or {})}
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        if self._child is None:
            raise LabError(f"{self.name} was never started")
        return self._child.pid

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    @property
    def status(self) -> int | None:
        """The exit status; negative for a signal; None while it runs."""
        return self._child.poll() if self._child else None

    def start(self) -> None:
        if self.running:
            raise LabError(f"{self.name} is running already")
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                self._argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._env, start_new_session=True
            )

    def signal(self, number: int) -> None:
        if self.running:
            os.kill(self.pid, number)

    def freeze(self) -> None:
        """It hangs: what is sent to it is taken by its kernel, and never answered."""
        freeze(self.pid)

    def thaw(self) -> None:
        if self.running:
            thaw(self.pid)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        if self._child:
            self._child.wait(GIVE_UP)

    def stop(self, within: float = GIVE_UP) -> int:
        """SIGTERM; its exit status. Kills it and raises ``LabError`` if it does not end in time."""
        self.signal(signal.SIGTERM)
        return self.wait(within)

    def wait(self, within: float = GIVE_UP) -> int:
        if self._child is None:
            raise LabError(f"{self.name} was never started")
        try:
            return self._child.wait(within)
        except subprocess.TimeoutExpired:
            self.kill()
            raise LabError(f"{self.name} did not end within {within:g} s\n{self.tail()}") from None

    def end(self) -> None:
        """Make sure it is gone, whatever state it is in."""
        if not self.running:
            return
        self.thaw()
        try:
            self.stop(3)
        except LabError:
            self.kill()

    def tail(self, lines: int = 15) -> str:
        """The end of its log, for an error message."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join([f"--- {self.name}: {self.log} ---", *text.splitlines()[-lines:]])

    def until(self, ask: Callable[[], T], what: str, within: float = GIVE_UP, every: float = 0.02) -> T:
        """As ``until``, but fails at once, with the log, when the process ends meanwhile."""

        def answer() -> T:
            if not self.running:
                raise LabError(f"{self.name} ended with status {self.status} before: {what}\n{self.tail()}")
            return ask()

        try:
            return until(answer, what, within, every)
        except LabError as exc:
            if self.running:
                raise LabError(f"{exc}\n{self.tail()}") from None
            raise
