"""The catalog in memory: the fake source and store, which tests can make fail. It passes the contract tests of the real
ones."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import MappingProxyType

from anycastlb.adapters.sources import staging
from anycastlb.core.model import Edit, Entry, SourceError, Tree


class MemorySource:
    """A tree that tests write to. Every method may be called at any time on the loop's thread."""

    def __init__(self, **entries: str | bytes) -> None:
        self._entries: dict[str, Entry] = {}
        self._index = 0
        self._error = ""
        self._changed = asyncio.Event()
        self.reads = 0
        """How often a tree was asked for."""
        self.closed = False
        for key, value in entries.items():
            self.put(key, value)

    def put(self, key: str, value: str | bytes) -> None:
        self._index += 1
        before = self._entries.get(key)
        raw = value.encode() if isinstance(value, str) else value
        self._entries[key] = Entry(raw, before.created if before else self._index, version=str(self._index))
        self._wake()

    def delete(self, key: str) -> None:
        self._index += 1
        del self._entries[key]
        self._wake()

    def fail(self, error: str = "the source is down") -> None:
        """From now on every read fails, waiting ones too."""
        self._error = error
        self._wake()

    def heal(self) -> None:
        self._error = ""

    async def read(self, after: Tree | None) -> Tree:
        self.reads += 1
        while True:
            changed = self._changed
            if self._error:
                raise SourceError(self._error)
            if after is None or self._entries != after.entries:
                return Tree(MappingProxyType(dict(self._entries)), self._index)
            await changed.wait()

    async def load(self) -> Tree:
        return await self.read(None)

    async def commit(self, edits: Sequence[Edit], judged: Tree | None = None) -> None:
        if self._error:
            raise SourceError(self._error)
        staging.checked(edits)
        if edits and judged is not None:
            staging.unchanged(judged.entries, self._entries)
        for edit in staging.settled(edits, self._entries):
            if edit.value is not None:
                self.put(edit.key, edit.value)
            elif edit.key in self._entries:
                self.delete(edit.key)

    async def close(self) -> None:
        self.closed = True

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
