"""Run one short-lived program, keep the first lines of its output, and leave nothing of it behind.

The only module that starts processes for checks. It sets no deadline: cancel ``run``, and the program is killed with
its process group. It judges nothing.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import IO

from anycastlb.adapters.system.privileges import end_with

MAX_OUTPUT = 4096
"""Bytes kept of each of its outputs; the rest is read and dropped."""


@dataclass(frozen=True, slots=True)
class Ended:
    code: int
    """The exit code; the signal that killed it, negative."""
    output: str
    """The first line of its standard output that is not empty, without white space around it."""
    complaint: str
    """The same of its standard error."""


async def run_process(argv: Sequence[str], environment: Mapping[str, str]) -> Ended:
    """Run a program to its end, in ``/``, without input. Raises OSError if it cannot be started.

    What it leaves in its process group when it ends, or when this is cancelled, is killed. A process that moved to a
    session of its own has left that group. If this process is killed, so is the program itself.
    """
    process, watch = _started(argv, environment)
    assert process.stdout and process.stderr
    output, complaint = _Kept(process.stdout), _Kept(process.stderr)
    try:
        await _readable(watch)
    finally:
        # Not yet waited for, it still holds its number: this can hit no other group.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        output.close()
        complaint.close()
        _reap(process, watch)
    return Ended(process.returncode, output.line, complaint.line)


def _started(argv: Sequence[str], environment: Mapping[str, str]) -> tuple[subprocess.Popen[bytes], int]:
    """The process, and a descriptor that can be read once it has ended."""
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        env=dict(environment),
        start_new_session=True,
        preexec_fn=partial(end_with, os.getpid()),  # calls the kernel and nothing else: no thread's lock can matter
    )
    try:
        return process, os.pidfd_open(process.pid)
    except OSError:  # out of descriptors
        process.kill()
        process.communicate()
        raise


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(descriptor, wake)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)


def _reap(process: subprocess.Popen[bytes], watch: int) -> None:
    """Reap the process. A killed process in uninterruptible sleep can take a while to exit."""
    loop = asyncio.get_running_loop()

    def gone() -> None:
        loop.remove_reader(watch)
        os.close(watch)
        process.wait()

    if process.poll() is None:
        loop.add_reader(watch, gone)
    else:
        os.close(watch)


class _Kept:
    """The beginning of what comes through a pipe; reads all of it, so that the writer need not wait."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe, self._kept = pipe, b""
        self._loop = asyncio.get_running_loop()
        os.set_blocking(pipe.fileno(), False)
        self._loop.add_reader(pipe.fileno(), self._read)

    def _read(self) -> None:
        with suppress(BlockingIOError):
            data = os.read(self._pipe.fileno(), 65536)
            self._kept += data[: MAX_OUTPUT - len(self._kept)]
            if not data:
                self._loop.remove_reader(self._pipe.fileno())

    def close(self) -> None:
        """Take what is there, and no more."""
        self._read()
        self._loop.remove_reader(self._pipe.fileno())
        self._pipe.close()

    @property
    def line(self) -> str:
        return next((line.strip() for line in self._kept.decode(errors="replace").splitlines() if line.strip()), "")
