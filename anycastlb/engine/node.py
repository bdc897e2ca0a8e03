"""A node: every part wired to the others and run in one task group, the same for real parts and fakes.

Nothing is decided here, and nothing of the process is touched: no signal, no log handler, no file.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from anycastlb.adapters.certificates import CertificateFiles
from anycastlb.adapters.checks import CheckType, parameters
from anycastlb.adapters.checks.probe.path import find_path
from anycastlb.adapters.cluster import Alone, Identity, Registry
from anycastlb.adapters.cluster.members import Members
from anycastlb.adapters.cluster.status_document import moment
from anycastlb.adapters.discovery.memory import nowhere
from anycastlb.adapters.discovery.watch import Kinds
from anycastlb.adapters.sources import Source
from anycastlb.adapters.system.clock import SYSTEM, Clock
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.catalog.per_service import PerService
from anycastlb.core.decision import peer_reports, probe_marks, service_names
from anycastlb.core.decision.http.pools import checks_of_pool
from anycastlb.core.events import Event
from anycastlb.core.model import (
    Catalog,
    Check,
    Cluster,
    Decision,
    Feed,
    ForwardPath,
    Health,
    ProbePath,
    Service,
    Snapshot,
)
from anycastlb.engine.catalog_parser import CatalogParts
from anycastlb.engine.cycle_events import telling_failed
from anycastlb.engine.follower import Follower
from anycastlb.engine.gate_keeper import GateKeeper
from anycastlb.engine.inbox import Inbox
from anycastlb.engine.machine import Machine
from anycastlb.engine.observer import NOBODY, Observer
from anycastlb.engine.passive import CountTries, PassiveWatch
from anycastlb.engine.patrol import Patrol
from anycastlb.engine.prober import Checking, MakeChecking, Prober
from anycastlb.engine.prover import Prover
from anycastlb.engine.reconciler import Reconciler
from anycastlb.settings import Settings


@dataclass(frozen=True)
class Parts:
    """What a node is made of: real parts in the daemon (see ``engine.parts``), fakes in tests."""

    inbox: Inbox
    source: Source
    machine: Machine
    check_types: Mapping[str, CheckType]
    kinds: Kinds = nowhere
    """How the discoveries that a catalog asks for are made."""
    probe_path: Callable[[ForwardPath, int], ProbePath] = find_path
    """Finds how a probe through IPVS goes."""
    make_checking: MakeChecking | None = None
    """Who runs the checks; a ``Prober`` in this process if not given."""
    on_catalog: Callable[[Catalog], None] = lambda catalog: None
    """Is called with each new catalog."""
    certificates: CertificateFiles[str] | None = None
    """The certificates for gateways; None: this node serves none."""
    count_tries: CountTries | None = None
    """Counts how requests to pools have ended; None: nobody does."""
    registry: Registry | None = None
    """Where the nodes know of each other."""
    instance: str = ""
    """Tells this installation from another with the same name."""
    started_wall: float = 0.0
    """When the process began, seconds since 1970."""


class Node:
    """One node's parts, wired."""

    def __init__(
        self,
        settings: Settings,
        parts: Parts,
        journal: Journal,
        observer: Observer = NOBODY,
        clock: Clock = SYSTEM,
    ) -> None:
        self.inbox, self.journal, self._observer = parts.inbox, journal, observer
        self.prober: Checking
        self._source, self._machine = parts.source, parts.machine
        if parts.make_checking:
            self.prober = parts.make_checking(self._put_health, journal, clock, observer)
        else:
            self.prober = Prober(parts.check_types, self._put_health, journal, clock, parts.probe_path, observer)
        self._certificates, self._resync = parts.certificates, settings.node.resync
        catalog = CatalogParts(
            parts.source,
            parameters(parts.check_types),
            parts.kinds,
            certificates=self._certificate_names,
            prepare=self._prepare,
        )
        self.follower = Follower(catalog, settings, self._put_catalog, journal, clock, observer)
        self.reconciler = Reconciler(parts.inbox, parts.machine, journal, settings.node.resync, self._cycled, clock)
        self._patrol = self._make_patrol(settings.node.resync)
        self._passive = (
            PassiveWatch(parts.count_tries, parts.inbox, lambda: self.reconciler.snapshot, clock)
            if parts.count_tries
            else None
        )
        self._prover = Prover(self.reconciler.decider, journal, observer, clock)
        self.members = Members(
            Identity(settings.node.name, parts.instance, moment(parts.started_wall) if parts.started_wall else ""),
            parts.registry or Alone(f"the catalog is a {settings.catalog.source}, which knows of no other node"),
            self._put_cluster,
            journal,
            lambda: self.alive_at,
            clock,
        )
        self.gate_keeper = GateKeeper(parts.machine.gate_memory, clock)
        self._on_catalog = parts.on_catalog
        self._checks = PerService(self._checks_of)
        self._faults: deque[Event] = deque()
        """Why the checks of some services are not known."""
        self._wanted: list[frozenset[Check]] = []
        self._sharing: tuple[Service, ...] = ()
        """The gateways whose connections nodes share: who these are is decided, and not in the catalog."""
        self._marked: Decision | None = None
        """The decision whose marks the prober knows."""
        self._untold: Event | None = None
        """The last fault in telling of a cycle."""
        self._begin = asyncio.Event()

    @property
    def alive_at(self) -> float:
        """When the reconciler last gave a proof of life."""
        return self._machine.pulse.at

    @property
    def load(self) -> tuple[int, int, int]:
        """Probes under way, probes that wait for a place among them, and how many places there are."""
        return self.prober.load

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot of the last cycle; before the first one, only inputs. The other nodes are always as of now."""
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
                engines = [self.follower.run(), self.prober.run(), self.members.run(), self.gate_keeper.run()]
                engines += [self._prover.run()]
                engines += [driver.run() for driver in self._machine.record_drivers]
                engines += [self._machine.haproxy.run()] if self._machine.haproxy is not None else []
                engines += [one.run() for one in (self._patrol, self._passive) if one is not None]
                if self._certificates is not None:
                    self._look_at_certificates(self._certificates)
                    engines += [self._follow_certificates(self._certificates)]
                beside = [tasks.create_task(work) for work in (*engines, *background)]
                await self._first_catalog()
                if not self.inbox.inputs.stopping:
                    await self.prober.settled()  # else every weight would be decided, and written, twice
                    ready()
                await self.reconciler.run()
                async with asyncio.TaskGroup() as last:
                    for driver in self._machine.record_drivers:
                        last.create_task(driver.flush())
                await self.members.leave()
                for task in beside:
                    task.cancel()
        finally:
            await self._source.close()

    def _certificate_names(self) -> frozenset[str] | None:
        return None if self._certificates is None else frozenset(self._certificates.known)

    def _look_at_certificates(self, folder: CertificateFiles[str]) -> None:
        if folder.look() is not self.inbox.inputs.certificates:
            self.inbox.put(certificates=folder.known)
            self.follower.refresh()

    async def _follow_certificates(self, folder: CertificateFiles[str]) -> None:
        while True:
            await asyncio.sleep(self._resync)
            self._look_at_certificates(folder)

    def _make_patrol(self, resync: float) -> Patrol | None:
        if self._machine.inspected is None:
            return None
        return Patrol(
            self._machine.inspected, self.inbox, lambda: list(self.reconciler.snapshot.actual.services), resync
        )

    async def _first_catalog(self) -> None:
        """Wait for it. Without one nothing may be decided: the kernel serves what it serves, and routes run out.

        A stop needs none: whatever a catalog says, everything leaves.
        """
        while not self._begin.is_set():
            self._machine.pulse.notify()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._machine.pulse.period):
                    await self._begin.wait()

    def stop(self) -> None:
        """Leave the routes: withdraw every route, serve until drained, remove what is ours; then ``run`` returns."""
        self.inbox.put(stopping=True)
        self._begin.set()

    def _put_catalog(self, catalog: Catalog, feed: Feed) -> None:
        changed = catalog is not self.inbox.inputs.catalog
        if changed:
            self._tell("those who follow the catalog", lambda: self._on_catalog(catalog))
            self._want_checks(catalog)
            self._tell("the name servers", lambda: self._want_names(catalog))
        self.inbox.put(wake=changed, catalog=catalog, feed=feed)
        if feed.loaded:
            self._begin.set()

    def _want_names(self, catalog: Catalog) -> None:
        if policy := self.inbox.inputs.policy.naming.dns:
            for driver in self._machine.record_drivers:
                driver.want(service_names.dns_names(catalog.services, policy))

    def _checks_of(self, service: Service) -> frozenset[Check]:
        """None, if a fault of ours keeps us from knowing them: then nobody proves that its backends are up."""
        try:
            return checks_of(service)
        except Exception as exc:
            self._faults.append(telling_failed(service.name, exc))
            return frozenset()

    def _prepare(self, catalog: Catalog) -> None:
        """Find the checks of a catalog that was read, in the thread that has read it: there may be many."""
        self._checks_in(catalog)

    def _checks_in(self, catalog: Catalog) -> list[frozenset[Check]]:
        pools = catalog.pools if self.inbox.inputs.policy.http else ()
        return self._checks((*catalog.services, *pools, *self._sharing))

    def _want_checks(self, catalog: Catalog) -> None:
        wanted = self._checks_in(catalog)
        while self._faults:
            self.journal.emit(self._faults.popleft())
        if wanted != self._wanted:
            self._wanted = wanted
            self.prober.want(set().union(*wanted))

    def _cycled(self, snapshot: Snapshot, seconds: float) -> None:
        self._tell("the metrics", lambda: self._observer.observe_cycle(snapshot, seconds))
        self._tell("the other nodes", lambda: self.members.observe(snapshot))
        if snapshot.decision.sharing is not self._sharing:
            self._sharing = snapshot.decision.sharing
            self._want_checks(self.inbox.inputs.catalog)
        self._tell("the memory of gates", lambda: self.gate_keeper.observe(snapshot))
        if snapshot.decision is self._marked and not snapshot.plan:
            return
        self._marked = snapshot.decision
        self._tell("the checks", lambda: self.prober.mark(probe_marks.usable(snapshot)))

    def _tell(self, whom: str, act: Callable[[], None]) -> None:
        """Tell somebody of a cycle. A fault of ours in that must not stop a node that serves, and is told once."""
        try:
            act()
        except Exception as exc:
            event = telling_failed(whom, exc)
            if event != self._untold:
                self._untold = event
                self.journal.emit(event)

    def _put_cluster(self, cluster: Cluster) -> None:
        before = self.inbox.inputs
        published = before.policy.naming.dns is not None
        names = published and service_names.view(before.cluster) != service_names.view(cluster)
        self.inbox.put(wake=names or peer_reports.news(before.cluster, cluster), cluster=cluster)

    def _put_health(self, health: Health, turned: bool) -> None:
        self.inbox.put(wake=turned or self.reconciler.snapshot.decision.doubtful, health=health)


def checks(catalog: Catalog) -> set[Check]:
    """Every check a catalog asks for; equal checks of several services are one."""
    return set().union(*map(checks_of, (*catalog.services, *catalog.pools)))


def checks_of(service: Service) -> frozenset[Check]:
    """Every check a service or a pool asks for."""
    if not service.vips:
        return frozenset(checks_of_pool(service))
    return frozenset(service.check(vip, backend) for vip in service.vips for backend in service.members(vip))
