"""Writing the catalog in Consul's key-value store: compare-and-set, all keys in one transaction."""

from __future__ import annotations

from collections.abc import Sequence

from anycastlb.model import Edit, SourceError, Tree
from anycastlb.settings import ConsulSettings
from anycastlb.sources.consul import ConsulSource


class ConsulStore:
    def __init__(self, settings: ConsulSettings) -> None:
        self._source = ConsulSource(settings)

    async def load(self) -> Tree:
        return await self._source.read(None)

    async def commit(self, edits: Sequence[Edit]) -> None:
        raise SourceError("writing to Consul is not built yet")

    async def close(self) -> None:
        await self._source.close()
