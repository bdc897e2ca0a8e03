"""The registry in memory: the fake, shared by the nodes of a test, which tests can make fail. It passes the contract
tests of the real one."""

from __future__ import annotations

import asyncio
from types import MappingProxyType

from anycastlb.adapters.cluster import Denied, Membership, Posted
from anycastlb.core.model import SourceError

LIMIT = 512 * 1024
"""As Consul's ``kv_max_value_size``."""


class MemoryRegistry:
    """Sessions end by the loop's clock at twice their time to live, as Consul's do. ``distance``: seconds between a
    change and the read that shows it, in which more may change, as in ``cluster.consul``."""

    def __init__(self, ttl: float = 10.0, distance: float = 0.0) -> None:
        self.ttl = ttl
        self.distance = distance
        self.limit = LIMIT
        """Bytes of one value."""
        self.writes = 0
        """How often something was published that changed something."""
        self.denied = ""
        """Why nobody may publish; empty: they may."""
        self.closed = False
        self._entries: dict[str, Posted] = {}
        self._ends: dict[str, float] = {}
        """When each living session ends."""
        self._begun = 0
        self._index = 1
        self._error = ""
        self._changed = asyncio.Event()

    # ---------------------------------------------------------------- the hand of a test

    def put(self, node: str, value: bytes, session: str = "") -> None:
        """As an operator would, past every session; one that holds the key goes on holding it."""
        before = self._entries.get(node)
        self._entries[node] = Posted(value, session or (before.session if before else ""))
        self._wake()

    def delete(self, node: str) -> None:
        del self._entries[node]
        self._wake()

    def wipe(self) -> None:
        """A server that lost its data: no key and no session is left."""
        self._entries.clear()
        self._ends.clear()
        self._wake()

    def expire(self) -> None:
        """Every session ends now."""
        for session in list(self._ends):
            self._drop(session)

    def fail(self, error: str = "the registry is down") -> None:
        self._error = error
        self._wake()

    def heal(self) -> None:
        self._error = ""

    @property
    def entries(self) -> dict[str, Posted]:
        self._pass()
        return dict(self._entries)

    # ---------------------------------------------------------------- the registry

    async def read(self, after: Membership | None) -> Membership:
        while True:
            changed = self._changed
            self._check()
            if after is None:
                return self._membership()
            if dict(after.entries) != self._entries:
                await asyncio.sleep(self.distance)
                self._check()
                return self._membership()
            ends = min(self._ends.values(), default=None)
            left = None if ends is None else max(0.001, ends - asyncio.get_running_loop().time())
            try:
                async with asyncio.timeout(left):
                    await changed.wait()
            except TimeoutError:
                continue

    async def begin(self, node: str) -> str:
        self._check()
        self._allow()
        self._begun += 1
        session = f"session-{self._begun}"
        self._ends[session] = asyncio.get_running_loop().time() + 2 * self.ttl
        return session

    async def renew(self, session: str) -> bool:
        self._check()
        if session not in self._ends:
            return False
        self._ends[session] = asyncio.get_running_loop().time() + 2 * self.ttl
        return True

    async def write(self, node: str, value: bytes, session: str) -> bool:
        self._check()
        self._allow()
        if session not in self._ends:
            raise SourceError(f"invalid session {session!r}")
        if len(value) > self.limit:
            raise Denied(f"a status of {len(value)} bytes is too large; expected at most {self.limit}")
        before = self._entries.get(node)
        if before is not None and before.session not in ("", session):
            return False
        if before != (posted := Posted(value, session)):
            self.writes += 1
            self._entries[node] = posted
            self._wake()
        return True

    async def end(self, session: str) -> None:
        self._check()
        self._drop(session)

    async def close(self) -> None:
        self.closed = True

    def _membership(self) -> Membership:
        return Membership(MappingProxyType(dict(self._entries)), self._index)

    def _check(self) -> None:
        if self._error:
            raise SourceError(self._error)
        self._pass()

    def _allow(self) -> None:
        if self.denied:
            raise Denied(self.denied)

    def _pass(self) -> None:
        now = asyncio.get_running_loop().time()
        for session in [session for session, ends in self._ends.items() if ends <= now]:
            self._drop(session)

    def _drop(self, session: str) -> None:
        self._ends.pop(session, None)
        if held := [node for node, posted in self._entries.items() if session and posted.session == session]:
            for node in held:
                del self._entries[node]
            self._wake()

    def _wake(self) -> None:
        self._index += 1
        self._changed.set()
        self._changed = asyncio.Event()
