"""Publish this node's status, and follow those of the others.

Level-triggered: it looks at what stands in the registry and at what should, and writes the difference. A registry that
is away, refuses or holds garbage is an event and a state that readers see, never a reason to stop: a node serves alone
as it serves among others. Here nothing is parsed and nothing is decided about traffic.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from anycastlb.adapters.cluster import Denied, Membership, Posted, Registry, status_document
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.events import Event, Level
from anycastlb.core.model import EMPTY, Catalog, Cluster, Peer, Problem, Snapshot, SourceError, Status

T = TypeVar("T")
SPACING = 1.0
"""Seconds between two writes, and two looks at what should be written: the first change at once, the next together."""
SETTLED = 5.0
"""Seconds a starting node has to become ready before it publishes that it is not."""
REMEMBERED = 600.0
"""Seconds that a node which has vanished is still shown."""
BACKOFF, LONGEST = 0.2, 5.0
"""Seconds before the first and the later attempts to reach a registry that fails; doubled each time."""
STUCK = 30.0
"""Seconds without a sign of life from the reconciler after which nothing is published any more."""
UNSEEN = 3.0
"""Seconds in which what was written should be read: what is deleted before that makes no news, and is written again."""
REFUSED = 30.0
"""Seconds until a registry that refuses is asked again."""


class Offload(Protocol):
    """Runs a blocking function elsewhere: ``asyncio.to_thread``, or in place for tests in virtual time."""

    def __call__(self, function: Callable[..., T], /, *args: Any) -> Awaitable[T]: ...


class Members:
    """``publish`` is called on the loop with what is known of the cluster, whenever that has changed.

    ``registry`` is None where there is none; ``alone`` then says why. ``instance``: see ``cluster.instance``.
    ``alive_at``: when the reconciler last gave a sign of life; a node that is stuck lets its status go.
    """

    def __init__(
        self,
        node: str,
        registry: Registry | None,
        publish: Callable[[Cluster], None],
        journal: Journal,
        clock: Callable[[], float] = time.monotonic,
        *,
        alone: str = "",
        instance: str = "",
        alive_at: Callable[[], float] | None = None,
        started_wall: float = 0.0,
        offload: Offload = asyncio.to_thread,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._node, self._registry = node, registry
        self._publish_to, self._journal, self._clock = publish, journal, clock
        self._alone, self._instance = alone, instance
        self._started = status_document.moment(started_wall) if started_wall else ""
        self._offload, self._jitter = offload, jitter
        self._alive_at = alive_at or clock
        self._cluster = Cluster()
        self._connected, self._since, self._error = False, clock(), ""
        self._peers: dict[str, Peer] = {}
        self._problem: Problem | None = None

        self._snapshot: Snapshot | None = None
        self._first = 0.0
        """When the first snapshot came."""
        self._looked_at: Snapshot | None = None
        self._looked = self._wrote = -SPACING + clock()
        self._status: Status | None = None
        """Of this node, as of the last look."""
        self._fingerprint: tuple[Catalog, str] | None = None
        self._stir = asyncio.Event()

        self._roll: Membership | None = None
        self._session = ""
        self._renewed = 0.0
        self._written: tuple[bytes, Membership] | None = None
        """What this session wrote last, and what was known of the registry then."""
        self._rival_since: float | None = None
        self._turn = asyncio.Lock()
        """Held by whoever begins or ends a session."""
        self._left = False

    def told(self, snapshot: Snapshot) -> None:
        """A cycle has ended."""
        if self._snapshot is None:
            self._first = self._clock()
        self._snapshot = snapshot
        self._stir.set()

    async def run(self) -> None:
        """Publish and follow until cancelled; the status then stands until its session ends."""
        if self._registry is None:
            self._publish_to(Cluster(alone=self._alone, started=self._started))
            return
        self._show()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow(self._registry))
                group.create_task(self._keep(self._registry))
        finally:
            await self._registry.close()

    async def leave(self, patience: float = 3.0) -> None:
        """Take this node's status away, for good; at most for ``patience`` seconds."""
        self._left = True
        with suppress(TimeoutError, SourceError):
            async with asyncio.timeout(patience), self._turn:
                if self._registry is not None and self._session:
                    session, self._session = self._session, ""
                    await self._registry.end(session)

    # ---------------------------------------------------------------- publishing

    async def _keep(self, registry: Registry) -> None:
        failures = 0
        while True:
            self._stir.clear()
            try:
                async with self._turn:
                    due = await self._step(registry)
                failures = 0
            except Denied as exc:
                self._trouble(str(exc))
                await asyncio.sleep(REFUSED)
                continue
            except SourceError:  # told by ``_follow``
                await asyncio.sleep(self._backoff(failures))
                failures += 1
                continue
            except Exception as exc:  # a fault of ours here must not stop a node that serves
                self._trouble(f"please report: {exc!r:.300}")
                await asyncio.sleep(REFUSED)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(max(due, 0.0)):
                    await self._stir.wait()
            await asyncio.sleep(max(self._looked, self._wrote) + SPACING - self._clock())

    async def _step(self, registry: Registry) -> float:
        """Bring what is published to what should be; the seconds until there is something to do again."""
        self._forget()
        if self._left:
            return REFUSED
        if self._clock() - self._alive_at() > STUCK:
            return SPACING  # what stands there may be true no more, and vanishes with the session
        await self._renew(registry)
        await self._look()
        roll, status, renewal = self._roll, self._status, registry.ttl / 3
        if roll is None or status is None:
            return renewal
        if not status.ready and not self._written and (left := self._first + SETTLED - self._clock()) > 0:
            return min(left, renewal)
        if not await self._may(registry, roll):
            return SPACING
        value = await self._offload(status_document.encode, status)
        if self._written and value == self._written[0] and self._stands(roll):
            return renewal
        if not self._session:
            self._session, self._renewed = await registry.begin(self._node), self._clock()
        if not await registry.write(self._node, value, self._session):
            return SPACING  # somebody was faster: the roll will tell
        self._written, self._wrote = (value, roll), self._clock()
        self._trouble("")
        return renewal

    async def _renew(self, registry: Registry) -> None:
        if self._session and self._clock() >= self._renewed + registry.ttl / 3:
            if await registry.renew(self._session):
                self._renewed = self._clock()
            else:
                self._tell(self._node, "its session was ended; it publishes its status anew", "warning")
                self._session, self._written = "", None
                await self._saw(await registry.read(None))

    async def _look(self) -> None:
        """What this node has to say now."""
        snapshot = self._snapshot
        if snapshot is None or snapshot is self._looked_at:
            return
        self._looked_at, self._looked = snapshot, self._clock()
        catalog = snapshot.inputs.catalog
        if self._fingerprint is None or self._fingerprint[0] is not catalog:
            self._fingerprint = catalog, await self._offload(status_document.hash_of, catalog)
        known = self._fingerprint[1] if snapshot.inputs.feed.loaded else ""
        status = await self._offload(status_document.summarise, snapshot, self._started, self._instance, known)
        if status != self._status:
            self._status = status
            self._show()

    def _stands(self, roll: Membership) -> bool:
        """Is what was written last still there, as far as is known?"""
        if self._written is None:
            return False
        if roll is self._written[1] and self._clock() - self._wrote < UNSEEN:
            return True
        return roll.entries.get(self._node) == Posted(self._written[0], self._session)

    async def _may(self, registry: Registry, roll: Membership) -> bool:
        """Is this node's name free for it? A session of an earlier process of this installation is taken over."""
        posted = roll.entries.get(self._node)
        if posted is None or not posted.session or (posted.session == self._session and self._is_mine(posted)):
            self._rival_since = None
            return True
        theirs = await self._offload(_read, posted.value, self._node)
        if isinstance(theirs, Status) and self._instance and theirs.instance == self._instance:
            if theirs.started > self._started:
                self._trouble("a newer process of this node publishes its status; expected one process a node: end one")
                return False
            if posted.session == self._session:
                return True
            if await registry.renew(posted.session):
                old, self._session, self._renewed = self._session, posted.session, self._clock()
                if old:
                    await registry.end(old)
                self._written, self._rival_since = None, None
                return True
            return False
        if posted.session == self._session:
            return True  # somebody wrote past us
        self._rival_since = self._clock() if self._rival_since is None else self._rival_since
        if self._clock() - self._rival_since > 2 * registry.ttl + SETTLED:  # a dead one would have vanished by now
            self._trouble(_same_name(self._node, theirs))
        return False

    def _is_mine(self, posted: Posted) -> bool:
        return self._written is not None and posted.value == self._written[0]

    # ---------------------------------------------------------------- following

    async def _follow(self, registry: Registry) -> None:
        failures, after = 0, None
        while True:
            try:
                after = await registry.read(after)
                await self._saw(after)
                failures = 0
            except SourceError as exc:
                after = None
                self._away(str(exc))
                await asyncio.sleep(self._backoff(failures))
                failures += 1
            except Exception as exc:  # a fault of ours here must not stop a node that serves
                after = None
                self._away(f"please report: {exc!r:.300}")
                await asyncio.sleep(LONGEST)

    async def _saw(self, roll: Membership) -> None:
        known = self._roll.entries if self._roll is not None else EMPTY
        now, others = self._clock(), {name: p for name, p in roll.entries.items() if name != self._node}
        new = {name: p for name, p in others.items() if known.get(name) != p or name not in self._peers}
        found = await self._offload(_read_all, new)
        for name, content in found.items():
            self._met(name, bool(new[name].session), content, now)
        for name, peer in self._peers.items():
            if name not in others and peer.alive:
                self._peers[name] = replace(peer, alive=False, since=now)
                self._lost(peer)
        if self._roll is None or not self._connected:
            self._since = now
        self._roll, self._connected, self._error = roll, True, ""
        self._show()
        self._stir.set()

    def _met(self, name: str, held: bool, content: Status | str, now: float) -> None:
        before = self._peers.get(name)
        if isinstance(content, Status):
            error = "" if held else "no session holds its key, so nobody keeps it true; delete the key"
            self._peers[name] = Peer(name, held, content, error, now)
        else:
            self._peers[name] = Peer(name, held, before.status if before else None, content, now)
        if error := self._peers[name].error:
            if before is None or before.error != error:
                self._tell(name, f"its status cannot be used: {error}", "warning")
        elif before is None or not before.alive:
            self._journal.emit(Event("peer", name, before="gone" if before else "", after="alive"))

    def _lost(self, peer: Peer) -> None:
        stopped = peer.status is not None and peer.status.stopping
        reason = "it had stopped" if stopped else "its session has ended: it died, or reaches Consul no more"
        level: Level = "info" if stopped else "warning"
        self._journal.emit(Event("peer", peer.name, reason=reason, before="alive", after="gone", level=level))

    def _away(self, error: str) -> None:
        if self._connected or not self._error:
            self._since = self._clock()
            self._tell("consul", f"the other nodes stay as they were last known: {error}", "warning")
        self._connected, self._error = False, error
        self._show()

    def _forget(self) -> None:
        now, standing = self._clock(), self._roll.entries if self._roll is not None else EMPTY
        late = [n for n, p in self._peers.items() if not p.alive and n not in standing and now - p.since > REMEMBERED]
        for name in late:
            del self._peers[name]
        if late:
            self._show()

    # ---------------------------------------------------------------- telling

    def _trouble(self, what: str) -> None:
        """Why this node's status is not published; empty: it is."""
        problem = Problem(f"nodes/{self._node}", "", what) if what else None
        if problem is not None and problem != self._problem:
            self._tell(self._node, what, "error")
        self._problem = problem
        self._show()

    def _tell(self, subject: str, reason: str, level: Level) -> None:
        self._journal.emit(Event("cluster", subject, reason=reason, level=level))

    def _show(self) -> None:
        before = self._cluster
        living = [peer.status for peer in self._peers.values() if peer.alive and peer.status and not peer.error]
        own = [self._status] if self._status is not None and living else []
        catalogs, tables = status_document.compare(own + living, (before.catalogs, before.tables), self._clock())
        self._cluster = Cluster(
            follows=True,
            connected=self._connected,
            since=self._since,
            error=self._error,
            published=self._written is not None and self._problem is None,
            peers=dict(sorted(self._peers.items())),
            catalogs=catalogs,
            tables=tables,
            problems=(self._problem,) if self._problem else (),
            started=self._started,
        )
        if self._cluster != before:
            self._publish_to(self._cluster)

    def _backoff(self, failures: int) -> float:
        return min(LONGEST, BACKOFF * 2.0 ** min(failures, 10)) * (0.5 + self._jitter() / 2)


def _read_all(posted: Mapping[str, Posted]) -> dict[str, Status | str]:
    return {name: _read(one.value, name) for name, one in posted.items()}


def _read(value: bytes, name: str) -> Status | str:
    """The status, or why there is none."""
    try:
        return status_document.decode(value, name)
    except status_document.UnreadableStatus as exc:
        return str(exc)


def _same_name(node: str, theirs: Status | str) -> str:
    who = f" (started {theirs.started}, instance {theirs.instance or '?'})" if isinstance(theirs, Status) else ""
    return (
        f"expected a name of its own: another living node{who:.120} holds nodes/{node}; set another [node] name in the "
        "node.toml of one of them and restart it. This one goes on serving, and the others do not see it"
    )
