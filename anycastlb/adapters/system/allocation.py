"""Have the C library give large blocks of memory back to the system as soon as they are freed, and keep smaller ones.

It does the first by itself, but each large block that is freed raises the size from which it does, up to 32 MB: after a
few answers of 18 MB it keeps what they were made in. A size that is set is not raised, and then the rest has to be set
too: otherwise each table that a decision makes, of some hundred kilobytes, would be given back and asked for again,
and each of its pages would be a fault.

All threads share one heap: one of them runs at a time anyway, and what one has freed is used by the next.
"""

from __future__ import annotations

import ctypes
import resource
from contextlib import suppress
from pathlib import Path

TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8
"""The parameters' numbers in mallopt(3)."""
LARGE = 16 * 1024 * 1024
"""Bytes from which a block is a mapping of its own. A table of 10,000 rows takes about 600 kB, one of 100,000 5 MB, and
Consul's answer with 10,000 services of ten backends 12 MB."""
AT_THE_END = 64 * 1024 * 1024
"""Bytes at the end of the heap that are not given back as soon as they are free: more than one decision about 10,000
services of ten backends takes."""
KEPT, SHARE = 16 * 1024 * 1024, 8
"""Bytes that stay with the process when they are free, wherever they are; and one of so many that are resident."""


def return_large_blocks() -> None:
    """From now on, in this process. Other C libraries than glibc have no such parameters, and nothing is done."""
    with suppress(AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(MMAP_THRESHOLD, LARGE)
        library.mallopt(TRIM_THRESHOLD, AT_THE_END)
        library.mallopt(ARENA_MAX, 1)


class UnusedMemory:
    """What is free below the rest of the heap, as after a proof of a decision.

    Each page that is given back is a fault when it is needed again, and the next change needs what the last one has
    freed. So nothing is given back before there is more of it than is kept anyway.
    """

    def __init__(self) -> None:
        self._left: int | None = None
        """Bytes that were resident when some were given back last; None before the first time."""

    def give_back(self) -> bool:
        """Give back what is not used, if it is much: it takes some milliseconds then. False if it is not."""
        with suppress(AttributeError, OSError):
            library, resident = ctypes.CDLL(None), _resident()
            self._left = None if self._left is None else min(self._left, resident)
            unused = _free(library) if self._left is None else resident - self._left
            if unused > max(KEPT, resident // SHARE):
                library.malloc_trim(0)
                self._left = _resident()
                return True
        return False


class _Info(ctypes.Structure):
    """The result of mallinfo2(3)."""

    _fields_ = [
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks")),
        *((name, ctypes.c_size_t) for name in ("uordblks", "fordblks", "keepcost")),
    ]


def _free(library: ctypes.CDLL) -> int:
    """Bytes that are free in the heap, those that were given back among them."""
    library.mallinfo2.restype = _Info
    return int(library.mallinfo2().fordblks)


def _resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
