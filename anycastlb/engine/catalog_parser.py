"""Parse trees beside the event loop, with this node's settings and the instances of now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from anycastlb.adapters.discovery.memory import nowhere
from anycastlb.adapters.discovery.watch import Kinds, Watches
from anycastlb.adapters.sources import Source
from anycastlb.adapters.system.clock import Offload
from anycastlb.core.catalog.check import CheckTypes
from anycastlb.core.catalog.discovery import Instances
from anycastlb.core.catalog.memory import CatalogMemory
from anycastlb.core.catalog.parse import parse_catalog
from anycastlb.core.model import Catalog, Tree
from anycastlb.engine.catalog_events import CatalogEvents
from anycastlb.settings.node import NodeSettings


@dataclass(frozen=True)
class CatalogParts:
    """Where a catalog is read, and what is needed to understand it."""

    source: Source
    check_types: CheckTypes
    kinds: Kinds = nowhere
    """How the discoveries that it asks for are made."""
    patience: float = 2.0
    """Seconds that the source gets at start before the saved catalog is used instead of it, and that the discoveries
    get before the catalog is used without them."""
    certificates: Callable[[], frozenset[str] | None] = lambda: None
    """The names of the certificates that the node has; None if gateways need none here."""
    prepare: Callable[[Catalog], object] = lambda catalog: None
    """Is called with each catalog that was read, in the thread that has read it."""


class CatalogParser:
    """It remembers what it has read, so that only what has changed is read anew."""

    def __init__(
        self, node: NodeSettings, parts: CatalogParts, watches: Watches, events: CatalogEvents, offload: Offload
    ) -> None:
        self._node, self._parts, self._watches, self._events = node, parts, watches, events
        self._offload = offload
        self._memory = CatalogMemory()

    async def parse(self, tree: Tree, previous: Catalog) -> Catalog | None:
        """The catalog in a tree, falling back on ``previous``, with all that its use needs made ready.

        None: a fault of ours, which is reported. A fault in a parser must not stop a node that serves.
        """
        try:
            return await self._offload(self._parse, tree, previous, self._watches.instances, self._parts.certificates())
        except Exception as exc:
            text = f"catalog {tree.index} is ignored, please report: {exc!r:.500}"
            self._events.emit("unparsed", text, level="error")
            return None

    def _parse(
        self, tree: Tree, previous: Catalog, instances: Instances, certificates: frozenset[str] | None
    ) -> Catalog:
        """Runs in a thread."""
        ranges = self._node.vip_ranges, self._node.fwmark_ranges
        catalog = parse_catalog(tree, previous, *ranges, self._parts.check_types, instances, self._memory, certificates)
        self._parts.prepare(catalog)
        return catalog
