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

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from anycastlb.core.decision import gate, kernel_settings, probe_marks, service_names
from anycastlb.core.decision.basis import Basis, refused
from anycastlb.core.decision.delta import same_keys
from anycastlb.core.decision.group_result import GroupResult, merged, result, served
from anycastlb.core.decision.handover import NOTHING, fwmarks, handover
from anycastlb.core.decision.own_drain import unused
from anycastlb.core.decision.recollection import adopted_gates, presumed_up, weighted
from anycastlb.core.decision.remembered import (
    FROM_SCRATCH,
    Remembered,
    checks_of,
    leaving_keys,
    regrouped,
    replaced,
    rows_given_up,
    rows_in_doubt,
    to_decide,
)
from anycastlb.core.decision.rows import RowId, Tables, by_service, cached_leaving, leaving_rows, with_leaving
from anycastlb.core.decision.steps import take_steps
from anycastlb.core.decision.vip_groups import group_vips
from anycastlb.core.model import (
    MARKS,
    Address,
    Decision,
    DestinationKey,
    Inputs,
    Leaving,
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
"""Seconds: the shortest time after which a decision asks to be made again, and the shortest wait for one. Clock
arithmetic is not exact: no step may be missed, and no moment just ahead be waited for without end."""


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
        order=by_service(actual.destinations),
        marks=marks,
        routes=actual.routes,
    )


def _of_family(vips: Iterable[Address], key: ServiceKey) -> frozenset[Address]:
    """The VIPs that an adopted fwmark service may serve: nothing in the kernel says which."""
    return frozenset(vip for vip in vips if vip.version == key.address.version)


def decide(inputs: Inputs, memory: Memory, now: float) -> Decision:
    """The desired state, the verdicts with their reasons, and when to decide again. ``now`` is monotonic seconds."""
    return decide_again(FROM_SCRATCH, inputs, memory, now).decision


def decide_again(last: Remembered, inputs: Inputs, memory: Memory, now: float) -> Remembered:
    """What ``decide`` decides, where only that is made anew which cannot be taken from the ``last`` decision."""
    last = last if last.usable(inputs, memory) else FROM_SCRATCH
    grouping = group_vips(inputs.catalog.services, last.grouping)
    changed = dict.fromkeys(regrouped(last, grouping))
    by_check = checks_of(last, grouping, changed) if changed else last.by_check
    doubtful = list(rows_in_doubt(last, memory, changed))
    refusals = refused(inputs)
    basis = Basis(inputs, memory, now, refusals, replaced(doubtful, memory, grouping, changed), grouping.vips)
    concerned = {*refusals, *basis.replaced, *leaving_keys(memory)}
    anew = to_decide(last, inputs, memory, now, grouping, changed, by_check, concerned)

    steps = take_steps(basis, grouping, anew)
    unsteady = {grouping.name_of(key) for key in concerned}
    results: dict[Address, GroupResult] = dict(last.results)
    for name in anew:
        parts = steps.of_group(basis, grouping.groups[name], steady=name not in unsteady)
        results[name] = result(parts, last.results.get(name) if name not in changed else None)
    if not same_keys(results, grouping.groups):
        results = {name: results[name] for name in grouping.groups}

    def table(name: str, before: Mapping[Any, Any]) -> Mapping[Any, Any]:
        return merged(name, before, last.results, results)

    past = last.decision.memory  # of this memory, or empty
    rows = table("rows", past.rows)
    doubtful += rows_given_up(last.results, results, anew)
    handing = NOTHING if inputs.stopping else handover(steps.judged, now)
    leaving = leaving_rows(rows, doubtful, memory, inputs.idle, now, not unused(steps.drain), handing)
    tables = Tables(**{field.name: table(field.name, getattr(last.tables, field.name)) for field in fields(Tables)})
    up_since = table("up_since", last.up_since)
    kernel = with_leaving(tables, rows, leaving, memory.order)

    verdicts, routes = table("verdicts", last.decision.verdicts), table("routes", past.routes)
    company = service_names.accompanied(inputs.cluster, memory.company)
    announced = service_names.votes(inputs, routes)
    named = inputs.policy.naming.dns is not None
    peers = service_names.view(inputs.cluster, company) if named else service_names.UNHEARD

    known = (
        last is not FROM_SCRATCH
        and grouping.groups is last.grouping.groups
        and None not in last.decision.probe_paths.values()
    )
    paths = last.decision.probe_paths if known else probe_marks.paths(grouping.paths, inputs, memory)
    probe_services, probe_destinations = probe_rows = last.probe_rows if known else probe_marks.rows(paths)
    cached = bool(kernel.services) and all(found.cached for found in results.values()) and cached_leaving(leaving)
    desired = State(
        sysctls=kernel_settings.sysctls(inputs, probing=bool(paths)),
        config=kernel_settings.config(inputs, cached),
        addresses=kernel.addresses,
        services={**kernel.services, **probe_services} if probe_services else kernel.services,
        destinations={**kernel.destinations, **probe_destinations} if probe_destinations else kernel.destinations,
        routes=routes,
        dns_records=service_names.dns_records(inputs, announced, peers, basis.contained),
        consul_services=service_names.consul_services(inputs, announced, verdicts, basis.contained),
    )
    wakes = [
        *steps.wakes,
        *(wake for found in results.values() for wake in found.wakes),
        *(item.until for item in leaving.values()),
        *(due for due in handing.ends.values() if handing.begins),
        *([now] if probe_marks.come_free(paths, memory) else []),
    ]
    decision = Decision(
        desired=desired,
        memory=Memory(
            gates=table("gates", past.gates),
            rows=rows,
            leaving=leaving,
            up_since={**serving, **up_since} if (serving := serving_on(leaving, memory)) else up_since,
            serving=served(past.serving, last.results, results),
            order=kernel.order,
            marks={path: mark for path, mark in paths.items() if mark is not None},
            troubles=table("troubles", past.troubles),
            unproven=table("unproven", past.unproven),
            fwmarks=fwmarks(grouping.services, memory) if changed else memory.fwmarks,
            followed=table("followed", past.followed),
            routes=routes,
            node_drain=steps.drain,
            company=company,
        ),
        verdicts=verdicts,
        backends=table("backends", last.decision.backends),
        probe_paths=paths,
        faults={str(subject): reason for subject, reason in basis.contained.faults.items()},
        wake_at=max(min(wakes), now + TICK) if wakes else None,
    )
    return Remembered(decision, inputs, grouping, results, by_check, tables, up_since, probe_rows)


def serving_on(leaving: Mapping[RowId, Leaving], memory: Memory) -> dict[DestinationKey, float]:
    """Since when those backends have been up that serve on although an edit has taken them out."""
    keys = (key for (table, key), item in leaving.items() if table == "destinations" and item.serves)
    return {key: memory.up_since[key] for key in keys if key in memory.up_since}
