"""What differs between two tables, found by identity first.

Most of what one decision makes is what the last one has made: the same objects, in the same order. So two tables are
walked side by side, and only what is not the same object is looked at. Pure.

Decision record: docs/decisions/0014-incremental-brain.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import compress
from operator import is_, is_not
from typing import Any, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")
_ABSENT: Any = object()


@dataclass(frozen=True, slots=True)
class Delta(Generic[K]):
    """The keys whose rows are not the same object in both tables."""

    keys: tuple[K, ...] = ()
    """Those of the newer table in its order, and then those that only the older one has."""
    aligned: bool = True
    """Both tables have the same keys in the same order."""


NONE: Delta[Any] = Delta()


def delta(old: Mapping[K, V], new: Mapping[K, V]) -> Delta[K]:
    """Where two tables differ. Two rows that are equal, but not the same object, may be among them."""
    if old is new:
        return NONE
    if same_keys(old, new):
        return Delta(tuple(compress(new, map(is_not, old.values(), new.values()))))
    changed = [key for key, row in new.items() if old.get(key, _ABSENT) is not row]
    gone = [key for key in old if key not in new]
    return Delta((*changed, *gone), aligned=False)


def same_keys(old: Mapping[K, V], new: Mapping[K, V]) -> bool:
    """Do both tables have the same objects as keys, in the same order?"""
    return len(old) == len(new) and all(map(is_, old, new))


def shared(old: Mapping[K, V], new: Mapping[K, V]) -> Mapping[K, V]:
    """The newer table, made of the older one's objects as far as they are equal: all of it, if it is equal."""
    if old is new or not new or not old:
        return new if old or new else old
    names = {key: key for key in old}
    kept = {
        names.get(key, key): before if (before := old.get(key, _ABSENT)) == row else row for key, row in new.items()
    }
    return old if same_keys(old, kept) and all(map(is_, old.values(), kept.values())) else kept
