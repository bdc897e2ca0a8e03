"""As much of a daemon as writes to the kernel, cycle by cycle: the real drivers, decisions and plans, no BGP."""

from __future__ import annotations

import json
from typing import Any

from anycastlb.adapters.checks import PARAMS
from anycastlb.adapters.drivers.saved_settings import Restorable, SavedSettings
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.catalog.parse import parse_catalog
from anycastlb.core.model import Catalog, CheckState, Entry, Inputs, Policy, Result, Tree
from anycastlb.engine.inbox import Inbox
from anycastlb.engine.machine import Machine
from anycastlb.engine.node import checks
from anycastlb.engine.parts import kernel_settings, make_drivers
from anycastlb.engine.reconciler import Reconciler
from anycastlb.settings import Settings
from tests.support.world import MemoryAnnouncer


class Daemon:
    """In the calling thread's network namespace. Every backend of its catalog counts as up."""

    def __init__(self, config: Settings) -> None:
        self.complaints: list[str] = []
        self._settings = config
        sysctls, timeouts, addresses, self.ipvs = make_drivers(config)
        self.ipvs.open()
        self.originals = SavedSettings(config.node.state_dir, lambda what, mend: self.complaints.append(what))
        if not config.ipvs.manage_sysctls:
            self.originals.drop()
        drivers = (Restorable(sysctls, self.originals), Restorable(timeouts, self.originals), addresses, self.ipvs)
        self.inbox = Inbox(Inputs(Policy(**kernel_settings(config)), originals=self.originals.rows))
        self._tables = {table for driver in drivers for table in driver.tables}
        machine = Machine(drivers, MemoryAnnouncer(), originals=lambda: self.originals.rows)
        self.reconciler = Reconciler(self.inbox, machine, Journal(), 0.1)

    def want(self, **documents: Any) -> None:
        """Follow a catalog of these services."""
        tree = Tree({f"services/{name}": Entry(json.dumps(doc).encode()) for name, doc in documents.items()})
        catalog: Catalog = parse_catalog(tree, Catalog(), self._settings.node.vip_ranges, (), PARAMS)
        assert not catalog.problems
        up = CheckState(up=True, last=Result(True, "assumed up", 0.0, 0.0))
        self.inbox.put(catalog=catalog, health=dict.fromkeys(checks(catalog), up))

    async def cycle(self) -> list[str]:
        """One cycle, which looks at the whole kernel as if ``resync`` were over; what failed in it."""
        self.inbox.stale |= self._tables
        await self.reconciler.cycle()
        return [failure.reason.text for failure in self.reconciler.snapshot.failures]

    def die(self) -> None:
        """As by kill -9, and as by a handover: nobody tidies up."""
        self.ipvs.close()

    async def stop(self) -> None:
        """As by SIGTERM: runs until nothing is left."""
        self.inbox.put(stopping=True)
        await self.reconciler.run()
        self.ipvs.close()
