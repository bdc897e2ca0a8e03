"""The links of ``why`` that are about gateways, routes and pools: verdicts, backends, and what HAProxy has of them.

Each link is ``ok`` or not, in the decision's own words. Pure: nothing here decides.
"""

from __future__ import annotations

from anycastlb.core.model import Address, Gateway, HttpRoute, Service, endpoint
from anycastlb.serving.views.cluster import announcers
from anycastlb.serving.views.http import (
    RUNS,
    engine_reason,
    gateway_view,
    pool_seats,
    route_view,
    server_row,
)
from anycastlb.serving.views.index import Index, Seat
from anycastlb.serving.views.links import ARROW, Link, link, result_text, serves, short_weight, state_text, weight_links
from anycastlb.serving.views.vips import View

MAX_HOSTNAMES = 5
"""Hostnames of a route that a link names."""


def gateway_links(index: Index, gateway: Gateway) -> list[Link]:
    """A gateway with its routes under it, its certificates, and HAProxy."""
    view = gateway_view(index, gateway)
    routes = {route.name: route for route in index.snapshot.inputs.catalog.routes}
    under = [route_link(index, routes[name], every=False) for name in view["routes"] if name in routes]
    text = f"{view['protocol']} {gateway.port}: {view['reason']}"
    return [
        link("gateway", view["open"], gateway.name, text, under),
        *(link("tls", one["served"], one["certificate"], _certificate(one)) for one in view["certificates"]),
        engine_link(index),
    ]


def _certificate(view: View) -> str:
    if view["refused"]:
        return f"HAProxy refused it: {view['refused']}"
    if view["fingerprint"] is None:
        return "this node has no such certificate"
    return "served" if view["served"] else "HAProxy does not have the one of this node yet"


def engine_link(index: Index) -> Link:
    reason = engine_reason(index)
    return link("haproxy", reason is RUNS, "HAProxy", reason.text)


def vip_link(index: Index, vip: Address) -> Link:
    """Is it announced, by whom, and why not?"""
    if by := announcers(index.snapshot).get(vip):
        return link("vip", True, str(vip), f"announced by {', '.join(by)}")
    verdict = index.verdict(vip)
    why = f": {verdict.reason}" if verdict and not verdict.open else ""
    return link("vip", False, str(vip), f"nobody announces it{why}")


def route_link(index: Index, route: HttpRoute, every: bool = True) -> Link:
    """A route; with ``every``, the pools that it sends requests to under it."""
    view = route_view(index, route)
    hosts = ", ".join(route.hostnames[:MAX_HOSTNAMES]) + ("…" if len(route.hostnames) > MAX_HOSTNAMES else "")
    text = f"{hosts}: {view['reason']}"
    if view["refused"]:
        text += f"; HAProxy refused it: {view['refused']}"
    elif view["open"] and not view["current"]:
        text += "; HAProxy does not have its rules yet"
    under = [pool_link(index, name) for name in view["pools"]] if every else []
    return link("route", view["open"] and view["current"], route.name, text, under)


def pool_link(index: Index, name: str) -> Link:
    """A pool, or a service with a VIP that is used as one, with a one-line chain for each backend under it."""
    known, pool = index.snapshot.decision.http.pools.get(name), pool_of(index, name)
    if known is None or pool is None:
        return link("pool", False if index.serves_http else None, name, "not decided on this node")
    backends = [_backend(index, seat) for seat in pool_seats(index, pool)]
    return link("pool", known.serves, name, known.verdict.reason.text, backends)


def pool_of(index: Index, name: str) -> Service | None:
    catalog = index.snapshot.inputs.catalog
    return next((one for one in (*catalog.pools, *catalog.services) if one.name == name), None)


def _backend(index: Index, seat: Seat) -> Link:
    parts = [result_text(index, seat.state), state_text(index, seat), short_weight(seat), _server(index, seat)]
    name = f"{seat.backend.name} {endpoint(seat.backend.address, seat.backend.port)}"
    return link("backend", serves(seat), name, ARROW.join(parts))


def pool_evidence_links(index: Index, seat: Seat) -> list[Link]:
    """One backend of a pool link by link: check, last result, state, weight, HAProxy."""
    row, _ = server_row(index, seat)
    server = link("haproxy", None if seat.drained else row is not None, "", _server(index, seat))
    return [*weight_links(index, seat), server]


def _server(index: Index, seat: Seat) -> str:
    row, refused = server_row(index, seat)
    if refused.text:
        return f"HAProxy refused it: {refused}"
    return f"HAProxy has it with weight {row.weight}, {row.state}" if row else "HAProxy does not have it"
