"""Decode Consul's list of keys and values, and decode only what is new in it.

Of a list that is read again and again most items are the same text as before. Such an item, whose ``ModifyIndex`` is
part of it, is not decoded again and yields the same ``Entry``. It blocks for some milliseconds for each thousand new
items, so it is called in a thread; it holds the interpreter for no longer than one item.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from anycastlb.core.delta import Edited
from anycastlb.core.model import Entry, SourceError

Row = tuple[str, Entry] | None
BORDER = b"},{"
MANY, SMALL = 10_000, 16 * 1024
"""Items that are compared, and bytes that are decoded, within some milliseconds."""
BAD = (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError)
"""What decoding something else than Consul's list can raise."""


class KeyList:
    """The decoder of the lists below one prefix, for the keys that are ``wanted``, which are given without the prefix.

    ``decode`` may be called from any thread.
    """

    def __init__(self, prefix: str, wanted: Callable[[str], bool] = lambda key: True) -> None:
        self._prefix, self._wanted = prefix, wanted
        self._last: tuple[list[bytes], list[Row]] = [], []
        """The last list, cut behind each border between two items, and what each stands for; None: it is not wanted."""
        self._entries: Mapping[str, Entry] = {}
        """What the last list has yielded."""
        self._unique = True
        """It had no key twice."""

    def at_once(self, body: bytes) -> Mapping[str, Entry] | None:
        """What ``decode`` yields, if that takes no more than some milliseconds, so that no thread is worth it; None if
        it may take more. Raises ``SourceError``."""
        with _of_keys():
            return self._by_item(body, SMALL) if 0 < len(self._last[0]) <= MANY else None

    def decode(self, body: bytes) -> Mapping[str, Entry]:
        """The entries by key, without the prefix. Raises ``SourceError``."""
        with _of_keys():
            rows = self._by_item(body)
            return self._whole(json.loads(body)) if rows is None else rows

    def _by_item(self, body: bytes, most: int | None = None) -> Mapping[str, Entry] | None:
        """None if the list cannot be taken apart at the borders of its items, or more than ``most`` bytes are new.

        Consul puts nothing between them. A key that holds such a border leaves two pieces that are no JSON: a string
        is open at the end of the first.
        """
        body = body.rstrip()
        if not body.startswith(b"[{") or not body.endswith(b"}]"):
            return None
        before, rows = self._last
        first, after, middle = _difference(before, body)
        if most is not None and len(middle) > most:
            return None
        *whole, last = middle.split(BORDER)
        pieces = [*(piece + BORDER for piece in whole), *([last] if last else [])]
        known = dict(zip(before[first:after], rows[first:after], strict=True))
        try:
            new = [known[piece] if piece in known else self._row(_item(piece)) for piece in pieces]
        except ValueError:
            return None
        old = list(filter(None, rows[first:after]))
        new = _with_keys_of(old, new)
        now = list(filter(None, new))
        pieces, rows = [*before[:first], *pieces, *before[after:]], [*rows[:first], *new, *rows[after:]]
        if self._unique and [name for name, _ in old] == [name for name, _ in now]:
            edited = {name: entry for name, entry in now if self._entries[name] is not entry}
            self._entries = Edited(self._entries, edited) if edited else self._entries
        else:
            self._entries = dict(filter(None, rows))
            self._unique = len(self._entries) == len(rows) - rows.count(None)
        self._last = pieces, rows
        return self._entries

    def _whole(self, items: Any) -> dict[str, Entry]:
        if not isinstance(items, list):
            raise TypeError(f"it is {items!r:.50}")
        return dict(filter(None, map(self._row, items)))

    def _row(self, item: dict[str, Any]) -> Row:
        key, value = item["Key"], item["Value"]
        if not key.startswith(self._prefix):
            raise ValueError(f"the key {key!r:.100} is not below {self._prefix!r}")
        raw = b"" if value is None else base64.b64decode(value)
        entry = Entry(raw, created=int(item["CreateIndex"]), version=str(int(item["ModifyIndex"])))
        name = key.removeprefix(self._prefix)
        return (name, entry) if self._wanted(name) else None


@contextmanager
def _of_keys() -> Iterator[None]:
    """Raises ``SourceError`` for what cannot be decoded in this block."""
    try:
        yield
    except BAD as exc:
        raise SourceError(f"Consul answered a list that is not one of keys: {exc!r:.200}") from exc


def _with_keys_of(old: Sequence[tuple[str, Entry]], new: Iterable[Row]) -> list[Row]:
    """The new rows, with the very keys of the old ones: who compares two tables by identity sees what has changed."""
    names = {name: name for name, _ in old}
    return [row if row is None else (names.get(row[0], row[0]), row[1]) for row in new]


def _difference(pieces: list[bytes], body: bytes) -> tuple[int, int, bytes]:
    """A list begins with the pieces up to the first number, and ends with those from the second number on; and what is
    between them. Most of a list is as it was, and is not copied."""
    start, end = len(b"[{"), len(body)
    first, after = 0, len(pieces)
    while first < after and body.startswith(pieces[first], start, end):
        start += len(pieces[first])
        first += 1
    while after > first and body.endswith(pieces[after - 1], start, end):
        after -= 1
        end -= len(pieces[after])
    return first, after, body[start:end]


def _item(piece: bytes) -> Any:
    """The item in a piece, which lacks its first brace and goes on to the next item's or the end of the list. Raises
    ``ValueError``."""
    return json.loads(b"{" + piece[: piece.rindex(b"}") + 1])
