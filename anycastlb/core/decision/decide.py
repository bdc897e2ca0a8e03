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
never looks at the machine: what is wanted does not depend on what exists, except through ``adopt``, once, when the
daemon starts, and through what the last cycle reported: ``inputs.failures`` (what the machine refused) and
``inputs.idle`` (leaving backends without connections).

Decision record: docs/decisions/0011-decisions-as-a-pipeline-reasons-as-values.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from anycastlb.core.decision import gate, kernel_settings, probe_marks, service_names
from anycastlb.core.decision.all_groups import decided
from anycastlb.core.decision.basis import Basis
from anycastlb.core.decision.handover import NOTHING, Handover, fwmarks, handover
from anycastlb.core.decision.http import spread
from anycastlb.core.decision.http.adoption import adopt_http
from anycastlb.core.decision.own_drain import unused
from anycastlb.core.decision.recollection import adopted_gates, presumed_up, weighted
from anycastlb.core.decision.remembered import FROM_SCRATCH, ProbeRows, Remembered
from anycastlb.core.decision.rows import RowId, by_service, cached_leaving, leaving_rows, with_leaving
from anycastlb.core.decision.scope import Scope, scope_of
from anycastlb.core.decision.steps import take_steps
from anycastlb.core.delta import delta, in_one_piece
from anycastlb.core.model import (
    MARKS,
    Address,
    Catalog,
    Decision,
    DestinationKey,
    ForwardPath,
    Inputs,
    Leaving,
    Memory,
    Recollection,
    Route,
    ServiceKey,
    State,
    Verdict,
)

K = TypeVar("K")
V = TypeVar("V")
ADOPTED_DRAIN = 30.0
"""Seconds for which a row that the kernel had at the start, and that no catalog names any more, is still served."""
NOTHING_KNOWN = Recollection()
EMPTY_CATALOG = Catalog()
TICK = 0.001
"""Seconds: the shortest time after which a decision asks to be made again, and the shortest wait for one. Clock
arithmetic is not exact: no step may be missed, and no moment just ahead be waited for without end."""


def adopt(
    actual: State,
    now: float,
    probes: probe_marks.Range = MARKS,
    known: Recollection = NOTHING_KNOWN,
    connected: bool = False,
    catalog: Catalog = EMPTY_CATALOG,
) -> Memory:
    """The memory of a daemon that meets its own work in the kernel: nothing of it may flap because of the restart.

    ``probes``: the firewall marks of probes through IPVS. ``known``: what the daemon before it has left on disk, by
    this one's clock. ``connected``: the BGP bridge has reported the routes.
    """
    marks, actual = probe_marks.split(actual, probes)
    gates = adopted_gates(actual, catalog, known, connected, now)
    presumed = presumed_up(actual, catalog, gates)
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
        http=adopt_http(actual),
    )


def _of_family(vips: Iterable[Address], key: ServiceKey) -> frozenset[Address]:
    """The VIPs that an adopted fwmark service may serve: nothing in the kernel says which."""
    return frozenset(vip for vip in vips if vip.version == key.address.version)


def decide(inputs: Inputs, memory: Memory, now: float) -> Decision:
    """The desired state, the verdicts with their reasons, and when to decide again. ``now`` is monotonic seconds."""
    return decide_again(FROM_SCRATCH, inputs, memory, now).decision


def decide_again(last: Remembered, inputs: Inputs, memory: Memory, now: float) -> Remembered:
    """What ``decide`` decides, where only that is made anew which cannot be taken from the ``last`` decision."""
    scope = scope_of(last, inputs, memory, now)
    last, past, http = scope.last, scope.last.decision, scope.http
    steps = take_steps(scope.basis, scope.grouping, scope.anew)
    groups = decided(scope, steps)
    tables, up_since = groups.tables(last.tables), groups.table("up_since", last.up_since)
    verdicts, after = groups.table("verdicts", past.verdicts), groups.memory(past.memory)

    handing = NOTHING if inputs.stopping else handover(steps.judged, now)
    doubtful = (*scope.doubtful, *groups.given_up())
    used = not unused(steps.drain) or bool(http.compiled.gateways)  # nobody counts what HAProxy serves
    leaving = leaving_rows(after.rows, doubtful, memory, inputs.idle, now, used, handing)
    kernel = with_leaving(tables, after.rows, leaving, memory.order)
    paths, probe_rows = _probes(scope)
    had_peers = service_names.had_peers(inputs.cluster, memory.had_peers)
    wakes = (*steps.wakes, *groups.wakes, *http.wakes, *_wakes(leaving, handing, paths, memory, now))
    cached = bool(kernel.services) and groups.cached and cached_leaving(leaving)
    decision = Decision(
        desired=State(
            sysctls=kernel_settings.sysctls(inputs, probing=bool(paths)),
            config=kernel_settings.config(inputs, cached),
            addresses=kernel.addresses,
            services=_both(kernel.services, probe_rows[0]),
            destinations=_both(kernel.destinations, probe_rows[1]),
            ingress_marks=spread.ingress_marks(http.memory.marks, inputs.policy.spread, kernel),
            routes=after.routes,
            http_engine=http.tables.http_engine,
            http_certificates=http.tables.http_certificates,
            http_servers=http.tables.http_servers,
            http_sites=http.tables.http_sites,
            **_names(scope.basis, after.routes, verdicts, had_peers),
        ),
        memory=replace(
            after,
            leaving=leaving,
            up_since=_both(serving_on(leaving, memory), up_since),
            order=kernel.order,
            marks={path: mark for path, mark in paths.items() if mark is not None},
            fwmarks=fwmarks(scope.grouping.services, memory) if scope.changed else memory.fwmarks,
            node_drain=steps.drain,
            had_peers=had_peers,
            http=http.memory,
        ),
        verdicts=verdicts,
        backends=groups.table("backends", past.backends),
        probe_paths=paths,
        http=http.verdicts,
        sharing=http.sharing,
        faults={str(subject): reason for subject, reason in scope.basis.contained.faults.items()},
        wake_at=max(min(wakes), now + TICK) if wakes else None,
    )
    return Remembered(decision, inputs, scope.grouping, groups.new, scope.by_check, tables, up_since, probe_rows, http)


def _both(one: Mapping[K, V], other: Mapping[K, V]) -> Mapping[K, V]:
    """Two tables as one; the same object if there is only one of them."""
    return {**in_one_piece(one), **in_one_piece(other)} if one and other else one or other


def _probes(scope: Scope) -> tuple[Mapping[ForwardPath, int | None], ProbeRows]:
    """The firewall marks of probes through IPVS, and the rows behind them."""
    last, past = scope.last, scope.last.decision
    old, new = last.grouping.groups, scope.grouping.groups
    edited = delta(old, new)
    standing = edited.aligned and all(old[name].paths == new[name].paths for name in edited.keys)
    if last is not FROM_SCRATCH and standing and None not in past.probe_paths.values():
        return past.probe_paths, last.probe_rows
    paths = probe_marks.paths(scope.grouping.paths, scope.basis.inputs, scope.basis.memory)
    return paths, probe_marks.rows(paths)


def _names(
    basis: Basis, routes: Mapping[Address, Route], verdicts: Mapping[Address, Verdict], had_peers: bool | None
) -> dict[str, Mapping[Any, Any]]:
    """The tables of names: records of DNS, and Consul's services."""
    inputs, announced = basis.inputs, service_names.votes(basis.inputs, routes)
    in_dns = inputs.policy.naming.dns is not None
    peers = service_names.view(inputs.cluster, had_peers) if in_dns else service_names.UNHEARD
    return {
        "dns_records": service_names.dns_records(inputs, announced, peers, basis.contained),
        "consul_services": service_names.consul_services(inputs, announced, verdicts, basis.contained),
    }


def _wakes(
    leaving: Mapping[RowId, Leaving],
    handing: Handover,
    paths: Mapping[ForwardPath, int | None],
    memory: Memory,
    now: float,
) -> Iterator[float]:
    """When rows that leave, new backends, and marks that come free are next looked at."""
    yield from (item.until for item in leaving.values())
    if handing.begins:
        yield from handing.ends.values()
    if probe_marks.come_free(paths, memory):
        yield now


def serving_on(leaving: Mapping[RowId, Leaving], memory: Memory) -> dict[DestinationKey, float]:
    """Since when those backends have been up that serve on although an edit has taken them out."""
    keys = (key for (table, key), item in leaving.items() if table == "destinations" and item.serves)
    return {key: memory.up_since[key] for key in keys if key in memory.up_since}
