"""From everything that is known to everything that should be.

``decide(inputs, memory, now)`` is a pure function, and a pipeline that reads from top to bottom:

1. *assess*: what this node's own probes make of every service on every VIP (``pool.judge``);
2. *drain*: how far this node leaves the routes, if it does (``node_drain``);
3. *peers*: what the other nodes' reports change about each VIP (``peer_votes``, ``peer_health``);
4. *gates*: whether each VIP may be announced (``gate``);
5. *rows*: the backends' weights, with those the peers keep in, and the kernel's rows (``pool.weigh``, ``rows``);
6. *routes, names, settings*: what follows for BGP, DNS, Consul's services and the kernel's settings.

Each step is a function from values to values, and no step changes what an earlier one has made. Steps 1, 3, 4 and 5,
and names, are called for one service or VIP at a time, and what fails there is contained (``containment``). A decision
never looks
at the machine: what is wanted does not depend on what is there, except through ``adopt``, once, when the daemon starts,
and through what the last cycle reported: ``inputs.failures`` (what the machine refused) and ``inputs.idle`` (leaving
backends without connections).

Decision record: docs/decisions/0011-decisions-as-a-pipeline-reasons-as-values.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from anycastlb.core.decision import (
    gate,
    health,
    kernel_settings,
    node_drain,
    peer_health,
    peer_votes,
    probe_marks,
    service_names,
)
from anycastlb.core.decision.containment import Containment
from anycastlb.core.decision.handover import NOTHING, Successor, handover, replaced
from anycastlb.core.decision.peer_votes import PeerVote
from anycastlb.core.decision.pool import Judgement, Observed, ObservedBackend, Pool, judge, weigh
from anycastlb.core.decision.recollection import adopted_gates
from anycastlb.core.decision.rows import Wanted, leaving_rows, tables, wanted_rows
from anycastlb.core.decision.withdrawal_budget import withdrawal_budget
from anycastlb.core.model import (
    MARKS,
    Address,
    Announce,
    Change,
    Decision,
    DestinationKey,
    Failure,
    ForwardPath,
    Gate,
    Inputs,
    Memory,
    NodeDrain,
    Reason,
    Recollection,
    Route,
    Service,
    ServiceKey,
    ServiceVerdict,
    State,
    Verdict,
)

ADOPTED_DRAIN = 30.0
"""Seconds for which a row that was there at the start, and that no catalog names any more, is still served."""
NOTHING_KNOWN = Recollection()
TICK = 0.001
"""Seconds: the shortest time after which a decision asks to be made again. Clock arithmetic is not exact, and a step
must not be missed."""

Refusals: TypeAlias = Mapping[object, Reason]
"""What the machine refused to create, and so cannot serve, by key and with its reason."""


def adopt(
    actual: State,
    now: float,
    probes: probe_marks.Range = MARKS,
    known: Recollection = NOTHING_KNOWN,
    connected: bool = False,
) -> Memory:
    """The memory of a daemon that meets its own work in the kernel: nothing of it may flap because of the restart.

    ``probes``: the firewall marks of probes through IPVS. ``known``: what the daemon before it has left on disk, by
    this one's clock. ``connected``: the BGP bridge has told the routes.
    """
    marks, actual = probe_marks.split(actual, probes)
    serving = {key.service.address for key, row in actual.destinations.items() if row.weight}
    fwmarks = {key for key in actual.services if key.protocol == "fwmark"}
    return Memory(
        gates=adopted_gates(actual, serving, known, connected, now),
        rows={
            (table, key): (row, ADOPTED_DRAIN)
            for table in ("addresses", "services", "destinations")
            for key, row in actual.rows(table).items()
        },
        up_since={key: gate.NEVER for key, row in actual.destinations.items() if row.weight},
        serving=frozenset(key.service for key, row in actual.destinations.items() if row.weight) - known.below,
        fwmarks={key: _of_family(actual.addresses, key) for key in fwmarks},
        order=tuple(actual.destinations),
        marks=marks,
        routes=actual.routes,
    )


def _of_family(vips: Iterable[Address], key: ServiceKey) -> frozenset[Address]:
    """The VIPs that an adopted fwmark service may serve: nothing in the kernel says which."""
    return frozenset(vip for vip in vips if vip.version == key.address.version)


def decide(inputs: Inputs, memory: Memory, now: float) -> Decision:
    """The desired state, the verdicts with their reasons, and when to decide again. ``now`` is monotonic seconds."""
    refused = {failure.change.key: failure.reason for failure in refusals(inputs.failures)}

    contained = Containment()
    old = replaced(inputs.catalog.services, memory)

    judged = assess(inputs, memory, refused, old, contained, now)
    drain, drain_wake = drain_step(inputs, memory, judged, contained, now)
    votes = hear_peers(inputs, memory, judged, drain, refused, old, contained, now)
    steps = step_gates(inputs, memory, drain, votes, contained, now)
    opened = {vip: step for vip, step in steps.items() if step.gate.open}
    found = {vip: contained.of(vip, route_of, inputs, drain, step.announces) for vip, step in opened.items()}

    pools = weigh_pools(judged, votes, steps, contained, now)
    rows = {} if inputs.stopping and _withdrawn(drain) else {**held_rows(inputs, memory, pools), **wanted_rows(pools)}
    gates = shut_faulty(inputs, memory, judged, steps, contained, now)
    handing = NOTHING if inputs.stopping else handover(judged, now)
    leaving = leaving_rows(rows, memory, inputs.idle, now, not _unused(drain), handing)
    addresses, services, destinations = tables(rows, leaving, memory.order)

    verdicts = {item.verdict.vip: item.verdict for item in gates}
    routes = {vip: route for vip, route in found.items() if route is not None and verdicts[vip].open}
    company = service_names.accompanied(inputs.cluster, memory.company)
    announced = service_names.votes(inputs, routes)
    peers = service_names.view(inputs.cluster, company)

    paths = probe_paths(inputs, memory)
    probe_services, probe_destinations = probe_marks.rows(paths)
    desired = State(
        sysctls=kernel_settings.sysctls(inputs, probing=bool(paths)),
        config=kernel_settings.config(inputs, cached=kernel_settings.only_caches(services, destinations)),
        addresses=addresses,
        services={**services, **probe_services},
        destinations={**destinations, **probe_destinations},
        routes=routes,
        dns_records=service_names.dns_records(inputs, announced, peers, contained),
        consul_services=service_names.consul_services(inputs, announced, verdicts, contained),
    )
    wakes = [
        *(wake for _, pool in pools for wake in pool.wakes),
        *(wake for vote in votes for wake in vote.wakes),
        *(item.until for item in leaving.values()),
        *(due for due in handing.ends.values() if handing.begins),
        *(wake for wake in (drain_wake, *(item.wake for item in gates)) if wake is not None),
        *([now] if _marks_come_free(paths, memory) else []),
    ]
    return Decision(
        desired=desired,
        memory=Memory(
            gates={item.verdict.vip: item.gate for item in gates},
            rows=rows,
            leaving=leaving,
            up_since=_up_since(rows, judged, memory),
            serving=frozenset(item.verdict.key for item in judged if item.verdict.open or item.verdict.proving),
            order=tuple(destinations),
            marks={path: mark for path, mark in paths.items() if mark is not None},
            troubles={vote.case.vip: vote.case.trouble for vote in votes if vote.case.trouble},
            unproven={key: since for item in judged for key, since in item.unproven.items()},
            fwmarks=fwmarks(inputs, memory),
            followed={name: item.since for vote in votes for name, item in vote.followed.items()},
            routes=routes,
            node_drain=drain,
            company=company,
        ),
        verdicts=verdicts,
        backends={key: verdict for _, pool in pools for key, verdict in pool.backends.items()},
        probe_paths=paths,
        faults={str(subject): reason for subject, reason in contained.faults.items()},
        wake_at=max(min(wakes), now + TICK) if wakes else None,
    )


# ---------------------------------------------------------------- assess


def assess(
    inputs: Inputs,
    memory: Memory,
    refused: Refusals,
    old: frozenset[Successor],
    contained: Containment,
    now: float,
) -> tuple[Judgement, ...]:
    """Every service on every VIP, by this node's own probes. ``old``: whose replaced backends still get flows."""

    def one(service: Service, vip: Address) -> Judgement:
        return judge(service, vip, observe(service, vip, inputs, memory, refused, service.key(vip) in old), now)

    every = (contained.of(vip, one, service, vip) for service in inputs.catalog.services for vip in service.vips)
    return tuple(item for item in every if item is not None)


def observe(
    service: Service, vip: Address, inputs: Inputs, memory: Memory, refused: Refusals, was_replaced: bool
) -> Observed:
    """What is known of one service on one VIP, taken out of all that is known."""
    key, before = service.key(vip), memory.gates.get(vip)
    announced = before is not None and before.open and not inputs.stopping
    new = announced and ("services", key) not in memory.rows
    backends = []
    for backend in service.members(vip):
        name = DestinationKey(key, backend.address, backend.port)
        row, _ = memory.rows.get(("destinations", name), (None, 0.0))
        backends.append(
            ObservedBackend(
                inputs.health.get(service.check(vip, backend), health.UNKNOWN),
                memory.up_since.get(name),
                row and row.weight,
                refused.get(name),
                memory.unproven.get(name),
            )
        )
    followed = (service.name, key) in memory.followed
    was_open = new or key in memory.serving
    return Observed(tuple(backends), refused.get(key), was_open, followed, announced, was_replaced)


def fwmarks(inputs: Inputs, memory: Memory) -> dict[ServiceKey, frozenset[Address]]:
    """The VIPs of every fwmark service that ever was: its rows may be there for longer than anybody wants them."""
    wanted: dict[ServiceKey, frozenset[Address]] = {}
    for service in inputs.catalog.services:
        for vip in service.vips if service.protocol == "fwmark" else ():
            key = service.key(vip)
            wanted[key] = wanted.get(key, frozenset()) | {vip}
    return {**memory.fwmarks, **wanted}


def refusals(failures: Iterable[Failure]) -> tuple[Failure, ...]:
    """The failures a decision depends on: what could not be built. What could not be changed still serves as it was."""
    return tuple(failure for failure in failures if _unbuilt(failure.change))


def _unbuilt(change: Change) -> bool:
    if change.table == "services" and change.verb == "update":
        return bool(change.old.scheduler == "none")  # filled, but never switched to its scheduler
    return change.verb == "create" and change.table in ("addresses", "services", "destinations")


# ---------------------------------------------------------------- drain


def drain_step(
    inputs: Inputs, memory: Memory, judged: Sequence[Judgement], contained: Containment, now: float
) -> tuple[NodeDrain | None, float | None]:
    """Advance this node's drain by one step, if it leaves; and when to decide again because of that."""
    catalog, rules = inputs.catalog, inputs.policy.drain_rules
    drained = inputs.node in catalog.drained
    document = catalog.drains.get(inputs.node)
    asked = document.deadline if document is not None else None
    waiting = drained and (memory.node_drain is None or memory.node_drain.stage == "waiting")
    trouble, table = _stability(inputs, memory, judged, contained, now) if waiting else (None, 0)
    facts = node_drain.DrainFacts(
        cause="stopping" if inputs.stopping else "drained" if drained else "",
        rules=rules,
        deadline=rules.deadline if asked is None else asked,
        announced=bool(memory.routes),
        marked=any(node_drain.COMMUNITY in route.communities for route in memory.routes.values()),
        company=node_drain.company(inputs),
        trouble=trouble,
        table=table,
        traffic=inputs.traffic,
    )
    return node_drain.step(memory.node_drain, facts, now)


def _stability(
    inputs: Inputs, memory: Memory, judged: Sequence[Judgement], contained: Containment, now: float
) -> tuple[Reason | None, int]:
    """Why the table is about to change, here or on another node, if it is; and a number that changes with the table."""
    pools = [(item, pool) for item in judged if (pool := contained.of(item.vip, weigh, item, None, now)) is not None]
    rows = wanted_rows(pools)
    trouble = _unsettled(inputs, memory, pools, rows, now) or node_drain.trouble(inputs, memory.routes)
    return trouble, hash((tuple(rows.items()), tuple(memory.routes)))


def _unsettled(
    inputs: Inputs, memory: Memory, pools: Sequence[tuple[Judgement, Pool]], rows: Wanted, now: float
) -> Reason | None:
    """Why this node's own table is about to change, if it is."""
    for table, key in leaving_rows(rows, memory, inputs.idle, now):
        if table == "destinations" and ("services", key.service) in rows:
            return Reason("row_leaving", f"{key} is leaving", str(key))
    for _, pool in pools:
        for key, backend in pool.backends.items():
            if backend.up and backend.weights.ramp < 1:
                return Reason("slow_start", f"{key} is in its slow start", str(key))
    for judged, _ in pools:
        if judged.verdict.unsettled:
            name = judged.verdict.service
            return Reason("not_checked", f"backends of {name} are not checked yet", name)
    return None


def _withdrawn(drain: NodeDrain | None) -> bool:
    """Has this node left so far that it announces nothing?"""
    return drain is not None and drain.stage in ("withdrawn", "drained")


def _graceful(drain: NodeDrain | None) -> bool:
    return drain is not None and drain.stage == "graceful"


def _unused(drain: NodeDrain | None) -> bool:
    """Does nothing come any more, so that there is nothing to wait for?"""
    return drain is not None and drain.stage == "drained" and not drain.overdue


def _cause(inputs: Inputs) -> Reason:
    if inputs.stopping:
        return Reason("node_stopping", "this node is stopping", inputs.node)
    return Reason("node_drained", f"this node is drained (drain/{inputs.node})", inputs.node)


# ---------------------------------------------------------------- peers


def hear_peers(
    inputs: Inputs,
    memory: Memory,
    judged: Sequence[Judgement],
    drain: NodeDrain | None,
    refused: Refusals,
    old: frozenset[Successor],
    contained: Containment,
    now: float,
) -> tuple[PeerVote, ...]:
    """What the other nodes' reports change about each VIP. One after the other, as each may spend of the budget."""
    vips: dict[Address, list[Judgement]] = {}
    for item in judged:
        vips.setdefault(item.vip, []).append(item)
    statuses = peer_health.statuses(inputs.cluster)
    wall = inputs.wall + now
    budget = withdrawal_budget(inputs.policy.max_withdrawals, len(vips), memory.gates, statuses or (), wall)
    votes = []

    def one(vip: Address, items: Sequence[Judgement]) -> PeerVote:
        case = _case(inputs, memory, vip, items, refused.get(vip), vip in old, now)
        refusal = _administrative(inputs, memory, drain, vip)
        return peer_votes.hear(case, items, statuses, budget, memory.followed, refusal)

    for vip, items in vips.items():
        vote = contained.of(vip, one, vip, items)
        if vote is not None:
            budget = budget.spend(vip) if vote.opinion.withdrawn else budget
            votes.append(vote)
    return tuple(votes)


def _case(
    inputs: Inputs,
    memory: Memory,
    vip: Address,
    judged: Sequence[Judgement],
    refusal: Reason | None,
    is_replaced: bool,
    now: float,
) -> peer_health.Case:
    services = [(item.service.announce, item.verdict) for item in judged]
    old = is_replaced or any(item.replaced for item in judged)
    ready, reason = (False, Reason("refused", refusal.text)) if refusal else gate.combine(services, old)
    own: peer_health.Own = "unable" if refusal else peer_health.own(services)
    before = memory.gates.get(vip)
    dead = frozenset(verdict.service for _, verdict in services if verdict.condition.dead)
    trouble = peer_health.local_trouble(memory.troubles.get(vip), dead, not ready, now)
    return peer_health.Case(
        inputs.node, vip, services, before is not None and before.open, ready, reason, own, trouble, now
    )


def _administrative(inputs: Inputs, memory: Memory, drain: NodeDrain | None, vip: Address) -> Reason | None:
    """Why this node must not announce the VIP, if so: it has left, or leaves and did not announce it before."""
    left = _withdrawn(drain) or (_graceful(drain) and vip not in memory.routes)
    return _cause(inputs) if left else None


# ---------------------------------------------------------------- gates and routes


@dataclass(frozen=True, slots=True)
class GateStep:
    """One VIP's gate after this decision."""

    verdict: Verdict
    gate: Gate
    wake: float | None
    """When it opens by the mere passing of time; None: it does not."""
    announces: tuple[Announce, ...]
    """How each of the VIP's services is to be announced."""


def step_gates(
    inputs: Inputs,
    memory: Memory,
    drain: NodeDrain | None,
    votes: Iterable[PeerVote],
    contained: Containment,
    now: float,
) -> dict[Address, GateStep]:
    """Every VIP's gate after this decision."""
    steps = {vote.case.vip: contained.of(vote.case.vip, step_gate, inputs, memory, drain, vote, now) for vote in votes}
    return {vip: step for vip, step in steps.items() if step is not None}


def shut_faulty(
    inputs: Inputs,
    memory: Memory,
    judged: Iterable[Judgement],
    steps: Mapping[Address, GateStep],
    contained: Containment,
    now: float,
) -> tuple[GateStep, ...]:
    """The gates, but closed where a step of this decision has failed: nobody knows whether that VIP can be served."""
    vips = dict.fromkeys(vip for service in inputs.catalog.services for vip in service.vips)
    verdicts: dict[Address, list[ServiceVerdict]] = {}
    for item in judged if contained.faults else ():
        verdicts.setdefault(item.vip, []).append(item.verdict)
    gates = []
    for vip in vips:
        fault = contained.faults.get(vip)
        if fault is None:
            gates.append(steps[vip])
            continue
        before = memory.gates.get(vip) or Gate(open=False, since=gate.NEVER)
        after = replace(before, open=False, since=now if before.open else before.since, ready_since=None)
        known = tuple(verdicts.get(vip, ()))
        verdict = Verdict(vip, False, fault, after.since, known, after.penalty, "unable")
        gates.append(GateStep(verdict, after, None, ()))
    return tuple(gates)


def step_gate(inputs: Inputs, memory: Memory, drain: NodeDrain | None, vote: PeerVote, now: float) -> GateStep:
    """May this VIP be announced?"""
    case, opinion = vote.case, vote.opinion
    rules = tuple(announce for announce, _ in case.services)
    verdicts = tuple(verdict for _, verdict in case.services)
    policy = gate.GatePolicy(
        hold_up=max(announce.hold_up for announce in rules),
        hold_down=max(announce.hold_down for announce in rules),
        damping=next((announce.damping for announce in rules if announce.damping), None),
    )
    facts = gate.GateFacts(
        opinion.ready,
        opinion.reason,
        unsettled=max(verdict.unsettled for verdict in verdicts),
        returning=max(verdict.returning for verdict in verdicts),
        catching_up=vote.catching_up,
        blame=not _administrative(inputs, memory, drain, case.vip),
        withdrawn_wall=int(inputs.wall + now) if opinion.withdrawn else None,
    )
    after, reason, wake = gate.step(memory.gates.get(case.vip), policy, facts, now)
    if _graceful(drain) and after.open:
        reason = reason.also(f"{_cause(inputs)}: still announced, with {node_drain.COMMUNITY}", "graceful")
    kept = opinion.kept if after.open else ""
    verdict = Verdict(case.vip, after.open, reason, after.since, verdicts, after.penalty, case.own, kept)
    return GateStep(verdict, after, wake, rules)


def route_of(inputs: Inputs, drain: NodeDrain | None, announces: Iterable[Announce]) -> Route:
    """The route of a VIP whose gate is open."""
    route = merged_route(announces)
    return node_drain.marked(route, inputs.policy.drain_rules) if _graceful(drain) else route


def merged_route(announces: Iterable[Announce]) -> Route:
    """One route for all services of a VIP: communities are united, of the rest the first that is set counts."""
    routes = [announce.route for announce in announces]
    return Route(
        communities=tuple(sorted({c for route in routes for c in route.communities})),
        large_communities=tuple(sorted({c for route in routes for c in route.large_communities})),
        med=next((route.med for route in routes if route.med is not None), None),
        local_preference=next((r.local_preference for r in routes if r.local_preference is not None), None),
        as_path_prepend=max((route.as_path_prepend for route in routes), default=0),
    )


# ---------------------------------------------------------------- rows


def weigh_pools(
    judged: Sequence[Judgement],
    votes: Sequence[PeerVote],
    steps: Mapping[Address, GateStep],
    contained: Containment,
    now: float,
) -> list[tuple[Judgement, Pool]]:
    """The weights of all backends, now that it is known which the peers and the gates keep in.

    A VIP about which an earlier step has failed has none: its rows stay as they are.
    """
    by_vip = {vote.case.vip: vote for vote in votes}

    def one(item: Judgement) -> Pool:
        name = item.verdict.service, item.verdict.key
        keep = by_vip[item.vip].keeps(name, item.verdict.condition.able, steps[item.vip].gate.open)
        return weigh(item, keep, now)

    sound = [item for item in judged if item.vip not in contained.faults]
    return [(item, pool) for item in sound if (pool := contained.of(item.vip, one, item)) is not None]


def held_rows(inputs: Inputs, memory: Memory, pools: Sequence[tuple[Judgement, Pool]]) -> Wanted:
    """The last rows of what has no new ones, because a step of this decision has failed."""
    weighed = {(item.service.name, item.vip) for item, _ in pools}
    lost = [(s, vip) for s in inputs.catalog.services for vip in s.vips if (s.name, vip) not in weighed]
    if not lost:
        return {}
    kept = {("addresses", vip) for _, vip in lost} | {("services", service.key(vip)) for service, vip in lost}
    return {
        (table, key): row
        for (table, key), row in memory.rows.items()
        if (("services", key.service) if table == "destinations" else (table, key)) in kept
    }


def _up_since(rows: Wanted, judged: Sequence[Judgement], memory: Memory) -> dict[DestinationKey, float]:
    """Since when each backend has been up; of one that could not be judged, as before."""
    known = {member.key for item in judged for member in item.members}
    held = {key: since for key, since in memory.up_since.items() if key not in known and ("destinations", key) in rows}
    return held | {key: since for item in judged for key, since in item.up_since.items()}


def probe_paths(inputs: Inputs, memory: Memory) -> dict[ForwardPath, int | None]:
    """The firewall mark of every backend that is probed through IPVS; a node that stops probes nothing."""
    if inputs.stopping:
        return {}
    return probe_marks.allot(probe_marks.wanted(inputs.catalog), memory.marks, inputs.policy.marks)


def _marks_come_free(paths: Mapping[ForwardPath, int | None], memory: Memory) -> bool:
    """Is a mark missing, and one freed only now, so that the next decision can give it away?"""
    return None in paths.values() and bool(memory.marks.keys() - paths.keys())
