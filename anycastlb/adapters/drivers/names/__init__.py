"""Publish names outside of this machine: in DNS and in Consul's catalog of services.

A record store is far away: it may be slow, dead or full of other people's records. So it is read and written in the
background (``background``), and what it holds is shown from memory: nothing that a store does can hold up the
reconciler, which has routes to keep. Only records that carry our mark are ever seen, changed or deleted
(docs/decisions/0008).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from typing import Protocol

from anycastlb.core.model import Change, Rows, Table

RACED = "somebody else has just changed it"
"""Why a change was not made that is simply to be looked at again."""


class RecordStore(Protocol):
    """One table somewhere else. All of it may be cancelled at any await, and raises ``DriverError`` when nothing can be
    done at all: the place is away, or refuses us."""

    table: Table
    where: str
    """In words, for people."""
    period: float
    """Seconds from one look to the next."""

    async def look(self, names: Collection[str]) -> Rows:
        """Our rows. ``names``: those that may be there, where a place cannot be asked what it has."""
        ...

    def write(self, changes: Sequence[Change]) -> AsyncIterator[tuple[Change, str]]:
        """Each change as it is done, with the reason why it could not be, or an empty one."""
        ...

    async def close(self) -> None: ...
