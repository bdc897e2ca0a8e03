"""From everything that is known to everything that should be.

``decide(inputs, memory, now)`` is a pure function, and a pipeline that reads from top to bottom:

1. *assess*: what this node's own probes make of every service on every VIP (``assessment``, ``pool.judge``);
2. *drain*: how far this node leaves the routes, if it does (``own_drain``, ``node_drain``);
3. *peers*: what the other nodes' reports change about each VIP (``peer_votes``, ``peer_health``);
4. *gates*: whether each VIP may be announced (``vip_gates``, ``gate``);
5. *rows*: the backends' weights, with those the peers keep in, and the kernel's rows (``pool.weigh``, ``rows``);
6. *routes, names, settings*: what follows for BGP (``routes``), DNS, Consul's services and the kernel's settings.

Each step is a function from values to values, and no step changes what an earlier one has made. Steps 1, 3, 4 and 5,
and names, are called for one service or VIP at a time, and what fails there is contained (``containment``). A decision
never looks at the machine: what is wanted does not depend on what is there, except through ``adopt``, once, when the
daemon starts, and through what the last cycle reported: ``inputs.failures`` (what the machine refused) and
``inputs.idle`` (leaving backends without connections).

Decision record: docs/decisions/0011-decisions-as-a-pipeline-reasons-as-values.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from anycastlb.core.decision import gate, kernel_settings, probe_marks, service_names
from anycastlb.core.decision.assessment import assess
from anycastlb.core.decision.basis import Basis
from anycastlb.core.decision.handover import NOTHING, fwmarks, handover
from anycastlb.core.decision.own_drain import drain_step, unused, withdrawn
from anycastlb.core.decision.peer_votes import PeerVote, hear_peers
from anycastlb.core.decision.pool import Judgement, Pool, weigh
from anycastlb.core.decision.recollection import adopted_gates, presumed_up, weighted
from anycastlb.core.decision.routes import route_of
from anycastlb.core.decision.rows import RowId, held_rows, leaving_rows, tables, wanted_rows
from anycastlb.core.decision.vip_gates import GateStep, shut_faulty, step_gates
from anycastlb.core.model import (
    MARKS,
    Address,
    Decision,
    DestinationKey,
    Inputs,
    Memory,
    Recollection,
    Service,
    ServiceKey,
    State,
)

ADOPTED_DRAIN = 30.0
"""Seconds for which a row that was there at the start, and that no catalog names any more, is still served."""
NOTHING_KNOWN = Recollection()
TICK = 0.001
"""Seconds: the shortest time after which a decision asks to be made again. Clock arithmetic is not exact, and a step
must not be missed."""


def adopt(
    actual: State,
    now: float,
    probes: probe_marks.Range = MARKS,
    known: Recollection = NOTHING_KNOWN,
    connected: bool = False,
    services: Sequence[Service] = (),
) -> Memory:
    """The memory of a daemon that meets its own work in the kernel: nothing of it may flap because of the restart.

    ``probes``: the firewall marks of probes through IPVS. ``known``: what the daemon before it has left on disk, by
    this one's clock. ``connected``: the BGP bridge has told the routes. ``services``: those of the catalog.
    """
    marks, actual = probe_marks.split(actual, probes)
    gates = adopted_gates(actual, services, known, connected, now)
    presumed = presumed_up(actual, services, gates)
    return Memory(
        gates=gates,
        rows={
            (table, key): (row, ADOPTED_DRAIN)
            for table in ("addresses", "services", "destinations")
            for key, row in actual.rows(table).items()
        },
        up_since=dict.fromkeys([*presumed, *(k for k, row in actual.destinations.items() if row.weight)], gate.NEVER),
        serving=(weighted(actual) | {key.service for key in presumed}) - known.below,
        fwmarks={key: _of_family(actual.addresses, key) for key in actual.services if key.protocol == "fwmark"},
        order=tuple(actual.destinations),
        marks=marks,
        routes=actual.routes,
    )


def _of_family(vips: Iterable[Address], key: ServiceKey) -> frozenset[Address]:
    """The VIPs that an adopted fwmark service may serve: nothing in the kernel says which."""
    return frozenset(vip for vip in vips if vip.version == key.address.version)


def decide(inputs: Inputs, memory: Memory, now: float) -> Decision:
    """The desired state, the verdicts with their reasons, and when to decide again. ``now`` is monotonic seconds."""
    basis = Basis.of(inputs, memory, now)
    contained = basis.contained

    judged = assess(basis)
    drain, drain_wake = drain_step(basis, judged)
    votes = hear_peers(basis, judged, drain)
    steps = step_gates(basis, drain, votes)
    opened = {vip: step for vip, step in steps.items() if step.gate.open}
    possible = {vip: contained.of(vip, route_of, inputs, drain, step.announces) for vip, step in opened.items()}

    pools = weigh_pools(basis, judged, votes, steps)
    rows = {} if inputs.stopping and withdrawn(drain) else {**held_rows(inputs, memory, pools), **wanted_rows(pools)}
    gates = shut_faulty(basis, judged, steps)
    handing = NOTHING if inputs.stopping else handover(judged, now)
    leaving = leaving_rows(rows, memory, inputs.idle, now, not unused(drain), handing)
    addresses, services, destinations = tables(rows, leaving, memory.order)

    verdicts = {item.verdict.vip: item.verdict for item in gates}
    routes = {vip: route for vip, route in possible.items() if route is not None and verdicts[vip].open}
    company = service_names.accompanied(inputs.cluster, memory.company)
    announced = service_names.votes(inputs, routes)
    peers = service_names.view(inputs.cluster, company)

    paths = probe_marks.paths(inputs, memory)
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
        *([now] if probe_marks.come_free(paths, memory) else []),
    ]
    return Decision(
        desired=desired,
        memory=Memory(
            gates={item.verdict.vip: item.gate for item in gates},
            rows=rows,
            leaving=leaving,
            up_since=_up_since({*rows, *(row for row, item in leaving.items() if item.serves)}, judged, memory),
            serving=frozenset(item.verdict.key for item in judged if item.verdict.open or item.verdict.proving),
            order=tuple(destinations),
            marks={path: mark for path, mark in paths.items() if mark is not None},
            troubles={vote.case.vip: vote.case.trouble for vote in votes if vote.case.trouble},
            unproven={key: since for item in judged for key, since in item.unproven.items()},
            fwmarks=fwmarks(inputs.catalog.services, memory),
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


def weigh_pools(
    basis: Basis, judged: Sequence[Judgement], votes: Sequence[PeerVote], steps: Mapping[Address, GateStep]
) -> list[tuple[Judgement, Pool]]:
    """The weights of all backends, now that it is known which the peers and the gates keep in.

    A VIP about which an earlier step has failed has none: its rows stay as they are.
    """
    contained = basis.contained
    by_vip = {vote.case.vip: vote for vote in votes}

    def one(item: Judgement) -> Pool:
        name = item.verdict.service, item.verdict.key
        keep = by_vip[item.vip].keeps(name, item.verdict.condition.able, steps[item.vip].gate.open)
        return weigh(item, keep, basis.now)

    sound = [item for item in judged if item.vip not in contained.faults]
    return [(item, pool) for item in sound if (pool := contained.of(item.vip, one, item)) is not None]


def _up_since(serving: Collection[RowId], judged: Sequence[Judgement], memory: Memory) -> dict[DestinationKey, float]:
    """Since when each backend has been up; as before of one that could not be judged, or serves on although an edit has
    taken it out."""
    known = {member.key for item in judged for member in item.members}
    stays = {key for table, key in serving if table == "destinations"} - known
    held = {key: since for key, since in memory.up_since.items() if key in stays}
    return held | {key: since for item in judged for key, since in item.up_since.items()}
