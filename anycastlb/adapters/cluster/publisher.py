"""Publish this node's own status under a session that it keeps alive.

Level-triggered: each step compares what stands in the registry with what should, and writes the difference. A node's
name belongs to one process: a newer process of the same installation takes the session of an older one over, and any
other node of that name is left alone and reported (docs/decisions/0009).

It never reads the registry: what stands there is what ``members`` has taken in, and the registry itself refuses a write
under a name that another session holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from anycastlb.adapters.cluster import Identity, Membership, Posted, Registry, status_bytes, status_document
from anycastlb.adapters.cluster.peers import Peers, read_status
from anycastlb.adapters.system.clock import Clock
from anycastlb.core.model import Problem, Snapshot, Status

SPACING = 1.0
"""Seconds between two writes, and two looks at what should be written: the first change at once, the next together."""
CALM = 4.0
"""Seconds between two writes of which the second says nothing that a node decides by: only what its catalog and its
tables are, which are compared for operators. The status of 1,000 services is 200 kB, written and read again."""
SETTLED = 5.0
"""Seconds a starting node has to become ready before it publishes that it is not."""
STUCK = 30.0
"""Seconds without a sign of life from the reconciler after which nothing is published any more."""
UNSEEN = 3.0
"""A write is expected to be read within so many seconds. A key deleted within this time is not reported as lost; it is
rewritten."""
TOO_LARGE = (
    "are left out: other nodes see less of this one (docs/OPERATIONS.md, Size); "
    "expected fewer services in one cluster: give some of them a Consul prefix and nodes of their own"
)
AT_REST = 30.0
"""Seconds until a step that has nothing to do is repeated."""


class Publisher:
    """``alive_at``: when the reconciler last gave a sign of life; a node that is stuck lets its status go."""

    def __init__(
        self, identity: Identity, registry: Registry, peers: Peers, alive_at: Callable[[], float], clock: Clock
    ) -> None:
        self._identity, self._node, self._registry, self._peers = identity, identity.node, registry, peers
        self._alive_at, self._clock, self._offload = alive_at, clock.monotonic, clock.offload
        self.status: Status | None = None
        """Of this node, as of the last look."""
        self.problem: Problem | None = None
        """Why the status is not published."""
        self.omission: Problem | None = None
        """What of it is not published."""
        self._memory = status_document.Digests(), status_document.Summaries()
        self._texts = status_bytes.Texts()
        self._value: tuple[Status, bytes, tuple[str, ...]] | None = None
        """The status that was encoded last, its value, and what was left out of it."""
        self._snapshot: Snapshot | None = None
        self._first = 0.0
        """When the first snapshot came."""
        self._looked_at: Snapshot | None = None
        self._looked = self._wrote = -SPACING + self._clock()
        self._session = ""
        self._renewed = 0.0
        self._written: tuple[bytes, Membership | None] | None = None
        """What this session wrote last, and what was known of the registry then."""
        self._replaced = b""
        """What it wrote before that: it is what stands there until the last write is read."""
        self._shown: Status | None = None
        """What that says."""
        self._rival_since: float | None = None
        self._left = False

    @property
    def published(self) -> bool:
        return self._written is not None and self.problem is None

    @property
    def next_step(self) -> float:
        """When the next step may be made, at the earliest."""
        return max(self._looked, self._wrote) + SPACING

    def observe(self, snapshot: Snapshot) -> None:
        """A cycle of the reconciler has ended."""
        if self._snapshot is None:
            self._first = self._clock()
        self._snapshot = snapshot

    def report(self, what: str) -> None:
        """Why this node's status is not published; empty: it is."""
        problem = Problem(f"nodes/{self._node}", "", what) if what else None
        if problem is not None and problem != self.problem:
            self._peers.report(self._node, what, "error")
        self.problem = problem

    def leave(self) -> None:
        """From now on nothing is published any more."""
        self._left = True

    async def end(self) -> None:
        """End the session, and the status vanishes with it. Raises ``SourceError``."""
        if self._session:
            session, self._session = self._session, ""
            await self._registry.end(session)

    async def step(self) -> float:
        """Bring what is published to what should be; the seconds until there is something to do again.

        Raises ``SourceError``, and ``Denied`` if the registry refuses the status.
        """
        if self._left:
            return AT_REST
        if self._clock() - self._alive_at() > STUCK:
            return SPACING  # what stands there may no longer be true, and vanishes with the session
        await self._renew()
        await self._look()
        membership, status, renewal = self._peers.membership, self.status, self._registry.ttl / 3
        if membership is None or status is None:
            return renewal
        if not status.ready and not self._written and (left := self._first + SETTLED - self._clock()) > 0:
            return min(left, renewal)
        if not await self._may(membership):
            return SPACING
        calm = self._wrote + CALM - self._clock()
        if calm > 0 and self._shown is not None and _same_to_nodes(self._shown, status) and self._stands(membership):
            return min(calm, renewal)
        value, omitted = await self._encoded(status)
        if self._written and value == self._written[0] and self._stands(membership):
            return renewal
        if not self._session:
            self._session, self._renewed = await self._registry.begin(self._node), self._clock()
        if not await self._registry.write(self._node, value, self._session):
            return SPACING  # another session was faster; the next read shows whose
        self._replaced = self._written[0] if self._written else b""
        self._written, self._wrote, self._shown = (value, membership), self._clock(), status
        self.report("")
        self._report_omitted(omitted)
        return renewal

    async def _encoded(self, status: Status) -> tuple[bytes, tuple[str, ...]]:
        """The status as it is published, and what is left out of it."""
        if self._value is None or self._value[0] is not status:
            self._value = status, *await self._offload(partial(status_bytes.fit, texts=self._texts), status)
        return self._value[1:]

    def _report_omitted(self, omitted: tuple[str, ...]) -> None:
        """The status is published, and lacks this."""
        what = f"its status is too large for one key of Consul, so {', '.join(omitted)} {TOO_LARGE}"
        problem = Problem(f"nodes/{self._node}", "", what) if omitted else None
        if problem is not None and problem != self.omission:
            self._peers.report(self._node, what, "warning")
        self.omission = problem

    async def _renew(self) -> None:
        if self._session and self._clock() >= self._renewed + self._registry.ttl / 3:
            if await self._registry.renew(self._session):
                self._renewed = self._clock()
            else:
                self._peers.report(self._node, "its session was ended; it publishes its status anew", "warning")
                self._session, self._written = "", None

    async def _look(self) -> None:
        """Make the status of the latest snapshot."""
        snapshot = self._snapshot
        if snapshot is None or snapshot is self._looked_at:
            return
        self._looked_at, self._looked = snapshot, self._clock()
        started = self._identity.started
        instance, memory = self._identity.instance, self._memory
        status = await self._offload(status_document.summarise, snapshot, started, instance, memory)
        if status != self.status:
            self.status = status

    def _stands(self, membership: Membership) -> bool:
        """Is what was written last still there, as far as is known?"""
        if self._written is None:
            return False
        if membership is self._written[1] and self._clock() - self._wrote < UNSEEN:
            return True
        return membership.entries.get(self._node) == Posted(self._written[0], self._session)

    async def _may(self, membership: Membership) -> bool:
        """Is this node's name free for it? A session of an earlier process of this installation is taken over."""
        posted = membership.entries.get(self._node)
        if posted is None or not posted.session or (posted.session == self._session and self._is_mine(posted)):
            self._rival_since = None
            return True
        theirs = await self._offload(read_status, posted.value, self._node)
        instance = self._identity.instance
        if isinstance(theirs, Status) and instance and theirs.instance == instance:
            return await self._take_over(posted, theirs)
        if posted.session == self._session:
            return True  # somebody wrote past us
        self._rival_since = self._clock() if self._rival_since is None else self._rival_since
        if self._clock() - self._rival_since > 2 * self._registry.ttl + SETTLED:  # a dead one would have vanished
            self.report(_same_name(self._node, theirs))
        return False

    async def _take_over(self, posted: Posted, theirs: Status) -> bool:
        """Go on with the session of another process of this installation, unless that process is the newer one."""
        if theirs.started > self._identity.started:
            self.report("a newer process of this node publishes its status; expected one process a node: end one")
            return False
        if posted.session == self._session:
            return True
        if not await self._registry.renew(posted.session):
            return False
        old, self._session, self._renewed = self._session, posted.session, self._clock()
        if old:
            await self._registry.end(old)
        self._written, self._rival_since = None, None
        return True

    def _is_mine(self, posted: Posted) -> bool:
        return self._written is not None and posted.value in (self._written[0], self._replaced)


def _same_to_nodes(one: Status, other: Status) -> bool:
    """Do both say the same but for which catalog it is, and how the tables are?"""
    catalog = replace(one.catalog, index=other.catalog.index, hash=other.catalog.hash)
    return replace(one, catalog=catalog, digests=other.digests) == other


def _same_name(node: str, theirs: Status | str) -> str:
    who = f" (started {theirs.started}, instance {theirs.instance or '?'})" if isinstance(theirs, Status) else ""
    return (
        f"expected a name of its own: another living node{who:.120} holds nodes/{node}; set another [node] name in the "
        "node.toml of one of them and restart it. This one goes on serving, and the others do not see it"
    )
