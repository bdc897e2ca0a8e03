"""A machine in memory: the fake behind every driver protocol, for speed and for faults.

It keeps the changes it is given, and tests can make it fail, or make its looks omit rows as a kernel's do. It passes
the same contract tests as the real drivers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from anycastlb.core.model import Change, Destination, DestinationKey, Failure, Reason, Rows, Table


class MemoryDriver:
    """Tables as dicts. ``refuse`` answers the reason a change is to fail with, or None.

    ``omits`` says which rows a look leaves out although they exist.
    """

    def __init__(
        self,
        tables: tuple[Table, ...],
        refuse: Callable[[Change], str | None] = lambda change: None,
        omits: Callable[[Table, Any], bool] = lambda table, key: False,
    ) -> None:
        self.tables = tables
        self.rows: dict[Table, dict[Any, Any]] = {table: {} for table in tables}
        self.refuse, self.omits = refuse, omits
        self.writes: list[Change] = []
        self.looks = 0
        self.idle: set[DestinationKey] = set()
        """Destinations without a connection."""

    async def unused(self, keys: Collection[DestinationKey]) -> frozenset[DestinationKey]:
        return frozenset(keys) & self.idle

    async def observe(self) -> Mapping[Table, Rows]:
        self.looks += 1
        return {
            table: {key: row for key, row in rows.items() if not self.omits(table, key)}
            for table, rows in self.rows.items()
        }

    async def apply(self, changes: Sequence[Change]) -> Sequence[Failure]:
        failures = []
        for change in changes:
            refusal = self.refuse(change)
            reason = Reason("kernel_refused", refusal) if refusal else self._clash(change)
            if reason:
                failures.append(Failure(change, reason))
                continue
            self.writes.append(change)
            self._write(change)
        return failures

    def _clash(self, change: Change) -> Reason | None:
        """What a kernel would say: EEXIST, ENOENT, and ESRCH for a destination without its service."""
        rows = self.rows[change.table]
        if change.table == "destinations" and change.new and change.key.service not in self.rows["services"]:
            return Reason("service_missing", f"{change.key.service} does not exist")
        if change.verb == "create" and change.key in rows:
            return Reason("exists", f"{change.key} exists already")
        if change.verb != "create" and change.key not in rows:
            return Reason("missing", f"{change.key} does not exist")
        return None

    def _write(self, change: Change) -> None:
        rows = self.rows[change.table]
        if change.new is None:
            del rows[change.key]
            if change.table == "services":
                destinations = self.rows.get("destinations", {})
                for key in [key for key in destinations if key.service == change.key]:
                    del destinations[key]
            return
        row = change.new
        if change.moved or _unweighted(change):
            del rows[change.key]
        if isinstance(row, Destination) and row.weight:
            row = replace(row, last_weight=row.weight)  # a kernel knows no other
        rows[change.key] = row


def _unweighted(change: Change) -> bool:
    """A destination that never had a weight is asked for: only one fresh from the kernel is that."""
    old, new = change.old, change.new
    if not isinstance(old, Destination) or not isinstance(new, Destination):
        return False
    return new.weight == new.last_weight == 0 != old.last_weight
