"""Gateways, routes and pools as JSON-ready dicts: what ``status`` says of the HTTP tier.

Pure: values in, dicts out. Nothing here decides: every reason is the one the decision gave.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address
from typing import Any

from anycastlb.core.http.names import escaped
from anycastlb.core.model import (
    NO_REASON,
    DestinationKey,
    Gateway,
    HttpRoute,
    HttpServer,
    Reason,
    Service,
    SiteKey,
    Table,
)
from anycastlb.serving.views.format import UNDECIDED, reason_fields
from anycastlb.serving.views.index import Index, Seat
from anycastlb.serving.views.vips import View, backend_view, check_view

NOWHERE = IPv4Address(0)
"""The VIP of a pool, which has none."""
OFF = Reason("http_off", "this node serves no gateways: node.toml has no [http]")
DIFFERS = Reason("haproxy_differs", "HAProxy does not run with the configuration that is wanted yet")
RUNS = Reason("haproxy_runs", "HAProxy runs with the configuration that is wanted")
ENGINE = "config"


def http_view(index: Index) -> View | None:
    """The HTTP tier; None where there is none, neither in the catalog nor on this node."""
    catalog = index.snapshot.inputs.catalog
    if not (index.serves_http or catalog.gateways or catalog.routes or catalog.pools):
        return None
    engine = engine_reason(index)
    return {
        "served": index.serves_http,
        "haproxy": {"ok": engine is RUNS, **reason_fields(engine)},
        "gateways": [gateway_view(index, gateway) for gateway in catalog.gateways],
        "routes": [route_view(index, route) for route in catalog.routes],
        "pools": [pool_view(index, pool) for pool in catalog.pools],
    }


def engine_reason(index: Index) -> Reason:
    """``RUNS``, or why HAProxy does not do what is wanted."""
    if not index.serves_http:
        return OFF
    wanted, actual = index.snapshot.decision.desired.http_engine, index.snapshot.actual.http_engine
    if wanted.get(ENGINE) == actual.get(ENGINE):
        return RUNS
    refused = index.failure("http_engine", ENGINE)
    return refused if refused.code else DIFFERS


def gateway_view(index: Index, gateway: Gateway) -> View:
    verdict = index.snapshot.decision.http.gateways.get(gateway.name)
    return {
        "gateway": gateway.name,
        "vips": [str(vip) for vip in gateway.vips],
        "port": gateway.port,
        "protocol": "https" if gateway.tls else "http",
        "spread": gateway.spread,
        "when": gateway.when,
        "open": bool(verdict and verdict.open),
        "up": verdict.up if verdict else None,
        "total": len(verdict.routes) if verdict else None,
        "needed": verdict.needed if verdict else None,
        **reason_fields(verdict.reason if verdict else OFF if not index.serves_http else UNDECIDED),
        "routes": list(verdict.routes) if verdict else [],
        "certificates": list(_certificates(index, gateway)),
    }


def _certificates(index: Index, gateway: Gateway) -> Iterator[View]:
    """Its certificates: does this node have each, and does HAProxy serve the one that the node has?"""
    known, actual = index.snapshot.inputs.certificates, index.snapshot.actual.http_certificates
    for name in gateway.tls.certificates if gateway.tls else ():
        row, fingerprint = actual.get(name), known.get(name)
        yield {
            "certificate": name,
            "fingerprint": fingerprint,
            "served": row is not None and row.fingerprint == fingerprint,
            "refused": refusal(index, "http_certificates", [name]).text,
        }


def route_view(index: Index, route: HttpRoute) -> View:
    snapshot = index.snapshot
    verdict = snapshot.decision.http.routes.get(route.name)
    wanted, actual = snapshot.decision.desired.http_sites, snapshot.actual.http_sites
    keys = [SiteKey(gateway, host) for gateway in route.gateways for host in route.hostnames]
    current = [key for key in keys if key in wanted and actual.get(key) == wanted[key]]
    return {
        "route": route.name,
        "gateways": list(route.gateways),
        "hostnames": list(route.hostnames),
        "rules": len(route.rules) or len(route.graph.rules if route.graph else ()),
        "pools": sorted(route.pools()),
        "critical": route.critical,
        "open": bool(verdict and verdict.open),
        **reason_fields(verdict.reason if verdict else OFF if not index.serves_http else UNDECIDED),
        "current": len(current) == len(keys),
        "refused": refusal(index, "http_sites", keys).text,
    }


def pool_view(index: Index, pool: Service) -> View:
    known = index.snapshot.decision.http.pools.get(pool.name)
    verdict = known.verdict if known else None
    return {
        "pool": pool.name,
        "balance": pool.balancing.algorithm,
        "cookie": pool.balancing.cookie,
        "open": bool(verdict and verdict.open),
        "serves": bool(known and known.serves),
        "up": verdict.up if verdict else None,
        "total": verdict.total if verdict else None,
        "needed": verdict.needed if verdict else None,
        "backends_from": str(pool.backends_from) if pool.backends_from else None,
        **reason_fields(verdict.reason if verdict else OFF if not index.serves_http else UNDECIDED),
        "backends": [pool_backend_view(index, seat) for seat in pool_seats(index, pool)],
    }


def pool_seats(index: Index, pool: Service) -> Iterator[Seat]:
    """The backends of a pool with all that is known of each; without a row, since IPVS has none. A service with VIPs
    is a pool too for the routes that name it."""
    known, vip = index.snapshot.decision.http.pools.get(pool.name), pool.vips[0] if pool.vips else NOWHERE
    for backend in pool.members(vip):
        check = pool.check(vip, backend)
        yield Seat(
            service=pool,
            vip=vip,
            backend=backend,
            key=DestinationKey(pool.key(vip), backend.address, backend.port),
            check=check,
            state=index.snapshot.inputs.health.get(check),
            verdict=known.backends.get(backend.name) if known else None,
            row=None,
        )


def pool_backend_view(index: Index, seat: Seat) -> View:
    """As of any service, with what HAProxy has of it in place of the kernel's row."""
    row, refused = server_row(index, seat)
    return {
        **backend_view(index, seat, check_view(index, seat)),
        "forward": "",
        "refused": refused.text,
        "refused_code": refused.code,
        "server": {"weight": row.weight, "state": row.state} if row else None,
    }


def server_row(index: Index, seat: Seat) -> tuple[HttpServer | None, Reason]:
    """What HAProxy has of a pool's backend, and why it refused to change that; ``NO_REASON`` if it did not."""
    keys = index.http_servers.get((seat.service.name, escaped(seat.backend.name)), ())
    row = next((row for key in keys if (row := index.snapshot.actual.http_servers.get(key))), None)
    return row, refusal(index, "http_servers", keys)


def refusal(index: Index, table: Table, keys: Iterable[Any]) -> Reason:
    """Why HAProxy refused one of these rows; ``NO_REASON`` if it did not, or if that is said of HAProxy as a whole."""
    refused = next((reason for key in keys if (reason := index.failure(table, key)).code), NO_REASON)
    return NO_REASON if refused == index.failure("http_engine", ENGINE) else refused
