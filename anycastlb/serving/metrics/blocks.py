"""The metrics of backends as text, written anew only where something has changed.

They are most of a scrape: ten backends of a thousand services are a quarter of a million lines. The lines of the
backends of one service on one VIP are one block in each family, which is kept for as long as the objects that it was
made of are the same. What is kept of a line is its number, and of a backend its labels: whole lines would be 18 MB.
What changes together is one group: what was decided, what the checks found, what the kernel counted. ``BackendBlocks``
is for one scrape at a time, in any thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from anycastlb.core.identity import same_objects
from anycastlb.core.model import (
    Address,
    BackendVerdict,
    CheckState,
    Leaving,
    Service,
    Snapshot,
    TrafficCounters,
)
from anycastlb.serving.metrics.backends import Column, checked_columns, counted_columns, decided_columns
from anycastlb.serving.metrics.families import FAMILIES, FamilyLines, Lines
from anycastlb.serving.metrics.text import escaped, lines
from anycastlb.serving.metrics.traffic import DIRECTIONS, Statistics
from anycastlb.serving.views.index import Order, destination_keys

SAME_CLOCK = 0.001
"""Seconds that the wall clock and the monotonic clock may drift apart before moments are written anew."""
COLUMNS = (*decided_columns((), (), (), 0.0), *checked_columns((), 0.0), *counted_columns((), ()))
"""Every column of a block, in order."""
ENDS = {direction: f'direction="{direction}",'.encode() if direction else b"" for direction in ("", *DIRECTIONS)}
T = TypeVar("T")


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
                    block = Block(service, vip, snapshot.decision.memory.order)
                block.update(snapshot, kernel or {}, self._wall)
                self._blocks[service.name, vip] = block
        pieces: dict[str, list[Lines]] = {family: [] for family, *_ in COLUMNS}
        for (family, *_), column in zip(
            COLUMNS, zip(*(block.lines for block in self._blocks.values()), strict=True), strict=False
        ):
            pieces[family] += column
        families = ((FAMILIES[name], of_all) for name, of_all in pieces.items())
        return {family.name: FamilyLines(family, of_all) for family, of_all in families}


class Block:
    """The backends of one service on one VIP, and their lines in each family."""

    __slots__ = (
        *("service", "_vip", "_backends", "_keys", "_checks", "_labels", "_end", "_verdicts", "_states", "_leaving"),
        *("_counters", "_wall", "_decided", "_checked", "_counted"),
    )

    def __init__(self, service: Service, vip: Address, order: Order) -> None:
        self.service = service
        self._vip = vip
        self._backends = service.members(vip)
        self._keys = destination_keys(service, vip, order)
        self._checks = tuple([service.check(vip, backend) for backend in self._backends])
        self._labels = tuple(f'{{backend="{escaped(backend.name)}",'.encode() for backend in self._backends)
        self._end = f'service="{escaped(service.name)}",vip="{vip}"}}'.encode()
        """What comes after the name of each backend, and after the direction where there is one."""
        self._verdicts: tuple[BackendVerdict | None, ...] = ()
        self._states: tuple[CheckState | None, ...] = ()
        self._leaving: tuple[Leaving | None, ...] = ()
        self._counters: tuple[TrafficCounters | None, ...] = ()
        self._wall: float | None = None
        self._decided: tuple[Lines, ...] = ()
        self._checked: tuple[Lines, ...] = ()
        self._counted: tuple[Lines, ...] = ()

    @property
    def lines(self) -> tuple[Lines, ...]:
        return self._decided + self._checked + self._counted

    def update(self, snapshot: Snapshot, kernel: Statistics, wall: float) -> None:
        """Write anew what is not as it was. A backend that was not decided on has no lines."""
        decision, health, leavings = snapshot.decision, snapshot.inputs.health, snapshot.decision.memory.leaving
        judged = decision.backends if self._vip in decision.verdicts else {}
        verdicts = tuple([judged.get(key) for key in self._keys])
        states = tuple([health.get(check) for check in self._checks])
        counters = tuple([kernel.get(key) for key in self._keys])
        leaving: tuple[Leaving | None, ...] = (None,) * len(self._keys)
        if leavings:
            leaving = tuple([leavings.get(("destinations", key)) for key in self._keys])
        moved = wall != self._wall or not same_objects(verdicts, self._verdicts)
        places = [place for place, verdict in enumerate(verdicts) if verdict is not None]
        known, backends = [v for v in verdicts if v is not None], _at(places, self._backends)
        if moved or not same_objects(leaving, self._leaving):
            self._decided = self._written(places, decided_columns(known, backends, _at(places, leaving), wall))
        if moved or not same_objects(states, self._states):
            self._checked = self._written(places, checked_columns(_at(places, states), wall))
        if moved or counters != self._counters:
            self._counted = self._written(places, counted_columns(_at(places, counters), backends))
        self._verdicts, self._states, self._leaving = verdicts, states, leaving
        self._counters, self._wall = counters, wall

    def _written(self, places: Sequence[int], columns: Iterable[Column]) -> tuple[Lines, ...]:
        labels = _at(places, self._labels)
        alike: dict[object, Lines] = {}
        """Those in which all have one number: several families have the same one, as the same object."""
        written = []
        for _, direction, numbers in columns:
            first = numbers[0] if numbers else None
            same = first is not None and numbers.count(first) == len(numbers)
            name = (direction, first, type(first)) if same else None
            found = alike.get(name)
            if found is None:
                found = lines(labels, numbers, ENDS[direction] + self._end)
                if same:
                    alike[name] = found
            written.append(found)
        return tuple(written)


def _at(places: Sequence[int], items: Sequence[T]) -> tuple[T, ...]:
    """Those at these places, which may be all."""
    return tuple(items) if len(places) == len(items) else tuple(items[place] for place in places)
