"""A record store in memory: the fake behind ``RecordStore``, shared by the nodes of a test, for speed and for faults.

It passes the same contract tests as the real stores.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from anycastlb.adapters.drivers.names import RACED
from anycastlb.core.model import Change, DnsKey, DriverError, Rows, Table


@dataclass
class Board:
    """What stands there, for everybody."""

    rows: dict[Any, Any] = field(default_factory=dict)
    foreign: set[str] = field(default_factory=set)
    """Names that are somebody else's."""
    fault: str = ""
    """Why it does not work now."""
    delay: float = 0.0
    """Seconds each question takes."""


class MemoryRecordStore:
    """One node's way to a board."""

    def __init__(self, board: Board, table: Table = "dns_records", period: float = 30.0) -> None:
        self.board, self.table, self.period = board, table, period
        self.where = f"{table} in memory"
        self.writes: list[Change] = []
        self.looks = 0
        self._known: set[str] = set()

    async def look(self, names: Collection[str]) -> Rows:
        self.looks += 1
        await self._ask()
        known = {*names, *self._known}
        rows = {key: row for key, row in self.board.rows.items() if not isinstance(key, DnsKey) or key.name in known}
        self._known = {key.name for key in rows if isinstance(key, DnsKey)}
        return rows

    async def write(self, changes: Sequence[Change]) -> AsyncIterator[tuple[Change, str]]:
        for change in changes:
            await self._ask()
            yield change, self._write(change)

    async def close(self) -> None:
        """Nothing is open."""

    async def _ask(self) -> None:
        await asyncio.sleep(self.board.delay)
        if self.board.fault:
            raise DriverError(f"{self.where}: {self.board.fault}")

    def _write(self, change: Change) -> str:
        name = getattr(change.key, "name", "")
        if name in self.board.foreign:
            return "there are records that anycastlb did not make"
        if self.board.rows.get(change.key) != change.old:
            return RACED
        self._known.add(name)
        self.writes.append(change)
        if change.new is None:
            del self.board.rows[change.key]
        else:
            self.board.rows[change.key] = change.new
        return ""
