"""Whether what was made the last time still stands: it does while it was made of the same objects. Pure."""

from __future__ import annotations

from collections.abc import Collection
from operator import is_


def same_objects(before: Collection[object], now: Collection[object]) -> bool:
    """Are they the same objects, in the same order? Of a mapping, its keys."""
    return len(before) == len(now) and all(map(is_, before, now))
