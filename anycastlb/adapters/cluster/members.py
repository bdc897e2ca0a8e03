"""Publish this node's status, and follow the statuses of the other nodes.

A registry that does not answer, refuses or holds garbage is an event and a state that readers see, never a reason to
stop: a node serves alone as it serves among others. Nothing is parsed here and nothing is decided about traffic;
``publisher`` and ``peers`` have the two halves (docs/decisions/0009).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from anycastlb.adapters.cluster import Alone, Denied, Identity, Registry, status_document
from anycastlb.adapters.cluster.peers import Peers, read_statuses
from anycastlb.adapters.cluster.publisher import Publisher
from anycastlb.adapters.system.clock import SYSTEM, Clock
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.backoff import Backoff
from anycastlb.core.model import Cluster, Snapshot, SourceError

BACKOFF = Backoff(first=0.2, longest=5.0)
"""Between the attempts to reach a registry that fails."""
REFUSED = 30.0
"""Seconds until a registry that refuses is asked again."""


class Members:
    """``publish`` is called on the loop with what is known of the cluster, whenever that has changed.

    ``alive_at``: when the reconciler last gave a sign of life.
    """

    def __init__(
        self,
        identity: Identity,
        registry: Registry | Alone,
        publish: Callable[[Cluster], None],
        journal: Journal,
        alive_at: Callable[[], float] | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        self._identity, self._registry, self._publish_to = identity, registry, publish
        self._clock, self._chance, self._offload = clock.monotonic, clock.chance, clock.offload
        self._cluster = Cluster()
        self._peers = Peers(identity.node, journal, self._clock())
        self._publisher: Publisher | None = None
        if not isinstance(registry, Alone):
            self._publisher = Publisher(identity, registry, self._peers, alive_at or self._clock, clock)
        self._stir = asyncio.Event()
        self._turn = asyncio.Lock()
        """Held by whoever begins or ends a session."""

    def observe(self, snapshot: Snapshot) -> None:
        """A cycle of the reconciler has ended."""
        if self._publisher is not None:
            self._publisher.observe(snapshot)
            self._stir.set()

    async def run(self) -> None:
        """Publish and follow until cancelled; the status then stands until its session ends."""
        if isinstance(self._registry, Alone):
            self._publish_to(Cluster(alone=self._registry.why, started=self._identity.started))
            return
        assert self._publisher is not None
        self._show()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow(self._registry))
                group.create_task(self._keep(self._publisher))
        finally:
            await self._registry.close()

    async def leave(self, patience: float = 3.0) -> None:
        """Take this node's status away, for good; at most for ``patience`` seconds."""
        if self._publisher is None:
            return
        self._publisher.leave()
        with suppress(TimeoutError, SourceError):
            async with asyncio.timeout(patience), self._turn:
                await self._publisher.end()

    async def _keep(self, publisher: Publisher) -> None:
        failures = 0
        while True:
            self._stir.clear()
            self._peers.forget(self._clock())
            try:
                async with self._turn:
                    due = await publisher.step()
            except Denied as exc:
                publisher.report(str(exc))
                self._show()
                pause = REFUSED
            except SourceError:  # ``_follow`` reports it
                pause = BACKOFF.delay(failures, self._chance())
                failures += 1
            except Exception as exc:  # a fault of ours here must not stop a node that serves
                publisher.report(f"please report: {exc!r:.300}")
                self._show()
                pause = REFUSED
            else:
                failures = 0
                self._show()
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(due, 0.0)):
                        await self._stir.wait()
                pause = publisher.next_step - self._clock()
            await asyncio.sleep(pause)

    async def _follow(self, registry: Registry) -> None:
        """The only reader of the registry: it waits for what differs from what was taken in, so nothing is missed."""
        failures, taken_in = 0, None
        while True:
            try:
                membership = await registry.read(taken_in)
                unread = self._peers.unread(membership)  # none, if it is our own status that has changed
                statuses = await self._offload(read_statuses, unread) if unread else {}
                self._peers.update(membership, statuses, self._clock())
                taken_in = membership
                self._show()
                self._stir.set()
                failures = 0
            except SourceError as exc:
                taken_in = None
                self._lose_sight(str(exc))
                await asyncio.sleep(BACKOFF.delay(failures, self._chance()))
                failures += 1
            except Exception as exc:  # a fault of ours here must not stop a node that serves
                taken_in = None
                self._lose_sight(f"please report: {exc!r:.300}")
                await asyncio.sleep(BACKOFF.longest)

    def _lose_sight(self, error: str) -> None:
        self._peers.lose_sight(error, self._clock())
        self._show()

    def _show(self) -> None:
        """Publish what is known of the cluster if it has changed."""
        before, peers, publisher = self._cluster, self._peers, self._publisher
        assert publisher is not None
        living = peers.living()
        own = [publisher.status] if publisher.status is not None and living else []
        catalogs, tables = status_document.compare(own + living, (before.catalogs, before.tables), self._clock())
        self._cluster = Cluster(
            follows=True,
            connected=peers.connected,
            since=peers.since,
            error=peers.error,
            published=publisher.published,
            peers=dict(sorted(peers.known.items())),
            catalogs=catalogs,
            tables=tables,
            problems=tuple(problem for problem in (publisher.problem, publisher.omission) if problem),
            started=self._identity.started,
        )
        if self._cluster != before:
            self._publish_to(self._cluster)
