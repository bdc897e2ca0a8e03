"""The brain: from everything that is known to everything that should be.

``decide(inputs, memory, now)`` is a pure function composed of ``pool`` (which backends, with which weights), ``gate``
(may the VIP be announced) and ``peer_health`` (what the other nodes make of it). It never looks at the machine: what it
wants does not depend on what is there, except through ``adopt``, once, when the daemon starts, and through what the
last cycle found: ``inputs.failures`` (what the machine refused) and ``inputs.idle`` (leaving backends without
connections).

Waiting is a desired state: a row nobody asks for any more stays in the desired state until its drain time is over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from anycastlb.core.decision import gate, kernel_settings, node_drain, peer_health, probe_marks, service_names
from anycastlb.core.decision.peer_votes import PeerVotes
from anycastlb.core.decision.pool import KeptBackends, Observed, Pool, assess
from anycastlb.core.model import (
    MARKS,
    Address,
    Announce,
    BackendVerdict,
    Change,
    Decision,
    Destination,
    DestinationKey,
    Failure,
    Gate,
    Inputs,
    Leave,
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


def adopt(actual: State, now: float, probes: probe_marks.Range = MARKS) -> Memory:
    """The memory of a daemon that finds its own work in the kernel: nothing of it may flap because of the restart.

    ``probes``: the firewall marks of probes through IPVS.
    """
    given, actual = probe_marks.split(actual, probes)
    serving = {key.service.address for key, row in actual.destinations.items() if row.weight}
    return Memory(
        gates={vip: Gate(True, now, now) for vip in actual.addresses if vip in serving or vip in actual.routes},
        rows={
            (table, key): (row, ADOPTED_DRAIN)
            for table in ("addresses", "services", "destinations")
            for key, row in actual.rows(table).items()
        },
        up_since={key: gate.NEVER for key, row in actual.destinations.items() if row.weight},
        serving=frozenset(key.service for key, row in actual.destinations.items() if row.weight),
        order=tuple(actual.destinations),
        marks=given,
        routes=actual.routes,
    )


def decide(inputs: Inputs, memory: Memory, now: float) -> Decision:
    """The desired state, the verdicts with their reasons, and when to look again. ``now`` is monotonic seconds."""
    board = DecisionBuilder(inputs, memory, now)
    for service in inputs.catalog.services:
        for vip in service.vips:
            board.assess(service, vip)
    board.depart()
    verdicts, gates, routes = board.gates()
    rows = {} if inputs.stopping and board.withdrawn else board.rows
    leaving = _leaving(rows, memory, inputs.idle, now, served=not board.unused)
    board.wakes += [item.until for item in leaving.values()]
    desired = _state(rows, leaving, memory)
    company = service_names.accompanied(inputs.cluster, memory.company)
    own = service_names.votes(inputs, routes)
    desired = replace(
        desired,
        sysctls=inputs.sysctls,
        routes=routes,
        dns_records=service_names.dns_records(inputs, own, service_names.view(inputs.cluster, company)),
        consul_services=service_names.consul_services(inputs, own, verdicts),
    )
    decision = Decision(
        desired=desired,
        memory=Memory(
            gates,
            rows,
            leaving,
            board.up_since,
            board.serving(),
            tuple(desired.destinations),
            doubts=board.council.doubts,
            believed=board.council.believed,
            routes=routes,
            leave=board.leave,
            company=company,
        ),
        verdicts=verdicts,
        backends=board.backends,
        wake_at=max(min(board.wakes), now + TICK) if board.wakes else None,
    )
    return kernel_settings.lay(probe_marks.lay(decision, inputs, memory.marks, now + TICK), inputs)


@dataclass
class DecisionBuilder:
    """What one decision collects while it walks the catalog."""

    inputs: Inputs
    memory: Memory
    now: float
    rows: dict[RowId, tuple[Any, float]] = field(default_factory=dict)
    backends: dict[DestinationKey, BackendVerdict] = field(default_factory=dict)
    services: dict[Address, list[tuple[Announce, ServiceVerdict]]] = field(default_factory=dict)
    up_since: dict[DestinationKey, float] = field(default_factory=dict)
    wakes: list[float] = field(default_factory=list)
    asked: list[tuple[Service, Address]] = field(default_factory=list)
    pools: dict[tuple[str, ServiceKey], Pool] = field(default_factory=dict)
    council: PeerVotes = field(init=False)
    refused: Mapping[Address | ServiceKey | DestinationKey, str] = field(init=False)
    """What the machine refused to create, and so cannot serve, with its reason."""

    before: Mapping[DestinationKey, int] = field(init=False)
    """The weights of the last decision."""

    leave: Leave | None = None
    """How far this node has left, if it does."""

    def __post_init__(self) -> None:
        rows = self.memory.rows.items()
        self.before = {key: row.weight for (table, key), (row, _) in rows if table == "destinations"}
        self.refused = {failure.change.key: failure.reason for failure in refusals(self.inputs.failures)}

    def assess(self, service: Service, vip: Address) -> None:
        """One service on one VIP: rows for the kernel, and whether it can be served."""
        pool = self._pool(service, vip, None)
        self.services.setdefault(vip, []).append((service.announce, pool.verdict))
        self.asked.append((service, vip))
        self.pools[service.name, pool.verdict.key] = pool

    def _pool(self, service: Service, vip: Address, keep: KeptBackends | None) -> Pool:
        key, memory = service.key(vip), self.memory
        seen = Observed(
            self.inputs.health,
            memory.up_since,
            self.before,
            self.refused,
            key in memory.serving,
            self.now,
            keep,
            (service.name, key) in memory.believed,
        )
        pool = assess(service, vip, seen)
        self.rows["addresses", vip] = (VipAddress(), max(service.drain, self._drain(vip)))
        self.rows["services", key] = (service.row(vip), service.drain)
        self.rows.update({("destinations", name): (row, service.drain) for name, row in pool.rows.items()})
        self.backends.update(pool.backends)
        self.up_since.update(pool.up_since)
        self.wakes += pool.wakes
        return pool

    def _drain(self, vip: Address) -> float:
        known: tuple[Any, float] = self.rows.get(("addresses", vip), (None, 0.0))
        return known[1]

    def serving(self) -> frozenset[ServiceKey]:
        """The services that can be served."""
        return frozenset(verdict.key for services in self.services.values() for _, verdict in services if verdict.open)

    def depart(self) -> None:
        """How far this node leaves the routes, now that all services are assessed."""
        inputs, memory = self.inputs, self.memory
        node, catalog = inputs.node, inputs.catalog
        drained = node in catalog.drained
        waiting = drained and (memory.leave is None or memory.leave.stage == "waiting")
        known = catalog.drains.get(node)
        told = known.deadline if known is not None else None
        seen = node_drain.DrainFacts(
            cause="stopping" if inputs.stopping else "drained" if drained else "",
            rules=inputs.leaving,
            deadline=inputs.leaving.deadline if told is None else told,
            announced=bool(memory.routes),
            marked=any(node_drain.COMMUNITY in route.communities for route in memory.routes.values()),
            company=node_drain.company(inputs),
            trouble=(self._unsettled() or node_drain.trouble(inputs, memory.routes)) if waiting else "",
            table=hash((tuple(self.rows.items()), tuple(memory.routes))) if waiting else 0,
            traffic=inputs.traffic,
        )
        self.leave, wake = node_drain.step(memory.leave, seen, self.now)
        if wake is not None:
            self.wakes.append(wake)

    def _unsettled(self) -> str:
        """Why this node's own table is about to change, if it is."""
        for table, key in _leaving(self.rows, self.memory, self.inputs.idle, self.now):
            if table == "destinations" and ("services", key.service) in self.rows:
                return f"{key} is leaving"
        for key, backend in self.backends.items():
            if backend.up and backend.weights.ramp < 1:
                return f"{key} is in its slow start"
        for _, verdict in (item for services in self.services.values() for item in services):
            if verdict.unsettled:
                return f"backends of {verdict.service} are not checked yet"
        return ""

    @property
    def withdrawn(self) -> bool:
        """Has this node left so far that it announces nothing?"""
        return self.leave is not None and self.leave.stage in ("withdrawn", "drained")

    @property
    def unused(self) -> bool:
        """Does nothing come any more, so that there is nothing to wait for?"""
        return self.leave is not None and self.leave.stage == "drained" and not self.leave.overdue

    @property
    def _graceful(self) -> bool:
        return self.leave is not None and self.leave.stage == "graceful"

    def gates(self) -> tuple[dict[Address, Verdict], dict[Address, Gate], dict[Address, Route]]:
        """Every VIP's verdict, what its gate remembers, and the routes that follow."""
        verdicts, gates, routes = {}, {}, {}
        council = self.council = PeerVotes(self.inputs, self.memory, self.now, self.pools, len(self.services))
        for vip, services in self.services.items():
            announces = [announce for announce, _ in services]
            refusal = self._administrative(vip)
            case = council.case(vip, services, *self._ready(vip, services), refused=vip in self.refused)
            opinion = peer_health.Opinion(False, refusal) if refusal else council.hear(case)
            memory, reason, wake = gate.step(
                self.memory.gates.get(vip),
                opinion.ready,
                opinion.reason,
                self.now,
                hold_up=max(announce.hold_up for announce in announces),
                hold_down=max(announce.hold_down for announce in announces),
                unsettled=max(verdict.unsettled for _, verdict in services),
                returning=max(verdict.returning for _, verdict in services),
                damping=next((announce.damping for announce in announces if announce.damping), None),
                blame=not refusal,
                catching_up=council.believe(case),
            )
            if self._graceful and memory.open:
                reason = f"{reason}; {self._cause()}: still announced, with {node_drain.COMMUNITY}"
            judged = tuple(verdict for _, verdict in services)
            verdict = Verdict(vip, memory.open, reason, memory.since, judged, memory.penalty, case.own)
            gates[vip], verdicts[vip] = council.settle(opinion, memory, verdict)
            if memory.open:
                route = _route(announces)
                routes[vip] = node_drain.marked(route, self.inputs.leaving) if self._graceful else route
            if wake is not None:
                self.wakes.append(wake)
        self.wakes += council.wakes
        for service, vip in self.asked:
            if keep := council.keeps.get((service.name, service.key(vip))):
                self._pool(service, vip, keep)
        return verdicts, gates, routes

    def _administrative(self, vip: Address) -> str:
        """Why this node must not announce the VIP, if so: it has left, or leaves and did not announce it before."""
        return self._cause() if self.withdrawn or (self._graceful and vip not in self.memory.routes) else ""

    def _cause(self) -> str:
        return "this node is stopping" if self.inputs.stopping else f"this node is drained (drain/{self.inputs.node})"

    def _ready(self, vip: Address, services: Sequence[tuple[Announce, ServiceVerdict]]) -> tuple[bool, str]:
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


def _leaving(
    rows: Mapping[RowId, Any], memory: Memory, idle: frozenset[DestinationKey], now: float, served: bool = True
) -> dict[RowId, Leaving]:
    """Rows nobody asks for any more, until their drain time is over or, for a backend, its last connection is.

    One that is asked for again is taken back. ``served`` is False where nothing comes any more.
    """
    leaving = {row_id: item for row_id, item in memory.leaving.items() if row_id not in rows}
    for row_id, (row, drain) in memory.rows.items():
        if row_id not in rows:
            leaving[row_id] = Leaving(row, now + drain * served)
    done = {("destinations", key) for key in idle if ("services", key.service) in rows}
    return {row_id: item for row_id, item in leaving.items() if item.until > now and row_id not in done}


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
