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
blocks = [b"x" * 17_000_000 for _ in range(3)]
last = b"x" * 17_000_000  # what lies behind them
blocks.clear()
print(resident() - before)
"""


def kept(how: str) -> int:
    """Kilobytes that stay resident of 51 MB that were freed."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_what_was_freed_is_not_kept() -> None:
    assert kept("set") < 25_000, "17 MB are still in use"
    assert kept("leave") > 50_000, "the C library gives it back by itself: this module is not needed any more"


HOLES = """
import sys
from anycastlb.adapters.system.allocation import UnusedMemory, return_large_blocks

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4

return_large_blocks()
unused = UnusedMemory()
for count in map(int, sys.argv[1:]):
    before = resident()
    blocks = [b"x" * 500_000 for _ in range(count)]
    last = b"x" * 500_000  # what lies behind them
    blocks.clear()
    free = resident() - before
    print(free, int(unused.give_back()), resident() - before)
"""


def given_back(*blocks: int) -> list[tuple[int, bool, int]]:
    """Kilobytes that were free, whether anything was given back of them, and how many stayed resident; after each time
    in which so many blocks of half a megabyte were used, and freed below the rest of the heap."""
    command = [sys.executable, "-c", HOLES, *map(str, blocks)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    return [(free, bool(given), kept) for free, given, kept in rows]


def test_what_is_free_below_the_rest_of_the_heap_is_given_back_once_it_is_much() -> None:
    [(free, given, kept)] = given_back(60)
    assert free > 25_000 and given and kept < 5_000


def test_what_the_next_change_needs_is_kept() -> None:
    [(free, given, kept)] = given_back(20)
    assert free > 8_000 and not given and kept > 8_000


def test_what_was_given_back_counts_only_once_it_is_used_again() -> None:
    first, small, large = given_back(60, 20, 60)
    assert first[1] and not small[1] and large[1]
