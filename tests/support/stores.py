"""Places for a catalog, each with any number of writers and readers: in memory, a directory, a real Consul."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from anycastlb.adapters.sources import Source, Store
from anycastlb.adapters.sources.consul import ConsulSource
from anycastlb.adapters.sources.consul_store import ConsulStore
from anycastlb.adapters.sources.file import FileSource
from anycastlb.adapters.sources.file_store import FileStore
from anycastlb.adapters.sources.memory import MemorySource
from anycastlb.core.model import Edit
from anycastlb.settings import ConsulSettings

Open = Callable[[], Store]
"""Opens one more store over the same catalog."""


class World(Protocol):
    """A place with any number of stores and readers of it. ``where``: what another process needs to open it."""

    where: str

    def store(self) -> Store: ...
    def source(self) -> Source: ...


class MemoryWorld:
    where = ""

    def __init__(self) -> None:
        self._it = MemorySource()

    def store(self) -> Store:
        return self._it

    def source(self) -> Source:
        return self._it


class FileWorld:
    def __init__(self, root: Path) -> None:
        self.where = str(root)

    def store(self) -> Store:
        return FileStore(self.where)

    def source(self) -> Source:
        return FileSource(self.where)


class ConsulWorld:
    def __init__(self, address: str) -> None:
        self.where = address

    def store(self) -> Store:
        return ConsulStore(ConsulSettings(address=self.where, wait="2s"))

    def source(self) -> Source:
        return ConsulSource(ConsulSettings(address=self.where, wait="2s"))


def reopened(where: str) -> World:
    return ConsulWorld(where) if where.startswith("http") else FileWorld(Path(where))


def puts(count: int, value: str, expects: str | None = "") -> list[Edit]:
    return [Edit(f"services/s{n:04d}", f"{value} {n}".encode(), expects) for n in range(count)]


async def again(store: Store, count: int, value: str) -> list[Edit]:
    """The same keys, each with the version it has now."""
    entries = (await store.load()).entries
    return [Edit(e.key, e.value, entries[e.key].version) for e in puts(count, value)]
