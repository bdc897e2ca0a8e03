"""Parts of the picture by themselves: VIPs, verdicts, checks with their evidence, problems.

Handlers and their views; nothing is decided, and every reason is the one the decision gave.
"""

from __future__ import annotations

import asyncio
from functools import partial
from ipaddress import ip_address

from aiohttp import web

from anycastlb.core.model import ServiceVerdict, Snapshot
from anycastlb.serving.api.http.answers import Document, parts_of
from anycastlb.serving.api.http.context import answer, context, shared
from anycastlb.serving.api.http.errors import ApiError
from anycastlb.serving.views import evidence
from anycastlb.serving.views.cluster import node_view, nodes_view
from anycastlb.serving.views.format import reason_fields
from anycastlb.serving.views.http import pool_seats
from anycastlb.serving.views.index import Index
from anycastlb.serving.views.status import problem_view
from anycastlb.serving.views.vips import View, result_view, vip_view


async def vips(request: web.Request) -> web.Response:
    at = context(request)
    snapshot, now = at.snapshot(), at.clock()

    def make() -> Document:
        return Document(*at.answers.texts.vips(snapshot, now))

    return await at.answers.send(request, await at.answers.get("vips", parts_of(snapshot), now, make))


async def vip(request: web.Request) -> web.Response:
    at, name = context(request), request.match_info["vip"][:100]
    view = await asyncio.to_thread(_vip, at.snapshot(), at.clock(), name)
    if view is None:
        raise ApiError(404, f"there is no VIP {name!r}", name, "a VIP of the catalog", "GET /v1/vips shows every one")
    return answer(view)


def _vip(snapshot: Snapshot, now: float, name: str) -> View | None:
    try:
        wanted = ip_address(name.strip("[]"))
    except ValueError:
        return None
    index = Index(snapshot, now)
    return vip_view(index, wanted) if wanted in index.vips() else None


async def verdicts(request: web.Request) -> web.Response:
    at = context(request)
    return await shared(request, partial(_verdicts, at.snapshot(), at.clock()))


def _verdicts(snapshot: Snapshot, now: float) -> View:
    index = Index(snapshot, now)
    rows = [
        {
            "vip": str(verdict.vip),
            "open": verdict.open,
            **reason_fields(verdict.reason),
            "since_seconds": index.age(verdict.since),
            "services": [_service(service) for service in verdict.services],
        }
        for verdict in sorted(snapshot.decision.verdicts.values(), key=lambda v: (v.vip.version, int(v.vip)))
    ]
    return {"verdicts": rows}


def _service(verdict: ServiceVerdict) -> View:
    return {
        "service": verdict.service,
        "key": str(verdict.key),
        "open": verdict.open,
        "up": verdict.up,
        "total": verdict.total,
        "needed": verdict.needed,
        **reason_fields(verdict.reason),
    }


async def checks(request: web.Request) -> web.Response:
    at, wanted = context(request), request.query
    return await shared(
        request, partial(_checks, at.snapshot(), at.clock(), wanted.get("service"), wanted.get("backend"))
    )


def _checks(snapshot: Snapshot, now: float, service_name: str | None, backend_name: str | None) -> View:
    index, rows = Index(snapshot, now), []
    catalog = snapshot.inputs.catalog
    wanted = [one for one in (*catalog.services, *catalog.pools) if service_name in (None, "", one.name)]
    for service, at in [(one, at) for one in wanted for at in one.vips or (None,)]:
        for seat in pool_seats(index, service) if at is None else index.seats(service, at):
            if backend_name not in (None, "", seat.backend.name):
                continue
            last, earlier = evidence.results(seat.state)
            rows.append(
                {
                    "service": service.name,
                    "backend": seat.backend.name,
                    "vip": "" if at is None else str(at),
                    "check": str(seat.check),
                    "up": seat.state.up if seat.state else None,
                    "results": [result_view(index, result) for result in last],
                    "failures": [result_view(index, result) for result in earlier],
                }
            )
    return {"checks": rows}


async def problems(request: web.Request) -> web.Response:
    at = context(request)
    known = at.snapshot().inputs.catalog.problems
    return await shared(request, lambda: {"problems": [problem_view(problem) for problem in known]})


async def nodes(request: web.Request) -> web.Response:
    at = context(request)
    return await shared(request, partial(nodes_view, at.snapshot(), at.clock()))


async def node(request: web.Request) -> web.Response:
    name, at = request.match_info["node"], context(request)
    snapshot = at.snapshot()
    view = await asyncio.to_thread(node_view, snapshot, at.clock(), name)
    if view is None:
        known = ", ".join([snapshot.inputs.node, *snapshot.inputs.cluster.peers][:10])
        mend = "a node is known while its session lives, and ten minutes longer"
        raise ApiError(404, f"there is no node {name[:100]!r}", name[:100], f"one of {known}", mend)
    return answer(view)


async def stats(request: web.Request) -> web.Response:
    at = context(request)
    return await shared(request, partial(at.history.stats, at.clock()), at.history.samples)


async def history(request: web.Request) -> web.Response:
    at = context(request)
    name = request.query.get("service", "")
    if name and all(service.name != name for service in at.snapshot().inputs.catalog.services):
        shown = name[:100]
        raise ApiError(404, f"there is no service {shown!r}", "service", "a service of the catalog", "see /v1/status")
    return await shared(request, partial(at.history.series, at.clock(), name), at.history.samples)
