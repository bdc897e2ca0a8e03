"""Decode Consul's list of keys and values, and decode only what is new in it.

Of a list that is read again and again most items are the same text as before. Such an item, whose ``ModifyIndex`` is
part of it, is not decoded again and yields the same ``Entry``. It blocks for some milliseconds for each thousand new
items, so it is called in a thread; it holds the interpreter for no longer than one item.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from anycastlb.core.model import Entry, SourceError

Row = tuple[str, Entry]
BAD = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What decoding something else than Consul's list can raise."""


class KeyList:
    """The decoder of the lists below one prefix. ``decode`` may be called from any thread."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._known: dict[bytes, Row] = {}
        """The items of the last list as they were written there."""

    def decode(self, body: bytes) -> dict[str, Entry]:
        """The entries by key, without the prefix. Raises ``SourceError``."""
        try:
            rows = self._by_item(body) if body.startswith(b"[{") else None
            return dict(self._row(item) for item in json.loads(body)) if rows is None else rows
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
            row = known.get(piece)
            if row is None:
                try:
                    item = json.loads(b"{%b}" % piece)
                except ValueError:
                    return None
                row = self._row(item)
            items[piece] = row
        self._known = items
        return dict(items.values())

    def _row(self, item: dict[str, Any]) -> Row:
        key, value = item["Key"], item["Value"]
        if not key.startswith(self._prefix):
            raise ValueError(f"the key {key!r:.100} is not below {self._prefix!r}")
        raw = b"" if value is None else base64.b64decode(value)
        return key.removeprefix(self._prefix), Entry(
            raw, created=int(item["CreateIndex"]), version=str(int(item["ModifyIndex"]))
        )
