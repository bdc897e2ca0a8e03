"""What one snapshot says, as metrics. Pure: a snapshot and the time in, families out; nothing is stored for an object,
so its series vanish with it."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import get_args

from anycastlb.core.catalog.fingerprint import fingerprint
from anycastlb.core.decision import drain_traffic
from anycastlb.core.model import ALL_TABLES, TABLES, Address, Catalog, Problem, Route, Snapshot, Stage, Verdict
from anycastlb.serving.metrics.families import FamilySamples, one, samples_of
from anycastlb.serving.metrics.rows import service_rows

DOCUMENTS = ("service", "backend", "gateway", "route", "defaults", "drain", "discovery", "other")
SESSIONS = ("up", "down", "connected", "unknown")


def node_metrics(snapshot: Snapshot, wall: float) -> Iterator[FamilySamples]:
    inputs = snapshot.inputs
    yield samples_of("node_info", [((inputs.node, snapshot.speaker.version), 1)])
    yield samples_of("node_drained", one(inputs.node in inputs.catalog.drained))
    yield samples_of("node_stopping", one(inputs.stopping))
    yield from _drain(snapshot)
    yield samples_of("node_clock_timestamp_seconds", one(wall))


def _drain(snapshot: Snapshot) -> Iterator[FamilySamples]:
    drain, wall = snapshot.decision.memory.node_drain, snapshot.inputs.wall
    if drain is None:
        return
    yield samples_of("node_leave_stage", [((stage,), stage == drain.stage) for stage in get_args(Stage)])
    yield samples_of("node_leave_since_timestamp_seconds", one(wall + drain.since))
    if drain.until is not None:
        yield samples_of("node_leave_deadline_timestamp_seconds", one(wall + drain.until))
    if drain.samples:
        yield samples_of("node_leave_connections", one(drain.samples[-1].connections))
        yield samples_of("node_leave_packets_per_second", one(drain_traffic.rate(drain)))


def catalog_metrics(snapshot: Snapshot, now: float) -> Iterator[FamilySamples]:
    feed, catalog = snapshot.inputs.feed, snapshot.inputs.catalog
    yield samples_of("catalog_loaded", one(feed.loaded))
    yield samples_of("catalog_connected", one(feed.connected))
    yield samples_of("catalog_age_seconds", one(0.0 if feed.connected else max(0.0, now - feed.since)))
    yield samples_of("catalog_cached", one(feed.cached))
    yield samples_of("catalog_held", one(feed.held is not None))
    yield samples_of("catalog_held_vips", one(len(feed.held.lost) if feed.held else 0))
    yield samples_of("catalog_index", one(catalog.index))
    yield samples_of("catalog_fingerprint", one(fingerprint_number(catalog)))
    yield samples_of("catalog_services", one(len(catalog.services)))
    yield samples_of("catalog_vips", one(len(catalog.vips)))
    yield samples_of("catalog_backends", one(sum(len(service.backends) for service in catalog.services)))
    yield samples_of("catalog_drained_nodes", one(len(catalog.drained)))
    yield samples_of("catalog_drained_budget", one(snapshot.inputs.policy.drain_rules.max_drained))
    problems = Counter(document_of(problem) for problem in catalog.problems)
    yield samples_of("catalog_problems", [((document,), problems[document]) for document in DOCUMENTS])
    known = catalog.instances
    yield samples_of("discovery_instances", [((str(d),), len(known[d])) for d in catalog.discovers if d in known])
    yield samples_of("discovery_services", [((str(d),), len(names)) for d, names in catalog.discovers.items()])


def document_of(problem: Problem) -> str:
    """The kind of document a problem is in; its key is that of the catalog, or a file's path."""
    key = problem.key
    if problem.path == "backends_from":
        return "discovery"
    if re.search(r"(^|/)services/[^/]+/backends/", key):
        return "backend"
    if re.search(r"(^|/)services/", key):
        return "service"
    for kind in ("gateway", "route"):
        if re.search(rf"(^|/){kind}s/", key):
            return kind
    if re.search(r"(^|/)defaults(\.\w+)?$", key):
        return "defaults"
    return "drain" if re.search(r"(^|/)drain/", key) else "other"


def fingerprint_number(catalog: Catalog) -> int:
    """48 bits of the catalog's fingerprint, which a float holds exactly; 0 for a catalog without documents."""
    return int(fingerprint(catalog)[:12], 16) if catalog.good else 0


def vip_metrics(snapshot: Snapshot) -> Iterator[FamilySamples]:
    verdicts, routes, addresses = snapshot.decision.verdicts, snapshot.actual.routes, snapshot.actual.addresses
    gates = {vip: snapshot.decision.memory.gates.get(vip) for vip in verdicts}
    names = {vip: (str(vip),) for vip in (*verdicts, *routes, *addresses)}
    yield samples_of("vip_open", [(names[vip], verdict.open) for vip, verdict in verdicts.items()])
    shut = [(vip, verdict) for vip, verdict in verdicts.items() if not verdict.open]
    yield samples_of("vip_closed", [((*names[vip], closed_by(verdict)), 1) for vip, verdict in shut])
    kept = [((*names[vip], verdict.kept), 1.0) for vip, verdict in verdicts.items() if verdict.kept]
    yield samples_of("vip_kept", kept)
    known = {**verdicts, **dict.fromkeys(routes)}
    yield samples_of("vip_announced", [(names[vip], vip in routes) for vip in known])
    known = {**verdicts, **dict.fromkeys(addresses)}
    yield samples_of("vip_address", [(names[vip], vip in addresses) for vip in known])
    yield samples_of("vip_route_attributes", [(names[vip], attributes(route)) for vip, route in routes.items()])
    holds = _holds(snapshot)
    held = [((*names[vip], hold), holds.get((vip, hold), 0.0)) for vip in verdicts for hold in ("up", "down")]
    yield samples_of("vip_hold_seconds", held)
    wall = snapshot.at_wall - snapshot.at
    ready = [(names[vip], wall + g.ready_since) for vip, g in gates.items() if g and g.ready_since is not None]
    yield samples_of("vip_ready_timestamp_seconds", ready)
    turned = [(names[vip], wall + v.since) for vip, v in verdicts.items() if math.isfinite(v.since)]
    yield samples_of("vip_transition_timestamp_seconds", turned)
    yield samples_of("vip_damping_penalty", [(names[vip], verdict.penalty) for vip, verdict in verdicts.items()])
    damped = [(names[vip], g is not None and g.suppressed_since is not None) for vip, g in gates.items()]
    yield samples_of("vip_damped", damped)


CLOSED_BY: Mapping[str, str] = {
    "node_stopping": "stopping",
    "node_drained": "drained",
    "refused": "refused",
    "damped": "damped",
    "hold_up": "hold",
    "hold_down": "hold",
    "unsettled": "unsettled",
    "returning": "unsettled",
    "catching_up": "unsettled",
}
"""The word of the metric for each code of a closed gate's reason; every other code is about its backends."""


def closed_by(verdict: Verdict) -> str:
    """Why the VIP is closed, as one of a few words."""
    return CLOSED_BY.get(verdict.reason.code, "backends")


def attributes(route: Route) -> int:
    """How many BGP attributes a route carries besides those every route has."""
    single = (route.med, route.local_preference, route.as_path_prepend or None)
    return len(route.communities) + len(route.large_communities) + sum(value is not None for value in single)


def _holds(snapshot: Snapshot) -> dict[tuple[Address, str], float]:
    """By VIP and ``up`` or ``down``, as the gates use them: the longest of each among a VIP's services."""
    holds: dict[tuple[Address, str], float] = {}
    for service in snapshot.inputs.catalog.services:
        for vip in service.vips if service.announce.hold_up or service.announce.hold_down else ():
            for hold, seconds in (("up", service.announce.hold_up), ("down", service.announce.hold_down)):
                holds[vip, hold] = max(holds.get((vip, hold), 0.0), seconds)
    return holds


def service_metrics(snapshot: Snapshot) -> Iterator[FamilySamples]:
    rows = list(service_rows(snapshot))
    yield samples_of("service_open", ((labels, service.open) for labels, service in rows))
    yield samples_of("service_backends", ((labels, service.total) for labels, service in rows))
    yield samples_of("service_backends_up", ((labels, service.up) for labels, service in rows))
    yield samples_of("service_backends_needed", ((labels, service.needed) for labels, service in rows))
    yield samples_of("service_unsettled_seconds", ((labels, service.unsettled) for labels, service in rows))


def speaker_metrics(snapshot: Snapshot) -> Iterator[FamilySamples]:
    at = snapshot.speaker
    sessions = {session.peer: session for session in at.sessions}
    yield samples_of("bgp_bridge_connected", one(at.connected))
    yield samples_of("bgp_session_up", [((peer,), s.state == "up") for peer, s in sessions.items()])
    yield samples_of(
        "bgp_session_state", [((peer, state), s.state == state) for peer, s in sessions.items() for state in SESSIONS]
    )
    wall = snapshot.at_wall - snapshot.at
    yield samples_of("bgp_session_transition_timestamp_seconds", [((p,), wall + s.since) for p, s in sessions.items()])
    yield samples_of("bgp_routes_announced", one(len(snapshot.actual.routes)))
    yield samples_of("bgp_routes_rejected", one(len(at.rejected)))


def reconciler_metrics(snapshot: Snapshot) -> Iterator[FamilySamples]:
    plan = Counter(change.table for change in snapshot.plan)
    failed = Counter(failure.change.table for failure in snapshot.failures)
    desired, tables = snapshot.decision.desired, ALL_TABLES if snapshot.inputs.policy.http else TABLES
    yield samples_of("table_rows", [((table,), len(snapshot.actual.rows(table))) for table in tables])
    yield samples_of("table_rows_desired", [((table,), len(desired.rows(table))) for table in tables])
    yield samples_of("plan_changes", [((table,), plan[table]) for table in tables])
    yield samples_of("failed_changes", [((table,), failed[table]) for table in tables])
    registrars = snapshot.registrars
    yield samples_of("names_up", [((item.table,), item.seen and not item.error) for item in registrars])
    yield samples_of("names_refused", [((item.table,), len(item.refused)) for item in registrars])
    yield samples_of("leaving_rows", one(len(snapshot.decision.memory.leaving)))
    yield samples_of("last_cycle_timestamp_seconds", one(snapshot.at_wall))
