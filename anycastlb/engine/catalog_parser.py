"""Parse trees beside the event loop, with this node's settings and the instances of now."""

from __future__ import annotations

from collections.abc import Callable

from anycastlb.adapters.discovery.watch import Watches
from anycastlb.adapters.system.clock import Offload
from anycastlb.core.catalog.check import CheckTypes
from anycastlb.core.catalog.memory import CatalogMemory
from anycastlb.core.catalog.parse import parse_catalog
from anycastlb.core.model import Catalog, Tree
from anycastlb.engine.catalog_events import CatalogEvents
from anycastlb.settings.node import NodeSettings


class CatalogParser:
    """It remembers what it has read, so that only what has changed is read anew."""

    def __init__(
        self,
        node: NodeSettings,
        check_types: CheckTypes,
        watches: Watches,
        certificates: Callable[[], frozenset[str] | None],
        events: CatalogEvents,
        offload: Offload,
    ) -> None:
        """``certificates``: the names of those that the node has; None if gateways need none here."""
        self._node, self._check_types, self._watches, self._events = node, check_types, watches, events
        self._certificates, self._offload = certificates, offload
        self._memory = CatalogMemory()

    async def parse(self, tree: Tree, previous: Catalog) -> Catalog | None:
        """The catalog in a tree, falling back on ``previous``. None: a fault of ours, which is reported.

        A fault in a parser must not stop a node that serves.
        """
        try:
            return await self._offload(
                parse_catalog,
                tree,
                previous,
                self._node.vip_ranges,
                self._node.fwmark_ranges,
                self._check_types,
                self._watches.instances,
                self._memory,
                self._certificates(),
            )
        except Exception as exc:
            text = f"catalog {tree.index} is ignored, please report: {exc!r:.500}"
            self._events.emit("unparsed", text, level="error")
            return None
