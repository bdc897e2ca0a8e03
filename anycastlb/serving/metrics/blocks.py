"""The metrics of backends as text, written anew only where something has changed.

They are most of a scrape: ten backends of a thousand services are a quarter of a million lines. The lines of the
backends of one service on one VIP are one block in each family, which is kept for as long as the objects that it was
made of are the same. What is kept of a line is its number, and of a backend its labels: whole lines would be 18 MB.
What changes together is one group: what was decided, what the checks found, what the kernel counted. ``BackendBlocks``
is for one scrape at a time, in any thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import is_
from typing import Any

from anycastlb.core.model import Address, BackendVerdict, CheckState, DestinationKey, Service, Snapshot
from anycastlb.serving.metrics.families import FamilyLines, FamilySamples, Lines
from anycastlb.serving.metrics.rows import BackendRow
from anycastlb.serving.metrics.snapshot import checked_metrics, decided_metrics
from anycastlb.serving.metrics.text import Labels
from anycastlb.serving.metrics.traffic import Statistics, counted_metrics

SAME_CLOCK = 0.001
"""Seconds that the wall clock and the monotonic clock may drift apart before moments are written anew."""


class BackendBlocks:
    """The blocks of the last scrape."""

    def __init__(self) -> None:
        self._blocks: dict[tuple[str, Address], Block] = {}
        self._wall = 0.0
        """Wall-clock seconds at the zero of the snapshot's clock."""

    def collect(self, snapshot: Snapshot, kernel: Statistics | None) -> dict[str, FamilyLines]:
        """The families of backends by their names."""
        wall = snapshot.at_wall - snapshot.at
        if abs(wall - self._wall) > SAME_CLOCK:
            self._wall = wall
        known, self._blocks = self._blocks, {}
        for service in snapshot.inputs.catalog.services:
            for vip in service.vips:
                block = known.get((service.name, vip))
                if block is None or block.service is not service:
                    block = Block(service, vip)
                block.update(snapshot, kernel or {}, self._wall)
                self._blocks[service.name, vip] = block
        empty = (*decided_metrics((), {}, 0.0), *checked_metrics((), 0.0), *counted_metrics((), {}))
        columns = list(zip(*(block.lines for block in self._blocks.values()), strict=True)) or [()] * len(empty)
        return {rows.family.name: FamilyLines(rows.family, column) for rows, column in zip(empty, columns, strict=True)}


class Block:
    """The backends of one service on one VIP, and their lines in each family."""

    def __init__(self, service: Service, vip: Address) -> None:
        self.service = service
        self._vip, key, shown = vip, service.key(vip), str(vip)
        self._backends = service.members(vip)
        self._keys = [DestinationKey(key, backend.address, backend.port) for backend in self._backends]
        self._checks = [service.check(vip, backend) for backend in self._backends]
        self._names = [(service.name, backend.name, shown) for backend in self._backends]
        self._labels = Labels()
        self._verdicts: list[BackendVerdict | None] = []
        self._states: list[CheckState | None] = []
        self._leaving: list[Any] = []
        self._counters: list[Any] = []
        self._wall: float | None = None
        self._decided: list[Lines] = []
        self._checked: list[Lines] = []
        self._counted: list[Lines] = []

    @property
    def lines(self) -> list[Lines]:
        return [*self._decided, *self._checked, *self._counted]

    def update(self, snapshot: Snapshot, kernel: Statistics, wall: float) -> None:
        """Write anew what is not as it was."""
        decision, health = snapshot.decision, snapshot.inputs.health
        judged = decision.backends if self._vip in decision.verdicts else {}
        verdicts = [judged.get(key) for key in self._keys]
        states = [health.get(check) for check in self._checks]
        counters = [kernel.get(key) for key in self._keys] if kernel else []
        memory = decision.memory.leaving
        leaving = [memory.get(("destinations", key)) for key in self._keys] if memory else []
        moved = wall != self._wall or not _same(verdicts, self._verdicts)
        decided = moved or not _same(leaving, self._leaving)
        checked = moved or not _same(states, self._states)
        counted = moved or counters != self._counters
        if decided or checked or counted:
            rows = self._rows(verdicts, states)
            self._decided = self._written(decided_metrics(rows, memory, wall)) if decided else self._decided
            self._checked = self._written(checked_metrics(rows, wall)) if checked else self._checked
            self._counted = self._written(counted_metrics(rows, kernel)) if counted else self._counted
            self._verdicts, self._states, self._leaving = verdicts, states, leaving
            self._counters, self._wall = counters, wall

    def _rows(self, verdicts: Sequence[BackendVerdict | None], states: Sequence[CheckState | None]) -> list[BackendRow]:
        return [
            BackendRow(names, key, backend, verdict, state)
            for names, key, backend, verdict, state in zip(
                self._names, self._keys, self._backends, verdicts, states, strict=True
            )
            if verdict is not None
        ]

    def _written(self, families: Iterable[FamilySamples]) -> list[Lines]:
        return [self._labels.lines(rows.family, rows.samples) for rows in families]


def _same(before: Sequence[object], now: Sequence[object]) -> bool:
    return len(before) == len(now) and all(map(is_, before, now))
