"""The results of all groups of VIPs together: the tables of the whole decision, and which rows nobody asks for now.

What is equal to what the last decision had is the same object, so that readers need not compare it. Pure.

Decision record: docs/decisions/0014-incremental-brain.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import Any, TypeVar

from anycastlb.core.decision.group_result import GroupResult, result
from anycastlb.core.decision.rows import RowId, Tables
from anycastlb.core.decision.scope import Scope
from anycastlb.core.decision.steps import Steps
from anycastlb.core.delta import Edited
from anycastlb.core.identity import same_objects
from anycastlb.core.model import Address, Memory, ServiceKey

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class AllGroups:
    """The results of all groups, in the catalog's order, after the last decision and after this one."""

    old: Mapping[Address, GroupResult]
    new: Mapping[Address, GroupResult]
    anew: tuple[Address, ...]
    """The groups that were decided anew."""
    pairs: tuple[tuple[GroupResult, GroupResult], ...] | None
    """Before and after, of the groups whose result is another object; None if they are not the same groups."""

    def table(self, name: str, before: Mapping[K, V]) -> Mapping[K, V]:
        """One table of all groups, in their order. ``before``: the one of the old results."""
        part: Callable[[GroupResult], Mapping[K, V]] = attrgetter(name)
        if self.pairs is not None:
            parts = [(part(one), part(two)) for one, two in self.pairs]
            if all(one is two or same_objects(one, two) for one, two in parts):
                rows = _united(two for one, two in parts if one is not two)
                return Edited(before, rows) if rows else before
        return _united(map(part, self.new.values()))

    def tables(self, before: Tables) -> Tables:
        """The kernel's tables. ``before``: those of the old results."""
        return Tables(
            self.table("addresses", before.addresses),
            self.table("services", before.services),
            self.table("destinations", before.destinations),
            self.table("order", before.order),
        )

    def memory(self, before: Memory) -> Memory:
        """What the groups leave for the next decision. ``before``: of the old results."""
        return Memory(
            gates=self.table("gates", before.gates),
            rows=self.table("rows", before.rows),
            serving=self._serving(before.serving),
            troubles=self.table("troubles", before.troubles),
            unproven=self.table("unproven", before.unproven),
            followed=self.table("followed", before.followed),
            routes=self.table("routes", before.routes),
        )

    def _serving(self, before: frozenset[ServiceKey]) -> frozenset[ServiceKey]:
        """The services of all groups that can be served. ``before``: those of the old results."""
        if self.pairs is not None and all(one.serving is two.serving for one, two in self.pairs):
            return before
        return frozenset().union(*(one.serving for one in self.new.values()))

    def given_up(self) -> Iterator[tuple[RowId, Any]]:
        """The rows that groups which were decided anew no longer ask for."""
        for name in self.anew:
            if name in self.old and (before := self.old[name].rows) is not (after := self.new[name].rows):
                yield from ((row_id, row) for row_id, row in before.items() if row_id not in after)

    @property
    def wakes(self) -> Iterator[float]:
        """When a weight next changes by the mere passing of time."""
        return chain.from_iterable(one.wakes for one in self.new.values())

    @property
    def cached(self) -> bool:
        """Can all their flows do without their connection entries?"""
        return all(one.cached for one in self.new.values())


def decided(scope: Scope, steps: Steps) -> AllGroups:
    """The results of all groups, those that were made anew by ``steps`` among them."""
    old = scope.last.results
    results = dict(old)
    for name, group, before in scope.groups():
        parts = steps.of_group(scope.basis, group, scope.steady(name))
        results[name] = result(parts, before)
    groups = scope.grouping.groups
    if not same_objects(results, groups):
        results = {name: results[name] for name in groups}
    if not same_objects(old, results):
        return AllGroups(old, results, scope.anew, None)
    pairs = tuple((old[name], results[name]) for name in scope.anew if old[name] is not results[name])
    return AllGroups(old, results, scope.anew, pairs)


def _united(parts: Iterable[Mapping[K, V]]) -> dict[K, V]:
    united: dict[K, V] = {}
    for part in parts:
        united.update(part)
    return united
