"""What a node must not forget when its daemon is restarted: why a gate is closed, and for how long.

Hysteresis is worth nothing if a restart ends it. So the gates that are closed, or still carry a penalty, and the
services below their threshold are kept on disk, in wall-clock time. After a restart they are believed by age: what the
routes say now comes first, and what an old record says of a gate comes last.

Pure. Decision record: docs/decisions/0003-pools-and-gates.md.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from anycastlb.core.delta import delta
from anycastlb.core.model import (
    Address,
    Catalog,
    DestinationKey,
    Gate,
    Inputs,
    Memory,
    Recollection,
    ServiceKey,
    State,
    Verdict,
)

BELIEVED = 3600.0
"""Seconds for which a record's word counts that a gate is closed; its penalty counts until it has decayed."""
NOTHING_LEFT = 1.0
"""A penalty below this is none."""


def remember(inputs: Inputs, memory: Memory, verdicts: tuple[Verdict, ...], now: float) -> Recollection:
    """What to keep of a decision."""
    below = frozenset[ServiceKey]().union(*(_below(verdict, memory.serving) for verdict in verdicts))
    return Recollection(_kept(memory.gates, inputs.wall), below, inputs.wall + now)


class Recorder:
    """What to keep of one decision after the other, as ``remember`` says it: only what differs is looked at."""

    def __init__(self) -> None:
        self._wall: float | None = None
        self._gates: Mapping[Address, Gate] = {}
        self._verdicts: Mapping[Address, Verdict] = {}
        self._serving: frozenset[ServiceKey] = frozenset()
        self._kept: dict[Address, Gate] = {}
        """The gates that are kept, by the wall clock."""
        self._below: dict[Address, frozenset[ServiceKey]] = {}
        """The services below their thresholds, by VIP; those of other VIPs are missing."""

    def record(self, inputs: Inputs, memory: Memory, verdicts: Mapping[Address, Verdict], now: float) -> Recollection:
        """What to keep of this decision."""
        wall, gates = inputs.wall, memory.gates
        if wall != self._wall:
            self._kept = _kept(gates, wall)
        elif moved := frozenset(delta(self._gates, gates).keys):
            rest = {vip: gate for vip, gate in self._kept.items() if vip not in moved}
            self._kept = rest | _kept({vip: gates[vip] for vip in moved if vip in gates}, wall)
        changed = verdicts if memory.serving is not self._serving else delta(self._verdicts, verdicts).keys
        for vip in changed:
            below = _below(verdicts[vip], memory.serving) if vip in verdicts else frozenset()
            if below:
                self._below[vip] = below
            else:
                self._below.pop(vip, None)
        for gone in [vip for vip in self._below if vip not in verdicts]:
            del self._below[gone]
        self._wall, self._gates, self._verdicts, self._serving = wall, gates, verdicts, memory.serving
        return Recollection(self._kept, frozenset[ServiceKey]().union(*self._below.values()), wall + now)


def _kept(gates: Mapping[Address, Gate], wall: float) -> dict[Address, Gate]:
    """Those of these gates that are worth keeping, by the wall clock."""
    return {vip: _shifted(gate, wall) for vip, gate in gates.items() if not gate.open or gate.penalty >= NOTHING_LEFT}


def _below(verdict: Verdict, serving: Collection[ServiceKey]) -> frozenset[ServiceKey]:
    return frozenset(s.key for s in verdict.services if s.key not in serving)


def alike(one: Recollection, other: Recollection) -> bool:
    """Do two records say the same? A penalty decays by itself, and each record has its own moment."""
    return _gist(one) == _gist(other)


def _gist(recollection: Recollection) -> object:
    gates = recollection.gates.items()
    moved = {vip: (gate.open, gate.since, gate.suppressed_since, gate.withdrawn_wall) for vip, gate in gates}
    return moved, recollection.below


def recalled(recollection: Recollection | None, wall: float, now: float) -> Recollection:
    """The record in the daemon's own time, as far as it is believed; nothing of it lies in the future."""
    if recollection is None:
        return Recollection()
    gates = {vip: _past(_shifted(gate, -wall), now) for vip, gate in recollection.gates.items()}
    age = now + wall - recollection.at_wall
    if not -BELIEVED <= age <= BELIEVED:
        gates = {vip: replace(gate, open=True) for vip, gate in gates.items() if gate.penalty}
        return Recollection(gates, at_wall=recollection.at_wall)
    return replace(recollection, gates=gates)


def weighted(actual: State) -> frozenset[ServiceKey]:
    """The kernel's services that have a destination with a weight."""
    return frozenset(key.service for key, row in actual.destinations.items() if row.weight)


def adopted_gates(
    actual: State, catalog: Catalog, known: Recollection, connected: bool, now: float
) -> dict[Address, Gate]:
    """The gates of a daemon that meets its own work in the kernel.

    While the BGP bridge is connected, the routes tell which gates were open. Else one counts as open whose VIP gets
    flows in the kernel, unless the record says that it was closed. What is missing beside that closes no gate: somebody
    has deleted it, and the first plan puts it back.
    """
    by_weight = frozenset[Address]() if connected else _served(actual, catalog)
    gates: dict[Address, Gate] = {}
    for vip in {**actual.routes, **dict.fromkeys(by_weight), **known.gates}:
        before = known.gates.get(vip)
        if vip in actual.routes or (vip in by_weight and (before is None or before.open)):
            gates[vip] = replace(
                before or Gate(True, now), open=True, since=now, ready_since=now, suppressed_since=None
            )
        elif before is not None:
            gates[vip] = replace(before, open=False, ready_since=None)
    return gates


def presumed_up(actual: State, catalog: Catalog, gates: Mapping[Address, Gate]) -> frozenset[DestinationKey]:
    """The backends that count as up until their first results although the kernel does not have them.

    A gate is open, and no destination of its VIP has a weight: the rows are gone, and nobody can say which backends
    were up. Those of which a row is left were not. Where anything still gets flows, what is missing may as well be new.
    """
    served = _served(actual, catalog)
    return frozenset(
        key
        for service in catalog.services
        for vip in service.vips
        if vip in gates and gates[vip].open and vip not in served
        for backend in service.members(vip)
        if (key := DestinationKey(service.key(vip), backend.address, backend.port)) not in actual.destinations
    )


def _served(actual: State, catalog: Catalog) -> frozenset[Address]:
    """The VIPs that get flows in the kernel, or requests through HAProxy. Only the catalog says which VIPs a fwmark
    service and a gateway have."""
    weights = weighted(actual)
    vips = {key.address for key in weights if key.protocol != "fwmark"}
    vips.update(vip for s in catalog.services for vip in s.vips if s.key(vip) in weights)
    if any(row.state == "ready" and row.weight for row in actual.http_servers.values()):
        gateways = {key.gateway for key in actual.http_sites}
        vips.update(vip for gateway in catalog.gateways for vip in gateway.vips if gateway.name in gateways)
    return frozenset(vips)


def _shifted(gate: Gate, seconds: float) -> Gate:
    """Its moments by another clock."""
    suppressed = None if gate.suppressed_since is None else gate.suppressed_since + seconds
    return replace(
        gate,
        since=gate.since + seconds,
        ready_since=None,
        penalty_at=gate.penalty_at + seconds,
        suppressed_since=suppressed,
    )


def _past(gate: Gate, now: float) -> Gate:
    suppressed = None if gate.suppressed_since is None else min(gate.suppressed_since, now)
    return replace(gate, since=min(gate.since, now), penalty_at=min(gate.penalty_at, now), suppressed_since=suppressed)
