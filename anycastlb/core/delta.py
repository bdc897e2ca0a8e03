"""What differs between two tables, found by identity first.

Most of what one decision makes is what the last one has made: the same objects, in the same order. So two tables are
walked side by side, and only what is not the same object is looked at. Pure.

Decision record: docs/decisions/0014-incremental-brain.md.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from dataclasses import dataclass
from itertools import compress
from operator import is_not
from typing import Any, Generic, TypeVar
from weakref import ref

from anycastlb.core.identity import same_objects

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Delta(Generic[K]):
    """The keys whose rows are not the same object in both tables, or may not stand at the same place."""

    keys: tuple[K, ...] = ()
    aligned: bool = True
    """Both tables have the same keys in the same order."""


NONE: Delta[Any] = Delta()
SHARE = 8
"""An edited table holds at most one row of so many beside the table that it refers to: each edit copies them."""


class Edited(Mapping[K, V]):
    """A table with the same keys as another one in the same order, and other rows for some of them.

    It refers to that table and holds its own rows beside it: a copy of 100,000 rows would take two milliseconds and
    five megabytes. It knows which rows are other ones there, so that nobody has to walk through both to find that out.
    Whoever asks for all rows, and not for all keys, has them put together once.
    """

    __slots__ = ("__weakref__", "_before", "_keys", "parts")

    def __init__(self, before: Mapping[K, V], rows: Mapping[K, V]) -> None:
        """``rows``: the new rows of keys that ``before`` has. Nobody may change either of the two any more."""
        whole, beside = _parts(before)
        beside = {**beside, **rows}
        few = len(beside) * SHARE <= len(whole)
        self.parts: tuple[Mapping[K, V], Mapping[K, V]] = (whole, beside) if few else ({**whole, **beside}, {})
        """The table that it refers to, and the rows beside it."""
        self._before = ref(before) if isinstance(before, Edited) else None
        self._keys = tuple(key for key, row in rows.items() if before[key] is not row)

    def since(self, table: Mapping[K, V]) -> Delta[K] | None:
        """Where it differs from that table, if it was made of it."""
        return Delta(self._keys) if self._before is not None and self._before() is table else None

    def whole(self) -> Mapping[K, V]:
        """The same table in one piece."""
        whole, beside = self.parts
        if beside:
            whole = {**whole, **beside}
            self.parts = whole, {}
        return whole

    def __getitem__(self, key: K) -> V:
        whole, beside = self.parts
        return beside[key] if key in beside else whole[key]

    def get(self, key: K, default: Any = None) -> Any:
        whole, beside = self.parts
        return beside[key] if key in beside else whole.get(key, default)

    def __contains__(self, key: object) -> bool:
        return key in self.parts[0]

    def __len__(self) -> int:
        return len(self.parts[0])

    def __iter__(self) -> Iterator[K]:
        return iter(self.parts[0])

    def keys(self) -> KeysView[K]:
        return self.parts[0].keys()

    def values(self) -> ValuesView[V]:
        return self.whole().values()

    def items(self) -> ItemsView[K, V]:
        return self.whole().items()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        (whole, some), (as_well, others) = self.parts, _parts(other)
        if whole is as_well:
            return all(self[key] == other[key] for key in {**some, **others})
        return self.whole() == in_one_piece(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self.whole())


def in_one_piece(table: Mapping[K, V]) -> Mapping[K, V]:
    """The same table, fit to be copied or walked through: ``dict`` takes another mapping key by key."""
    return table.whole() if isinstance(table, Edited) else table


def _parts(table: Mapping[K, V]) -> tuple[Mapping[K, V], Mapping[K, V]]:
    """A table, and the rows that stand beside it for those of its own."""
    return table.parts if isinstance(table, Edited) else (table, {})


def delta(old: Mapping[K, V], new: Mapping[K, V]) -> Delta[K]:
    """Where two tables differ. Rows that are equal, but not the same object, may be among it."""
    if old is new:
        return NONE
    if isinstance(new, Edited) and (known := new.since(old)) is not None:
        return known
    (whole, some), (as_well, others) = _parts(old), _parts(new)
    if whole is as_well:
        return Delta(tuple(key for key in {**some, **others} if old[key] is not new[key]))
    if same_objects(old, new):
        return Delta(tuple(compress(new, map(is_not, old.values(), new.values()))))
    before, after = list(old), list(new)
    start, end = _alike(before, after), _alike(reversed(before), reversed(after))
    moved = (*after[start : len(after) - end], *before[start : len(before) - end])
    rows = list(map(is_not, [*old.values()][:start], new.values()))
    tail = list(map(is_not, [*old.values()][len(before) - end :], [*new.values()][len(after) - end :]))
    changed = (*compress(after, rows), *compress(after[len(after) - end :], tail))
    return Delta(tuple(dict.fromkeys((*moved, *changed))), aligned=False)


def _alike(one: Iterable[K], other: Iterable[K]) -> int:
    """With how many of the same objects both begin."""
    count = 0
    for a, b in zip(one, other, strict=False):
        if a is not b:
            break
        count += 1
    return count


def shared(old: Mapping[K, V], new: Mapping[K, V]) -> Mapping[K, V]:
    """The newer table, made of the older one's objects as far as they are equal: all of it, if it is equal."""
    if old is new or not new or not old:
        return new if old or new else old
    names, absent = {key: key for key in old}, object()
    kept = {
        names.get(key, key): row if (before := old.get(key, absent)) is row or before != row else before
        for key, row in new.items()
    }
    return old if same_objects(old, kept) and same_objects(old.values(), kept.values()) else kept
