"""How late the machine itself runs, so that a busy machine is not mistaken for a slow product.

A small process of its own does a known amount of work, rests, and does it again, some five times a second. It writes
down how much longer every turn took than it takes on a machine that has nothing else to do. What this process lost,
the product has lost as well. A promise of the product (``hold``, ``interval x fall + timeout``) is judged by the time
that is left when the loss of those same seconds is taken off. On an idle machine that is the time on the wall.

``now()`` is the moment at which a promise begins to run, and ``kept()`` judges it. Moments are ``time.monotonic()``,
which all processes of one kernel share.
"""

from __future__ import annotations

import atexit
import bisect
import os
import select
import struct
import subprocess
import sys
import tempfile
import time

REST = 0.2
"""Seconds between two turns."""
PIECES = 12
"""Of which the work consists. All of it takes longer than a scheduler lets a process run at a stretch: a process that
needs little is served at once even on a busy machine, and would see nothing of what others lose."""
PIECE = 20_000
"""How many numbers a piece adds up: about half a millisecond, short enough that some are done without a break."""
FAVOUR = 2.0
"""How much more a process loses that always has something to do: one that rests is served first. As measured, on a host
and in a test kernel, with a load of 12 on two processors: a busy one lost 3.3 of 4.3 s, this one counted 1.6 s."""
TOLERANCE = 2.0
"""By which factor a promise may be missed: what the machine lost is an estimate, and a busy machine makes it a bad one.
The stories in virtual time hold the product to the promise itself; here it is seen to be kept by all parts together."""
ENTRY = struct.Struct("dd")
ENTRIES = 1024
"""How many are read at once: a buffer for all would show in the memory of the process that is tested."""


class Gauge:
    """The process that measures, and what it has written so far: moments, and the seconds lost until each of them."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  it lives as long as this process
        self._moments = [time.monotonic()]
        self._losses = [0.0]
        argv = [sys.executable, "-I", "-S", __file__]
        # When this process ends, however it ends, the pipe is closed, and that ends the one that measures.
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=self._file, start_new_session=True)
        atexit.register(self._process.wait)
        atexit.register(self._process.communicate)  # is called first

    @property
    def pid(self) -> int:
        """Of the process that measures."""
        return self._process.pid

    def lost(self, since: float, until: float) -> float:
        """Seconds that the machine lost between two moments."""
        self._read()
        return min(max(0.0, FAVOUR * (self._at(until) - self._at(since))), until - since)

    def _read(self) -> None:
        while written := os.pread(self._file.fileno(), ENTRIES * ENTRY.size, (len(self._moments) - 1) * ENTRY.size):
            for moment, lost in ENTRY.iter_unpack(written[: len(written) // ENTRY.size * ENTRY.size]):
                self._moments.append(moment)
                self._losses.append(lost)
            if len(written) < ENTRIES * ENTRY.size:
                break

    def _at(self, moment: float) -> float:
        """An entry that is overdue is a loss that is still going on."""
        place = bisect.bisect_left(self._moments, moment)
        if place < len(self._moments):
            return self._losses[place]
        return self._losses[-1] + max(0.0, moment - self._moments[-1] - 2 * REST)


def measure(output: int, parent: int) -> None:
    """Write moments and losses to one descriptor until the other is closed."""
    best = min(piece() for _ in range(100))
    ended, lost = time.monotonic(), 0.0
    while not select.select([parent], [], [], REST)[0]:
        times = [piece() for _ in range(PIECES)]
        best = min(best, *times)
        now, took, usual = time.monotonic(), sum(times), best * PIECES
        # It woke up late, it worked slowly, and a process that had work to do in the rest would have been as slow.
        lost += max(0.0, now - ended - took - REST) + (took - usual) + REST * (1 - usual / took)
        ended = now
        os.write(output, ENTRY.pack(now, lost))


def piece() -> float:
    """Do a piece of the work; the seconds that it took."""
    began = time.monotonic()
    sum(range(PIECE))
    return time.monotonic() - began


_gauges: list[Gauge] = []


def _gauge() -> Gauge:
    if not _gauges:
        _gauges.append(Gauge())
    return _gauges[0]


def now() -> float:
    """The moment from which a promise runs."""
    _gauge()
    return time.monotonic()


def pid() -> int:
    """Of the process that measures, which is a child of this one."""
    return _gauge().pid


def lost(since: float, until: float | None = None) -> float:
    """Seconds that the machine lost between two moments, the second of which is now unless it is given."""
    return _gauge().lost(since, time.monotonic() if until is None else until)


def kept(promise: float, since: float, what: str, until: float | None = None) -> None:
    """The promise to do something within so many seconds was kept, or nearly. Raises ``AssertionError`` if not."""
    end = time.monotonic() if until is None else until
    late = lost(since, end)
    assert end - since - late <= TOLERANCE * promise, (
        f"{what} after {end - since:.2f} s, of which the machine lost {late:.2f} s; promised within {promise:g} s"
    )


if __name__ == "__main__":
    measure(1, 0)
