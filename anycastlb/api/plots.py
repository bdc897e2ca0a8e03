"""``GET /v1/stats`` and ``/v1/history``: the kernel's counters, rates and check results, from the ring of samples."""

from __future__ import annotations

from functools import partial

from aiohttp import web

from anycastlb.api.context import built, context
from anycastlb.api.errors import Fault


async def stats(request: web.Request) -> web.Response:
    at = context(request)
    return await built(partial(at.history.stats, at.clock()))


async def history(request: web.Request) -> web.Response:
    at = context(request)
    name = request.query.get("service", "")
    if name and all(service.name != name for service in at.snapshot().inputs.catalog.services):
        shown = name[:100]
        raise Fault(404, f"there is no service {shown!r}", "service", "a service of the catalog", "see /v1/status")
    return await built(partial(at.history.series, at.clock(), name))
