"""Decode Consul's list of keys and values, and decode only what is new in it.

Of a list that is read again and again most items are the same text as before. Such an item, whose ``ModifyIndex`` is
part of it, is not decoded again and yields the same ``Entry``. It blocks for some milliseconds for each thousand new
items, so it is called in a thread; it holds the interpreter for no longer than one item.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

from anycastlb.core.model import Entry, SourceError

Row = tuple[str, Entry] | None
BAD = (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError)
"""What decoding something else than Consul's list can raise."""


class KeyList:
    """The decoder of the lists below one prefix, for the keys that are ``wanted``, which are given without the prefix.

    ``decode`` may be called from any thread.
    """

    def __init__(self, prefix: str, wanted: Callable[[str], bool] = lambda key: True) -> None:
        self._prefix, self._wanted = prefix, wanted
        self._known: dict[bytes, Row] = {}
        """The items of the last list as they were written there; None for what is not wanted."""

    def decode(self, body: bytes) -> dict[str, Entry]:
        """The entries by key, without the prefix. Raises ``SourceError``."""
        try:
            rows = self._by_item(body) if body.startswith(b"[{") else None
            return self._whole(json.loads(body)) if rows is None else rows
        except BAD as exc:
            raise SourceError(f"Consul answered a list that is not one of keys: {exc!r:.200}") from exc

    def _by_item(self, body: bytes) -> dict[str, Entry] | None:
        """None if the list cannot be taken apart at the borders of its items.

        Consul puts nothing between them. A key that holds such a border leaves two pieces that are no JSON: a string
        is open at the end of the first.
        """
        text = body.strip()
        if not text.endswith(b"}]"):
            return None
        known, items = self._known, {}
        for piece in text[2:-2].split(b"},{"):
            if piece in known:
                items[piece] = known[piece]
                continue
            try:
                item = json.loads(b"{%b}" % piece)
            except ValueError:
                return None
            items[piece] = self._row(item)
        self._known = items
        return dict(filter(None, items.values()))

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
