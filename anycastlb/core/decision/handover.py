"""An edit is no outage: what it takes out serves on until what it brings was checked for the first time.

Whoever replaces all backends of a service, or its port, asks for backends that nobody has checked yet. Until their
first results are due, the old ones keep their weights, and the gate stays open over them. They begin to leave when
every new backend was checked, or its result is overdue.

Pure. Decision record: docs/decisions/0003-pools-and-gates.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from anycastlb.core.decision.judgement import Judgement
from anycastlb.core.model import EMPTY, Address, Memory, Service, ServiceKey

Successor: TypeAlias = ServiceKey | Address
"""Whose new backends replace a row: those of its service; if that has none, those of the VIP's other services."""


@dataclass(frozen=True, slots=True)
class Handover:
    """The services and VIPs that wait for the first results of their new backends."""

    begins: frozenset[Successor] = frozenset()
    """They need those backends, so what they replace from now on serves on."""
    ends: Mapping[Successor, float] = field(default_factory=lambda: EMPTY)
    """When the last of the results is due."""
    staffed: frozenset[ServiceKey] = frozenset()
    """The services that have backends, drained ones included."""

    def end(self, successors: Iterable[Successor], begun: bool) -> float | None:
        """Until when a row serves on that these replace; None if it does not. ``begun``: it did so far."""
        return max((self.ends[s] for s in successors if s in self.ends and (begun or s in self.begins)), default=None)


NOTHING = Handover()


def handover(judged: Sequence[Judgement], now: float) -> Handover:
    """What waits for first results now."""
    begins: set[Successor] = set()
    ends: dict[Successor, float] = {}
    for item in judged:
        proving = item.proving
        for successor in (item.verdict.key, item.vip):
            if item.verdict.proving:
                begins.add(successor)
            if proving:
                ends[successor] = max(now + proving, ends.get(successor, now))
    return Handover(frozenset(begins), ends, frozenset(item.verdict.key for item in judged if item.members))


def vips_of(key: ServiceKey, fwmarks: Mapping[ServiceKey, frozenset[Address]]) -> frozenset[Address]:
    """The VIPs of a service; ``fwmarks``: those of fwmark services, whose keys do not name them."""
    return fwmarks.get(key, frozenset()) if key.protocol == "fwmark" else frozenset({key.address})


def fwmarks(services: Iterable[Service], memory: Memory) -> dict[ServiceKey, frozenset[Address]]:
    """The VIPs of every fwmark service that ever was: its rows may stay for longer than anybody wants them."""
    wanted: dict[ServiceKey, frozenset[Address]] = {}
    for service in services:
        for vip in service.vips if service.protocol == "fwmark" else ():
            key = service.key(vip)
            wanted[key] = wanted.get(key, frozenset()) | {vip}
    return {**memory.fwmarks, **wanted}
