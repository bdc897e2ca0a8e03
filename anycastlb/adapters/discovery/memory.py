"""Discovery in memory: the fake, which tests can make fail. It passes the contract tests of the real ones."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from anycastlb.adapters.discovery import DiscoveryAnswer, Endpoint, Kind, LossRule, ordered
from anycastlb.core.model import Discover, Instance, Share, SourceError


class MemoryDiscovery:
    """An answer that tests write. Every method may be called at any time on the loop's thread."""

    def __init__(self, *instances: Instance) -> None:
        self._answer = DiscoveryAnswer(ordered(instances))
        self._error = ""
        self._changed = asyncio.Event()
        self.reads = 0
        """How often an answer was asked for."""
        self.sure = 0
        """How often of these it had to be a fresh one."""
        self.closed = False

    def put(self, *instances: Instance, unfit: Iterable[Endpoint] = (), problems: tuple[str, ...] = ()) -> None:
        """This is the whole answer from now on."""
        self._answer = DiscoveryAnswer(ordered(instances), frozenset(unfit), problems)
        self._wake()

    def fail(self, error: str = "the discovery is down") -> None:
        """From now on every read fails, waiting ones too."""
        self._error = error
        self._wake()

    def heal(self) -> None:
        self._error = ""

    async def read(self, after: DiscoveryAnswer | None) -> DiscoveryAnswer:
        self.reads += 1
        self.sure += after is None
        while True:
            changed = self._changed
            if self._error:
                raise SourceError(self._error)
            if after is None or not after.same(self._answer):
                return self._answer
            await changed.wait()

    async def close(self) -> None:
        self.closed = True

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def nowhere(wanted: Discover) -> Kind:
    """For a node that cannot discover anything: every discovery fails."""

    def make() -> MemoryDiscovery:
        discovery = MemoryDiscovery()
        discovery.fail(f"{wanted}: this node discovers nothing")
        return discovery

    return Kind(make, LossRule(Share(percent=50.0), 0.0))
