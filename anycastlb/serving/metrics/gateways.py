"""Gateways, routes and pools as metrics, and what HAProxy has counted of them. Pure: nothing where ``[http]`` is off.

Hostnames are those of routes, never those of requests: below a wildcard a client could ask for any number of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from anycastlb.core.decision.http.passive import FAILED
from anycastlb.core.model import HttpCounters, Snapshot
from anycastlb.serving.metrics.families import FamilySamples, one, samples_of

CLASSES = ("2xx", "3xx", "4xx", "5xx")
ENGINE = "config"


def gateway_metrics(snapshot: Snapshot, ends: Mapping[str, float]) -> Iterator[FamilySamples]:
    """What was decided. ``ends``: when each certificate of the node ends."""
    if not snapshot.inputs.policy.http:
        return
    verdicts, actual, desired = snapshot.decision.http, snapshot.actual, snapshot.decision.desired
    gateways, pools = verdicts.gateways.items(), verdicts.pools.items()
    yield samples_of("gateway_open", [((name,), verdict.open) for name, verdict in gateways])
    yield samples_of("gateway_routes", [((name,), len(verdict.routes)) for name, verdict in gateways])
    yield samples_of("gateway_routes_up", [((name,), verdict.up) for name, verdict in gateways])
    yield samples_of("route_open", [((name,), verdict.open) for name, verdict in verdicts.routes.items()])
    yield samples_of("pool_open", [((name,), pool.serves) for name, pool in pools])
    yield samples_of("pool_backends", [((name,), pool.verdict.total) for name, pool in pools])
    yield samples_of("pool_backends_up", [((name,), pool.verdict.up) for name, pool in pools])
    backends = [((name, each.backend), each) for name, pool in pools for each in pool.backends.values()]
    yield samples_of("pool_backend_up", [(labels, backend.up) for labels, backend in backends])
    yield samples_of("pool_backend_weight", [(labels, backend.weight) for labels, backend in backends])
    counting = {(pool.name, one.name) for pool in snapshot.inputs.catalog.pools for one in pool.backends if one.passive}
    failed = [(labels, backend.reason.code == FAILED) for labels, backend in backends if labels in counting]
    yield samples_of("pool_backend_passive_failed", failed)
    yield samples_of("certificate_expiry_timestamp_seconds", [((name,), end) for name, end in sorted(ends.items())])
    served = [
        ((gateway, name), actual.http_certificates.get(name) == row)
        for name, row in desired.http_certificates.items()
        for gateway in row.gateways
    ]
    yield samples_of("certificate_served", served)
    yield samples_of("haproxy_up", one(actual.http_engine.get(ENGINE) == desired.http_engine.get(ENGINE)))


def gateway_traffic(snapshot: Snapshot, counted: HttpCounters | None) -> Iterator[FamilySamples]:
    """What HAProxy has counted of hostnames and pools that there are."""
    if not snapshot.inputs.policy.http:
        return
    yield samples_of("haproxy_statistics_up", one(counted is not None))
    if counted is None:
        return
    wanted = snapshot.decision.desired.http_sites
    sites = [((key.gateway, key.host), row) for key, row in counted.sites.items() if key in wanted]
    for name in ("requests", "bytes_in", "bytes_out"):
        yield samples_of(f"gateway_{name}", [(labels, getattr(row, name)) for labels, row in sites])
    answers = [
        ((*labels, status), number)
        for labels, row in sites
        for status, number in zip(CLASSES, row.answers, strict=True)
    ]
    yield samples_of("gateway_responses", answers)
    known = snapshot.decision.http.pools
    pools = [((name,), row) for name, row in counted.pools.items() if name in known]
    for name in ("requests", "retries", "redispatches", "connection_errors", "response_errors", "queued"):
        yield samples_of(f"pool_{name}", [(labels, getattr(row, name)) for labels, row in pools])
    yield samples_of("pool_response_seconds", [(labels, row.response_seconds) for labels, row in pools])
