"""The brain: from everything that is known to everything that should be.

``decide(inputs, memory, now)`` is a pure function composed of ``health``, ``weights`` and ``gate``. It never looks at
the machine: what it wants does not depend on what is there, except through ``adopt``, once, when the daemon starts,
and through ``inputs.failures``, what the machine refused in the last cycle.

Waiting is a desired state: a row nobody asks for any more stays in the desired state until its drain time is over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from anycastlb import gate, health, weights
from anycastlb.model import (
    Address,
    Announce,
    Backend,
    BackendVerdict,
    Change,
    Check,
    Decision,
    Destination,
    DestinationKey,
    Failure,
    Gate,
    Inputs,
    Leaving,
    Memory,
    Route,
    Service,
    ServiceKey,
    ServiceVerdict,
    State,
    Table,
    Verdict,
    VipAddress,
    VirtualService,
)

ADOPTED_DRAIN = 30.0
"""Seconds a row found at start, which no catalog names any more, is still served."""

TICK = 0.001
"""Seconds: the least a decision waits for itself. Clock arithmetic is not exact, and a step must not be missed."""

RowId = tuple[Table, Any]


def adopt(actual: State, now: float) -> Memory:
    """The memory of a daemon that finds its own work in the kernel: nothing of it may flap because of the restart."""
    serving = {key.service.address for key, row in actual.destinations.items() if row.weight}
    return Memory(
        gates={vip: Gate(True, now, now) for vip in actual.addresses if vip in serving or vip in actual.routes},
        rows={
            (table, key): (row, ADOPTED_DRAIN)
            for table in ("addresses", "services", "destinations")
            for key, row in actual.rows(table).items()
        },
        adopted=frozenset(key for key, row in actual.destinations.items() if row.weight),
        order=tuple(actual.destinations),
    )


def decide(inputs: Inputs, memory: Memory, now: float) -> Decision:
    """The desired state, the verdicts with their reasons, and when to look again. ``now`` is monotonic seconds."""
    board = _Board(inputs, memory, now)
    for service in inputs.catalog.services:
        for vip in service.vips:
            board.assess(service, vip)
    verdicts, gates, routes = board.gates()
    rows = {} if inputs.stopping else board.rows
    leaving = _leaving(rows, memory, now)
    board.wakes += [item.until for item in leaving.values()]
    desired = _state(rows, leaving, memory)
    return Decision(
        desired=replace(desired, sysctls=inputs.sysctls, routes=routes),
        memory=Memory(gates, rows, leaving, memory.adopted, board.up_since, tuple(desired.destinations)),
        verdicts=verdicts,
        backends=board.backends,
        wake_at=max(min(board.wakes), now + TICK) if board.wakes else None,
    )


@dataclass
class _Board:
    """What one decision collects while it walks the catalog."""

    inputs: Inputs
    memory: Memory
    now: float
    rows: dict[RowId, tuple[Any, float]] = field(default_factory=dict)
    backends: dict[DestinationKey, BackendVerdict] = field(default_factory=dict)
    services: dict[Address, list[tuple[Announce, ServiceVerdict]]] = field(default_factory=dict)
    up_since: dict[DestinationKey, float] = field(default_factory=dict)
    wakes: list[float] = field(default_factory=list)
    refused: Mapping[Address | ServiceKey | DestinationKey, str] = field(init=False)
    """What the machine refused to create, and so cannot serve, with its reason."""

    def __post_init__(self) -> None:
        self.refused = {failure.change.key: failure.reason for failure in refusals(self.inputs.failures)}

    def assess(self, service: Service, vip: Address) -> None:
        """One service on one VIP: weights of its backends, rows for the kernel, and whether it can be served."""
        key, members = service.key(vip), service.members(vip)
        self.rows["addresses", vip] = (VipAddress(), max(service.drain, self._drain(vip)))
        self.rows["services", key] = (service.row(vip), service.drain)
        named = [DestinationKey(key, backend.address, backend.port) for backend in members]
        nominal = weights.quantise([backend.weight for backend in members], service.virtual.scheduler)
        standing = weights.standing(nominal)
        alive = [self._alive(service.check(vip, b), destination) for b, destination in zip(members, named, strict=True)]
        in_rotation = [backend.weight > 0 and not backend.drain for backend in members]
        up = sum(ok and used for (ok, _), used in zip(alive, in_rotation, strict=True))
        verdict = self._service(service, key, up, sum(in_rotation))
        fail_open = verdict.open and not up
        for backend, destination, table_weight, (ok, reason) in zip(members, named, nominal, alive, strict=True):
            weight, reason = self._weight(service, backend, destination, table_weight, ok or fail_open, reason)
            self.backends[destination] = BackendVerdict(service.name, backend.name, ok, weight, reason)
        # A destination the kernel keeps refusing goes last, or every look would move its successors.
        order = sorted(range(len(members)), key=lambda place: named[place] in self.refused)
        for place in order:
            backend, weight = members[place], self.backends[named[place]].weight
            row = Destination(
                forward=backend.forward,
                weight=weight,
                last_weight=weight or nominal[place] or standing,
                upper=backend.upper,
                lower=backend.lower,
                tunnel_port=backend.tunnel_port,
            )
            self.rows["destinations", named[place]] = (row, service.drain)
        self.services.setdefault(vip, []).append((service.announce, verdict))

    def _drain(self, vip: Address) -> float:
        known: tuple[Any, float] = self.rows.get(("addresses", vip), (None, 0.0))
        return known[1]

    def _alive(self, check: Check, key: DestinationKey) -> tuple[bool, str]:
        if reason := self.refused.get(key):
            return False, f"down: {reason}"
        state = self.inputs.health.get(check, health.UNKNOWN)
        up, reason = health.verdict(state, key in self.memory.adopted)
        if up:
            # Up when the daemon started: no slow start for those.
            since = gate.NEVER if key in self.memory.adopted else self.now
            self.up_since[key] = self.memory.up_since.get(key, since)
        return up, reason

    def _service(self, service: Service, key: ServiceKey, up: int, total: int) -> ServiceVerdict:
        needed = service.announce.min_backends.of(total)
        counted = f"{up}/{total} backends up"
        if refusal := self.refused.get(key):
            return ServiceVerdict(service.name, key, False, up, total, needed, refusal)
        if up >= needed:
            return ServiceVerdict(service.name, key, True, up, total, needed, counted)
        if total and not up and service.announce.fail == "keep":
            return ServiceVerdict(service.name, key, True, up, total, needed, f"{counted}; kept open (fail = keep)")
        return ServiceVerdict(service.name, key, False, up, total, needed, f"{counted}, needs {needed}")

    def _weight(
        self, service: Service, backend: Backend, key: DestinationKey, nominal: int, up: bool, reason: str
    ) -> tuple[int, str]:
        if backend.drain:
            return 0, "drained" if up else f"drained; {reason}"
        if not nominal:
            return 0, "weight 0 in the catalog"
        if not up:
            return 0, reason
        age = self.now - self.up_since.get(key, gate.NEVER)
        weight, step = weights.ramp(nominal, age, service.slow_start)
        if step is None:
            return weight, reason
        self.wakes.append(self.now - age + step)
        return weight, f"{reason}; slow start: {weight} of {nominal}"

    def gates(self) -> tuple[dict[Address, Verdict], dict[Address, Gate], dict[Address, Route]]:
        """Every VIP's verdict, what its gate remembers, and the routes that follow."""
        verdicts, gates, routes = {}, {}, {}
        for vip, services in self.services.items():
            ready, reason = self._ready(vip, services)
            announces = [announce for announce, _ in services]
            hold_up = max(announce.hold_up for announce in announces)
            hold_down = max(announce.hold_down for announce in announces)
            memory, reason, wake = gate.step(self.memory.gates.get(vip), ready, reason, hold_up, hold_down, self.now)
            gates[vip] = memory
            verdicts[vip] = Verdict(vip, memory.open, reason, memory.since, tuple(v for _, v in services))
            if memory.open:
                routes[vip] = _route(announces)
            if wake is not None:
                self.wakes.append(wake)
        return verdicts, gates, routes

    def _ready(self, vip: Address, services: Sequence[tuple[Announce, ServiceVerdict]]) -> tuple[bool, str]:
        if self.inputs.stopping:
            return False, "this node is stopping"
        if self.inputs.node in self.inputs.catalog.drained:
            return False, f"this node is drained (drain/{self.inputs.node})"
        if refusal := self.refused.get(vip):
            return False, refusal
        return gate.combine(services)


def _route(announces: Iterable[Announce]) -> Route:
    """One route for all services of a VIP: communities are united, of the rest the first that is set counts."""
    routes = [announce.route for announce in announces]
    return Route(
        communities=tuple(sorted({c for route in routes for c in route.communities})),
        large_communities=tuple(sorted({c for route in routes for c in route.large_communities})),
        med=next((route.med for route in routes if route.med is not None), None),
        local_preference=next((r.local_preference for r in routes if r.local_preference is not None), None),
        as_path_prepend=max((route.as_path_prepend for route in routes), default=0),
    )


def _leaving(rows: Mapping[RowId, Any], memory: Memory, now: float) -> dict[RowId, Leaving]:
    """Rows nobody asks for any more whose drain time is not over; one that is asked for again is taken back."""
    leaving = {row_id: item for row_id, item in memory.leaving.items() if row_id not in rows}
    for row_id, (row, drain) in memory.rows.items():
        if row_id not in rows:
            leaving[row_id] = Leaving(row, now + drain)
    return {row_id: item for row_id, item in leaving.items() if item.until > now}


def _state(rows: Mapping[RowId, tuple[Any, float]], leaving: Mapping[RowId, Leaving], memory: Memory) -> State:
    addresses: dict[Address, VipAddress] = {}
    services: dict[ServiceKey, VirtualService] = {}
    kept: dict[DestinationKey, Destination] = {}
    for (table, key), item in leaving.items():
        if table == "addresses":
            addresses[key] = item.row
        elif table == "services":
            services[key] = item.row
    for (table, key), item in leaving.items():
        if table == "destinations" and (key.service in services or ("services", key.service) in rows):
            # A backend that left a living service gets no new flows; one of a leaving service serves as before.
            alone = ("services", key.service) in rows
            kept[key] = replace(item.row, weight=0, last_weight=_table_weight(item.row)) if alone else item.row
    wanted: dict[DestinationKey, Destination] = {}
    for (table, key), (row, _) in rows.items():
        if table == "addresses":
            addresses[key] = row
        elif table == "services":
            services[key] = row
        else:
            wanted[key] = row
    return State(addresses=addresses, services=services, destinations=_merged(wanted, kept, memory))


def _table_weight(row: Destination) -> int:
    return row.weight or row.last_weight or 1


def _merged(
    wanted: Mapping[DestinationKey, Destination], kept: Mapping[DestinationKey, Destination], memory: Memory
) -> dict[DestinationKey, Destination]:
    """Wanted destinations in their order, each leaving one after whatever stood before it: leaving moves nobody."""
    if not kept:
        return dict(wanted)
    followers: dict[DestinationKey | ServiceKey, list[DestinationKey]] = {}
    anchors: dict[ServiceKey, DestinationKey] = {}
    for key in memory.order:
        if key in wanted:
            anchors[key.service] = key
        elif key in kept:
            followers.setdefault(anchors.get(key.service, key.service), []).append(key)
    merged: dict[DestinationKey, Destination] = {}
    seen: set[ServiceKey] = set()
    for key, row in wanted.items():
        if key.service not in seen:
            seen.add(key.service)
            merged.update((k, kept[k]) for k in followers.get(key.service, ()))
        merged[key] = row
        merged.update((k, kept[k]) for k in followers.get(key, ()))
    merged.update((k, kept[k]) for k in (*memory.order, *kept) if k in kept and k not in merged)
    return merged


def refusals(failures: Iterable[Failure]) -> tuple[Failure, ...]:
    """The failures a decision depends on: what could not be built. What could not be changed still serves as it was."""
    return tuple(failure for failure in failures if _unbuilt(failure.change))


def _unbuilt(change: Change) -> bool:
    if change.table == "services" and change.verb == "update":
        return bool(change.old.scheduler == "none")  # filled, but never switched to its scheduler
    return change.verb == "create" and change.table in ("addresses", "services", "destinations")
