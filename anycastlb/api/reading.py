"""What may be asked of a node: its state, its plan, its reasons, its journal, its metrics; and ``confirm``.

Views are built in a worker thread (a snapshot is immutable), so that a picture of thousands of backends does not hold
up the event loop.
"""

from __future__ import annotations

import asyncio
from functools import partial

from aiohttp import web

from anycastlb.api import stream, views
from anycastlb.api import why as reasons
from anycastlb.api.context import HEADERS, answer, built, caller, context
from anycastlb.api.errors import Fault
from anycastlb.events import Event


async def healthz(request: web.Request) -> web.Response:
    view = _liveness(request)
    return answer(view, 200 if view["alive"] else 503)


async def readyz(request: web.Request) -> web.Response:
    view, alive = views.readiness(context(request).snapshot()), _liveness(request)
    if not alive["alive"]:
        view["ready"] = False
        view["missing"].append(f"the reconciler gave no sign of life for {alive['silent_seconds']:.1f} s")
    return answer(view, 200 if view["ready"] else 503)


async def metrics(request: web.Request) -> web.Response:
    text, content_type = await context(request).scrape(request.headers.get("Accept", ""))
    return web.Response(body=text, headers={"Content-Type": content_type, **HEADERS})


async def status(request: web.Request) -> web.Response:
    at = context(request)
    return await built(partial(views.status, at.snapshot(), at.clock(), at.source))


async def plan(request: web.Request) -> web.Response:
    at = context(request)
    return await built(partial(views.plan, at.snapshot(), at.clock()))


async def why(request: web.Request) -> web.Response:
    name, snapshot = request.match_info["object"], context(request).snapshot()
    view = await asyncio.to_thread(reasons.explain, snapshot, context(request).clock(), name)
    if view is not None:
        return answer(view)
    shown = name[:100]
    alike = await asyncio.to_thread(reasons.near, snapshot, shown)
    mend = f"did you mean {', '.join(alike)}?" if alike else "`anycastlb status` shows every name there is"
    raise Fault(404, f"there is no {shown!r}", shown, "a VIP, SERVICE or SERVICE/BACKEND of the catalog", mend)


async def events(request: web.Request) -> web.StreamResponse:
    if stream.asked(request):
        return await stream.follow(request)
    after = stream.place(request.query.get("after", "0"), "after")
    return answer(views.events(context(request).journal.records(), after))


async def confirm(request: web.Request) -> web.Response:
    await request.read()  # the limit on its size holds only for a body that is read
    at = context(request)
    if not at.confirm():
        what, mend = "no catalog is held", "nothing is to be done: the catalog in force is the latest"
        raise Fault(409, what, "/v1/confirm", "a held catalog", mend)
    who = caller(request).name
    at.journal.emit(Event("confirm", "catalog", "through the API", before="held", after="confirmed", by=who))
    return answer({"confirmed": True})


def _liveness(request: web.Request) -> views.View:
    at = context(request)
    return views.liveness(at.snapshot(), at.clock(), at.alive_at(), at.bound)
