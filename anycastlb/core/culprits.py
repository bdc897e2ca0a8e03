"""Find which of many a fault of ours is about, where it has ended the work on all of them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def culprits(items: Sequence[T], works: Callable[[Sequence[T]], bool]) -> list[T]:
    """The items that do not work, each by itself; found by halving, at the cost of some runs over all of them.

    It is empty if all work, and also if none can be blamed alone: whoever asks tries again without the culprits.
    """
    if not items or works(items):
        return []
    if len(items) == 1:
        return list(items)
    middle = len(items) // 2
    return [*culprits(items[:middle], works), *culprits(items[middle:], works)]
