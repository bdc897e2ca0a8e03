"""A node: every part wired to the others and run in one task group, the same for real parts and fakes.

Nothing is decided here, and nothing of the process is touched: no signal, no log handler, no file.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from anycastlb.adapters.checks import TYPES, CheckType
from anycastlb.adapters.checks.probe.path import find_path
from anycastlb.adapters.cluster import Alone, Identity, Registry
from anycastlb.adapters.cluster.members import Members
from anycastlb.adapters.cluster.status_document import moment
from anycastlb.adapters.discovery.memory import nowhere
from anycastlb.adapters.discovery.watch import Kinds
from anycastlb.adapters.drivers import Driver
from anycastlb.adapters.drivers.names.background import RecordDriver
from anycastlb.adapters.sources import Source
from anycastlb.adapters.system.journal import Journal
from anycastlb.adapters.system.timing import Timing
from anycastlb.core.decision import peer_health, probe_marks, service_names
from anycastlb.core.model import (
    Catalog,
    Check,
    Cluster,
    Decision,
    DrainRules,
    Feed,
    ForwardPath,
    Health,
    Inputs,
    ProbePath,
    Rows,
    Snapshot,
    SyncDaemon,
    Table,
)
from anycastlb.engine.follower import Follower, Offload
from anycastlb.engine.prober import Prober
from anycastlb.engine.reconciler import PULSE, Announcer, Counters, Inbox, Reconciler, Unused, none_of
from anycastlb.serving.metrics import Meters
from anycastlb.settings import Settings


class Node:
    """One node's parts, wired.

    ``probing_sysctls`` are those it must have too while a check goes through IPVS; ``probe_path`` finds how such a
    probe goes; ``first_probe_path`` is called once, when the first of them can run. ``config`` are the settings of IPVS
    it must have, ``cached_config`` those while connection entries are only caches, ``originals()`` what settings were
    before the drivers changed them. ``registry`` is where the nodes know of each other;
    ``instance`` tells this installation from another with the same name; ``started_wall``: when the process began.
    ``registrars`` write the names that ``settings`` ask for.
    """

    def __init__(
        self,
        settings: Settings,
        source: Source,
        drivers: Sequence[Driver],
        announcer: Announcer,
        journal: Journal,
        *,
        types: Mapping[str, CheckType] = TYPES,
        kinds: Kinds = nowhere,
        sysctls: Mapping[str, str] | None = None,
        pulse: Callable[[], None] = lambda: None,
        unused: Unused = none_of,
        counters: Counters | None = None,
        probing_sysctls: Mapping[str, str] | None = None,
        config: Mapping[str, int | SyncDaemon] | None = None,
        cached_config: Mapping[str, int] | None = None,
        originals: Callable[[], Mapping[Table, Rows]] = dict,
        probe_path: Callable[[ForwardPath, int], ProbePath] | None = None,
        first_probe_path: Callable[[], None] = lambda: None,
        registry: Registry | None = None,
        registrars: Sequence[RecordDriver] = (),
        instance: str = "",
        started_wall: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        offload: Offload = asyncio.to_thread,
    ) -> None:
        self.journal = journal
        self.meters = Meters()
        self.inbox = Inbox(
            Inputs(
                node=settings.node.name,
                sysctls=sysctls or {},
                probing_sysctls=probing_sysctls or {},
                config=config or {},
                cached_config=cached_config or {},
                originals=originals(),
                marks=settings.checks.marks,
                max_withdrawals=settings.cluster.max_withdrawals,
                leaving=drain_rules(settings),
                naming=settings.naming,
            )
        )
        probe_path = probe_path or partial(find_path, foreign=settings.node.vip_ranges)
        journal.observers.append(self.meters.observe_event)
        self.prober = Prober(
            types, self._health, journal, clock, probe_path=probe_path, observe=self.meters.observe_result
        )
        self.follower = Follower(
            source,
            settings,
            {name: kind.params for name, kind in types.items()},
            self._catalog,
            journal,
            clock,
            kinds=kinds,
            offload=offload,
            observe=self.meters.observe_read,
        )
        self.reconciler = Reconciler(
            self.inbox,
            (*drivers, *registrars),
            announcer,
            journal,
            settings.node.resync,
            on_cycle=self._cycled,
            pulse=pulse,
            unused=unused,
            originals=originals,
            counters=counters,
            registrars=lambda: tuple(driver.registrar() for driver in registrars),
            clock=clock,
            wall=wall,
        )
        self.members = Members(
            Identity(settings.node.name, instance, moment(started_wall) if started_wall else ""),
            registry or Alone(f"the catalog is a {settings.catalog.source}, which knows of no other node"),
            self._company,
            journal,
            lambda: self.reconciler.alive_at,
            Timing(clock, offload=offload),
        )
        self._source, self._pulse, self._registrars = source, pulse, registrars
        self._first_probe_path: Callable[[], None] | None = first_probe_path
        self._laid: Decision | None = None
        """The decision whose marks the prober knows."""
        self._begin = asyncio.Event()

    @property
    def snapshot(self) -> Snapshot:
        """The last cycle; before the first one, what is known of the inputs. The other nodes always as of now."""
        snapshot, inputs = self.reconciler.snapshot, self.inbox.inputs
        if not snapshot.cycle:
            return Snapshot(inputs=inputs)
        if snapshot.inputs.cluster is inputs.cluster:
            return snapshot
        return replace(snapshot, inputs=replace(snapshot.inputs, cluster=inputs.cluster))

    async def run(self, *background: Coroutine[Any, Any, None], ready: Callable[[], None] = lambda: None) -> None:
        """Serve until ``stop`` has left nothing behind."""
        try:
            async with asyncio.TaskGroup() as tasks:
                registrars = [driver.run() for driver in self._registrars]
                engines = (self.follower.run(), self.prober.run(), self.members.run(), *registrars)
                beside = [tasks.create_task(work) for work in (*engines, *background)]
                await self._first_catalog()
                if not self.inbox.inputs.stopping:
                    ready()
                    await self.reconciler.run()
                async with asyncio.TaskGroup() as last:
                    for driver in self._registrars:
                        last.create_task(driver.flush())
                await self.members.leave()
                for task in beside:
                    task.cancel()
        finally:
            await self._source.close()

    async def _first_catalog(self) -> None:
        """Without a catalog nothing may be decided: what the kernel serves stays as it is, and routes run out."""
        while not self._begin.is_set():
            self._pulse()
            with suppress(TimeoutError):
                async with asyncio.timeout(PULSE):
                    await self._begin.wait()

    def stop(self) -> None:
        """Leave: withdraw every route, serve until drained, remove what is ours; then ``run`` returns."""
        self.inbox.put(stopping=True)
        self._begin.set()

    def _catalog(self, catalog: Catalog, feed: Feed) -> None:
        changed = catalog is not self.inbox.inputs.catalog
        if changed:
            self.prober.want(checks(catalog))
            if policy := self.inbox.inputs.naming.dns:
                for driver in self._registrars:
                    driver.want(service_names.dns_names(catalog.services, policy))
        self.inbox.put(wake=changed, catalog=catalog, feed=feed)
        if feed.loaded:
            self._begin.set()

    def _cycled(self, snapshot: Snapshot, seconds: float) -> None:
        self.meters.observe_cycle(snapshot, seconds)
        self.members.observe(snapshot)
        if snapshot.decision is self._laid and not snapshot.plan:
            return
        self._laid = snapshot.decision
        usable = probe_marks.usable(snapshot)
        self.prober.mark(usable)
        if self._first_probe_path and any(isinstance(mark, int) for mark in usable.values()):
            tell, self._first_probe_path = self._first_probe_path, None
            tell()

    def _company(self, cluster: Cluster) -> None:
        before = self.inbox.inputs
        names = before.naming.dns is not None and service_names.view(before.cluster) != service_names.view(cluster)
        self.inbox.put(wake=names or peer_health.news(before.cluster, cluster), cluster=cluster)

    def _health(self, health: Health, turned: bool) -> None:
        self.inbox.put(wake=turned, health=health)


def drain_rules(settings: Settings) -> DrainRules:
    """How this node leaves the routes."""
    told = settings.drain
    most = settings.cluster.max_drained
    return DrainRules(told.graceful, told.med, told.prepend, told.settle, told.deadline, most)


def checks(catalog: Catalog) -> set[Check]:
    """Every check a catalog asks for; equal checks of several services are one."""
    return {
        service.check(vip, backend)
        for service in catalog.services
        for vip in service.vips
        for backend in service.members(vip)
    }
