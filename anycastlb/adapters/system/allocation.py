"""Have the C library give large blocks of memory back to the system as soon as they are freed, and keep smaller ones.

It does the first by itself, but each large block that is freed raises the size from which it does, up to 32 MB: after a
few answers of 18 MB it keeps what they were made in. A size that is set is not raised, and then the rest has to be set
too: otherwise each table that a decision copies, of some hundred kilobytes, would be given back and asked for again,
and each of its pages would be a fault.

All threads share one heap: one of them runs at a time anyway, and what one has freed is used by the next.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress

TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8
"""The parameters' numbers in mallopt(3)."""
LARGE = 4 * 1024 * 1024
"""Bytes from which a block is a mapping of its own. A table of 10,000 rows takes about 600 kB, one of 60,000 3 MB."""
KEPT = 16 * 1024 * 1024
"""Bytes that stay with the process when they are free: more than one decision about 10,000 backends takes."""


def return_large_blocks() -> None:
    """From now on, in this process. Other C libraries than glibc have no such parameters, and nothing is done."""
    with suppress(AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(MMAP_THRESHOLD, LARGE)
        library.mallopt(TRIM_THRESHOLD, KEPT)
        library.mallopt(ARENA_MAX, 1)


def return_unused() -> None:
    """Give back what is free below the rest of the heap too, as after a proof of a decision. It takes half a
    millisecond, and what is needed again is a fault for each page: do it once in a while."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
