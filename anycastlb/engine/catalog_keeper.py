"""Have the catalog in force saved on disk: the first change a moment later, those that follow it together.

It is written beside everything else, in a thread, so that a slow disk delays no change; and a moment behind a
change, since the thread would take the processor from what the change asks for. If the disk does not have it yet, it is
also written when the source goes away, which is when the next start would need it, and when the daemon ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from anycastlb.adapters.sources.cache import CatalogCache
from anycastlb.adapters.system.clock import Offload
from anycastlb.core.model import Catalog, SourceError, Tree

BEHIND = 0.1
"""Seconds behind a change: most have come to the machine by then."""
PAUSE = 1.0
"""Seconds between two writes, at least. The whole catalog is written each time."""


class CatalogKeeper:
    """``remember`` is told of every catalog; ``run`` writes. ``report`` is told why it could not, once a reason."""

    def __init__(self, cache: CatalogCache, report: Callable[[str], None], offload: Offload) -> None:
        self._cache, self._report, self._offload = cache, report, offload
        self._unsaved: Catalog | None = None
        """The catalog in force, while it is not on disk."""
        self._news = asyncio.Event()
        self._error = ""

    def remember(self, catalog: Catalog) -> None:
        """This catalog is in force."""
        saved = self._cache.has(catalog.good, catalog.instances) and not self._error
        self._unsaved = None if saved else catalog
        if not saved:
            self._news.set()

    async def run(self) -> None:
        """Write until cancelled, and what is left then."""
        try:
            while True:
                await self._news.wait()
                await asyncio.sleep(BEHIND)
                self._news.clear()
                await self.flush()
                await asyncio.sleep(PAUSE)
        finally:
            if (last := self._unsaved) is not None:
                self._ended(last, self.save(last))

    async def flush(self) -> None:
        """Return when the disk has the catalog in force, or cannot take it."""
        if (catalog := self._unsaved) is not None:
            self._ended(catalog, await self._offload(self.save, catalog))

    def save(self, catalog: Catalog) -> str:
        """What went wrong, empty if nothing did. Blocks."""
        try:
            self._cache.save(Tree(catalog.good, catalog.index), catalog.instances)
        except SourceError as exc:
            return str(exc)
        return ""

    def _ended(self, catalog: Catalog, error: str) -> None:
        if not error and self._unsaved is catalog:
            self._unsaved = None
        if error and error != self._error:
            self._report(error)
        self._error = error
