"""What one snapshot says, as metrics. Pure: a snapshot and the time in, families out; nothing is stored for an object,
so its series vanish with it."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import sha256
from typing import get_args

from anycastlb import leave
from anycastlb.metrics.families import Sample, Told, one, told
from anycastlb.metrics.rows import BackendRow, service_rows
from anycastlb.model import TABLES, Address, Catalog, Gate, Problem, Route, Snapshot, Stage, Verdict

DOCUMENTS = ("service", "backend", "defaults", "drain", "discovery", "other")
SESSIONS = ("up", "down", "connected", "unknown")


def node(snapshot: Snapshot, wall: float) -> Iterator[Told]:
    inputs = snapshot.inputs
    yield told("node_info", [((inputs.node, snapshot.speaker.version), 1)])
    yield told("node_drained", one(inputs.node in inputs.catalog.drained))
    yield told("node_stopping", one(inputs.stopping))
    yield from _leave(snapshot)
    yield told("node_clock_timestamp_seconds", one(wall))


def _leave(snapshot: Snapshot) -> Iterator[Told]:
    found, wall = snapshot.decision.memory.leave, snapshot.inputs.wall
    if found is None:
        return
    yield told("node_leave_stage", [((stage,), stage == found.stage) for stage in get_args(Stage)])
    yield told("node_leave_since_timestamp_seconds", one(wall + found.since))
    if found.until is not None:
        yield told("node_leave_deadline_timestamp_seconds", one(wall + found.until))
    if found.samples:
        yield told("node_leave_connections", one(found.samples[-1].connections))
        yield told("node_leave_packets_per_second", one(leave.rate(found)))


def catalog(snapshot: Snapshot, now: float) -> Iterator[Told]:
    feed, found = snapshot.inputs.feed, snapshot.inputs.catalog
    yield told("catalog_loaded", one(feed.loaded))
    yield told("catalog_connected", one(feed.connected))
    yield told("catalog_age_seconds", one(0.0 if feed.connected else max(0.0, now - feed.since)))
    yield told("catalog_cached", one(feed.cached))
    yield told("catalog_held", one(feed.held is not None))
    yield told("catalog_held_vips", one(len(feed.held.lost) if feed.held else 0))
    yield told("catalog_index", one(found.index))
    yield told("catalog_fingerprint", one(fingerprint(found)))
    yield told("catalog_services", one(len(found.services)))
    yield told("catalog_vips", one(len(found.vips)))
    yield told("catalog_backends", one(sum(len(service.backends) for service in found.services)))
    yield told("catalog_drained_nodes", one(len(found.drained)))
    yield told("catalog_drained_budget", one(snapshot.inputs.leaving.max_drained))
    problems = Counter(document_of(problem) for problem in found.problems)
    yield told("catalog_problems", [((document,), problems[document]) for document in DOCUMENTS])
    known = found.instances
    yield told("discovery_instances", [((str(d),), len(known[d])) for d in found.discovers if d in known])
    yield told("discovery_services", [((str(d),), len(names)) for d, names in found.discovers.items()])


def document_of(problem: Problem) -> str:
    """The kind of document a problem is in; its key is that of the catalog, or a file's path."""
    key = problem.key
    if problem.path == "backends_from":
        return "discovery"
    if re.search(r"(^|/)services/[^/]+/backends/", key):
        return "backend"
    if re.search(r"(^|/)services/", key):
        return "service"
    if re.search(r"(^|/)defaults(\.\w+)?$", key):
        return "defaults"
    return "drain" if re.search(r"(^|/)drain/", key) else "other"


def fingerprint(found: Catalog) -> int:
    """48 bits of a hash over the documents in force: equal documents, equal numbers, on every node."""
    return _hashed(tuple(sorted((key, entry.value) for key, entry in found.good.items())))


@lru_cache(4)
def _hashed(documents: tuple[tuple[str, bytes], ...]) -> int:
    digest = sha256()
    for key, value in documents:
        digest.update(f"{len(key)} {len(value)} {key} ".encode())
        digest.update(value)
    return int.from_bytes(digest.digest()[:6], "big") if documents else 0


def vips(snapshot: Snapshot) -> Iterator[Told]:
    verdicts, routes = snapshot.decision.verdicts, snapshot.actual.routes
    gates = {vip: snapshot.decision.memory.gates.get(vip) for vip in verdicts}
    yield told("vip_open", [((str(vip),), verdict.open) for vip, verdict in verdicts.items()])
    shut = [(vip, verdict) for vip, verdict in verdicts.items() if not verdict.open]
    yield told("vip_closed", [((str(vip), closed_by(snapshot, verdict, gates[vip])), 1) for vip, verdict in shut])
    kept = [((str(vip), verdict.kept), 1.0) for vip, verdict in verdicts.items() if verdict.kept]
    yield told("vip_kept", kept)
    known = {**verdicts, **dict.fromkeys(routes)}
    yield told("vip_announced", [((str(vip),), vip in routes) for vip in known])
    addresses = snapshot.actual.addresses
    yield told("vip_address", [((str(vip),), vip in addresses) for vip in {**verdicts, **dict.fromkeys(addresses)}])
    yield told("vip_route_attributes", [((str(vip),), attributes(route)) for vip, route in routes.items()])
    yield told("vip_hold_seconds", _holds(snapshot))
    wall = snapshot.at_wall - snapshot.at
    ready = [((str(vip),), wall + g.ready_since) for vip, g in gates.items() if g and g.ready_since is not None]
    yield told("vip_ready_timestamp_seconds", ready)
    turned = [((str(vip),), wall + v.since) for vip, v in verdicts.items() if math.isfinite(v.since)]
    yield told("vip_transition_timestamp_seconds", turned)
    yield told("vip_damping_penalty", [((str(vip),), verdict.penalty) for vip, verdict in verdicts.items()])
    yield told(
        "vip_damped", [((str(vip),), g is not None and g.suppressed_since is not None) for vip, g in gates.items()]
    )


def closed_by(snapshot: Snapshot, verdict: Verdict, gate: Gate | None) -> str:
    """Why the VIP is closed, as one of a few words."""
    inputs = snapshot.inputs
    if inputs.stopping:
        return "stopping"
    if inputs.node in inputs.catalog.drained:
        return "drained"
    if gate is None or gate.ready_since is None:
        refused = {failure.change.key for failure in inputs.failures}
        keys = (verdict.vip, *(service.key for service in verdict.services if not service.open))
        return "refused" if any(key in refused for key in keys) else "backends"
    if gate.suppressed_since is not None:
        return "damped"
    return "unsettled" if any(service.unsettled or service.returning for service in verdict.services) else "hold"


def attributes(route: Route) -> int:
    """How many BGP attributes a route carries besides those every route has."""
    single = (route.med, route.local_preference, route.as_path_prepend or None)
    return len(route.communities) + len(route.large_communities) + sum(value is not None for value in single)


def _holds(snapshot: Snapshot) -> list[Sample]:
    """As the gates use them: the longest of each among a VIP's services."""
    holds: dict[tuple[Address, str], float] = {}
    for service in snapshot.inputs.catalog.services:
        for vip in service.vips if service.announce.hold_up or service.announce.hold_down else ():
            for hold, seconds in (("up", service.announce.hold_up), ("down", service.announce.hold_down)):
                holds[vip, hold] = max(holds.get((vip, hold), 0.0), seconds)
    decided = snapshot.decision.verdicts
    return [((str(vip), hold), holds.get((vip, hold), 0.0)) for vip in decided for hold in ("up", "down")]


def services(snapshot: Snapshot) -> Iterator[Told]:
    rows = list(service_rows(snapshot))
    yield told("service_open", ((labels, service.open) for labels, service in rows))
    yield told("service_backends", ((labels, service.total) for labels, service in rows))
    yield told("service_backends_up", ((labels, service.up) for labels, service in rows))
    yield told("service_backends_needed", ((labels, service.needed) for labels, service in rows))
    yield told("service_unsettled_seconds", ((labels, service.unsettled) for labels, service in rows))


def backends(snapshot: Snapshot, rows: Sequence[BackendRow]) -> Iterator[Told]:
    yield told("backend_up", ((row.labels, row.verdict.up) for row in rows))
    checked = [(row.labels, row.state) for row in rows if row.state is not None]
    lasts = [(labels, state.last) for labels, state in checked if state.last is not None]
    yield told("backend_check_up", ((labels, last.ok) for labels, last in lasts))
    yield told("backend_check_unknown", ((row.labels, row.state is None or row.state.up is None) for row in rows))
    yield told("backend_check_duration_seconds", ((labels, last.duration) for labels, last in lasts))
    wall = snapshot.at_wall - snapshot.at
    turned = [(labels, wall + state.since) for labels, state in checked if state.up is not None]
    yield told("backend_transition_timestamp_seconds", turned)
    yield told("backend_weight", ((row.labels, row.verdict.weight) for row in rows))
    yield told("backend_configured_weight", ((row.labels, row.backend.weight) for row in rows))
    admins = [(row.labels, admin) for row in rows if (admin := row.verdict.weights.admin) is not None]
    yield told("backend_administrative_weight", admins)
    yield told("backend_health_ratio", ((row.labels, row.verdict.weights.health) for row in rows))
    yield told("backend_slow_start_ratio", ((row.labels, row.verdict.weights.ramp) for row in rows))
    drained = [
        (row, row.verdict.weights.admin == 0 and (row.backend.drain or row.backend.override != 0)) for row in rows
    ]
    yield told("backend_drained", ((row.labels, is_drained) for row, is_drained in drained))
    leaving = snapshot.decision.memory.leaving
    ends = [(row.labels, leaving.get(("destinations", row.key))) for row, is_drained in drained if is_drained]
    yield told("backend_leaves_timestamp_seconds", ((labels, wall + end.until) for labels, end in ends if end))


def speaker(snapshot: Snapshot) -> Iterator[Told]:
    at = snapshot.speaker
    sessions = {session.peer: session for session in at.sessions}
    yield told("bgp_bridge_connected", one(at.connected))
    yield told("bgp_session_up", [((peer,), s.state == "up") for peer, s in sessions.items()])
    yield told(
        "bgp_session_state", [((peer, state), s.state == state) for peer, s in sessions.items() for state in SESSIONS]
    )
    wall = snapshot.at_wall - snapshot.at
    yield told("bgp_session_transition_timestamp_seconds", [((p,), wall + s.since) for p, s in sessions.items()])
    yield told("bgp_routes_announced", one(len(snapshot.actual.routes)))
    yield told("bgp_routes_rejected", one(len(at.rejected)))


def reconciler(snapshot: Snapshot) -> Iterator[Told]:
    plan = Counter(change.table for change in snapshot.plan)
    failed = Counter(failure.change.table for failure in snapshot.failures)
    desired = snapshot.decision.desired
    yield told("table_rows", [((table,), len(snapshot.actual.rows(table))) for table in TABLES])
    yield told("table_rows_desired", [((table,), len(desired.rows(table))) for table in TABLES])
    yield told("plan_changes", [((table,), plan[table]) for table in TABLES])
    yield told("failed_changes", [((table,), failed[table]) for table in TABLES])
    registrars = snapshot.registrars
    yield told("names_up", [((item.table,), item.seen and not item.error) for item in registrars])
    yield told("names_refused", [((item.table,), len(item.refused)) for item in registrars])
    yield told("leaving_rows", one(len(snapshot.decision.memory.leaving)))
    yield told("last_cycle_timestamp_seconds", one(snapshot.at_wall))
