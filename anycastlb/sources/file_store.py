"""Writing the catalog in a directory: every document replaced whole, by renaming."""

from __future__ import annotations

from collections.abc import Sequence

from anycastlb.model import Edit, SourceError, Tree
from anycastlb.sources.file import FileSource


class FileStore:
    def __init__(self, path: str) -> None:
        self._source = FileSource(path)

    async def load(self) -> Tree:
        return await self._source.read(None)

    async def commit(self, edits: Sequence[Edit]) -> None:
        raise SourceError("writing to files is not built yet")

    async def close(self) -> None:
        await self._source.close()
