"""Why is a gateway, a route, a pool or a backend of a pool as it is? The chains of ``why`` about the HTTP tier.

Pure, and it decides nothing.
"""

from __future__ import annotations

from typing import Any

from anycastlb.core.model import Catalog, Gateway, HttpRoute, Service
from anycastlb.serving.views.evidence import results
from anycastlb.serving.views.format import UNDECIDED
from anycastlb.serving.views.http import OFF, pool_seats
from anycastlb.serving.views.http_links import (
    engine_link,
    gateway_links,
    pool_evidence_links,
    pool_link,
    route_link,
    vip_link,
)
from anycastlb.serving.views.index import Index
from anycastlb.serving.views.links import Link, link
from anycastlb.serving.views.vips import result_view

Explanation = dict[str, Any]


def http_names(catalog: Catalog) -> list[str]:
    """What ``explain_http`` knows, but for backends."""
    return [
        *(pool.name for pool in catalog.pools),
        *(f"gateways/{gateway.name}" for gateway in catalog.gateways),
        *(f"routes/{route.name}" for route in catalog.routes),
    ]


def explain_http(index: Index, name: str) -> Explanation | None:
    """The chain of ``gateways/GATEWAY``, ``routes/ROUTE``, ``POOL`` or ``POOL/BACKEND``; None if there is none."""
    catalog, (first, _, rest) = index.snapshot.inputs.catalog, name.partition("/")
    pool = next((one for one in catalog.pools if one.name == first), None)
    gateway = next((one for one in catalog.gateways if name == f"gateways/{one.name}"), None)
    route = next((one for one in catalog.routes if name == f"routes/{one.name}"), None)
    if pool is not None:
        view = _backend(index, pool, rest) if rest else _pool(index, pool)
    elif gateway is not None:
        view = _gateway(index, gateway)
    else:
        view = _route(index, route) if route is not None else None
    if view is None:
        return None
    return {**view, "chain": [*view["chain"], *_problems(index, f"services/{first}" if pool else name)]}


def _problems(index: Index, key: str) -> list[Link]:
    return [
        link("problem", False, one.key, f"{one.path}: {one.expected} (the last good version is in force)")
        for one in index.snapshot.inputs.catalog.problems
        if one.key == key or one.key.startswith((f"{key}/", f"{key}."))
    ]


def _gateway(index: Index, gateway: Gateway) -> Explanation:
    chain = [*(vip_link(index, vip) for vip in gateway.vips), *gateway_links(index, gateway)]
    verdict = index.snapshot.decision.http.gateways.get(gateway.name)
    ok = all(one["ok"] for one in chain)
    return _answer(index, "gateway", f"gateways/{gateway.name}", ok, verdict.reason.text if verdict else None, chain)


def _route(index: Index, route: HttpRoute) -> Explanation:
    gateways = [one for one in index.snapshot.inputs.catalog.gateways if one.name in route.gateways]
    vips = [vip_link(index, vip) for gateway in gateways for vip in gateway.vips]
    chain = [*vips, route_link(index, route), engine_link(index)]
    verdict = index.snapshot.decision.http.routes.get(route.name)
    ok = all(one["ok"] for one in chain)
    return _answer(index, "route", f"routes/{route.name}", ok, verdict.reason.text if verdict else None, chain)


def _pool(index: Index, pool: Service) -> Explanation:
    known = index.snapshot.decision.http.pools.get(pool.name)
    using = [route for route in index.snapshot.inputs.catalog.routes if pool.name in route.pools()]
    chain = [pool_link(index, pool.name), *(route_link(index, route, every=False) for route in using)]
    ok = bool(known and known.serves)
    return _answer(index, "pool", pool.name, ok, known.verdict.reason.text if known else None, chain)


def _backend(index: Index, pool: Service, name: str) -> Explanation | None:
    seat = next((one for one in pool_seats(index, pool) if one.backend.name == name), None)
    if seat is None:
        return None
    weight = seat.verdict.weight if seat.verdict else 0
    reason = seat.verdict.reason.text if seat.verdict else None
    text = f"weight {weight} of {seat.backend.weight}: {reason}" if weight else f"gets no new requests: {reason}"
    answer = _answer(
        index, "backend", f"{pool.name}/{name}", weight > 0, text if reason else None, pool_evidence_links(index, seat)
    )
    recent, earlier = results(seat.state)
    evidence = {
        "vip": "",
        "check": str(seat.check),
        "results": [result_view(index, one) for one in recent],
        "failures": [result_view(index, one) for one in earlier],
    }
    return {**answer, "evidence": [evidence]}


def _answer(index: Index, kind: str, name: str, ok: bool, text: str | None, chain: list[Link]) -> Explanation:
    if text is None:
        text = UNDECIDED.text if index.serves_http else OFF.text
    return {"object": name, "kind": kind, "ok": ok, "answer": text, "chain": chain}
