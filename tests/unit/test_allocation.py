"""What large answers were made in goes back to the system."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
from anycastlb.adapters.system.allocation import return_large_blocks

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4

if sys.argv[1] == "set":
    return_large_blocks()
bytearray(b"x") * 20_000_000  # once a block of this size is freed, the C library keeps smaller ones
before = resident()
blocks = [b"x" * 5_000_000 for _ in range(8)]
last = b"x" * 5_000_000  # what lies behind them
blocks.clear()
print(resident() - before)
"""


def kept(how: str) -> int:
    """Kilobytes that stay resident of 40 MB that were freed."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_what_was_freed_is_not_kept() -> None:
    assert kept("set") < 10_000
    assert kept("leave") > 30_000, "the C library gives it back by itself: this module is not needed any more"


HOLES = """
from anycastlb.adapters.system.allocation import return_large_blocks, return_unused

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4

return_large_blocks()
before = resident()
blocks = [b"x" * 500_000 for _ in range(40)]
last = b"x" * 500_000  # what lies behind them
blocks.clear()
free = resident() - before
return_unused()
print(free, resident() - before)
"""


def test_what_is_free_below_the_rest_of_the_heap_is_given_back_once_in_a_while() -> None:
    done = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, check=True)
    free, kept = map(int, done.stdout.split())
    assert free > 15_000 and kept < 5_000
