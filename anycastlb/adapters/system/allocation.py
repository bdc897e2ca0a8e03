"""Have the C library give large blocks of memory back to the system as soon as they are freed.

It does so at first, but each large block that is freed raises the size from which it does, up to 32 MB: after a few
answers of 18 MB it keeps what they were made in. A size that is set is not raised.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress

MMAP_THRESHOLD = -3
"""The parameter's number in mallopt(3)."""
LARGE = 512 * 1024
"""Bytes from which a block is a mapping of its own. To map one takes longer than to find a free one."""


def return_large_blocks() -> None:
    """From now on, in this process. Other C libraries than glibc have no such parameter, and nothing is done."""
    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, LARGE)
