"""What may be asked of a node: its state, its plan, its reasons, its journal, its metrics; and ``confirm``.

Views are built in a worker thread (a snapshot is immutable), so that a picture of thousands of backends does not hold
up the event loop.
"""

from __future__ import annotations

import asyncio
from functools import partial

from aiohttp import HttpVersion11, web

from anycastlb.core.events import Event
from anycastlb.serving.api.handlers.events import asked, follow, place
from anycastlb.serving.api.http.answers import HEADERS, Document, parts_of, written
from anycastlb.serving.api.http.bodies import unconditional
from anycastlb.serving.api.http.context import answer, caller, context, shared
from anycastlb.serving.api.http.errors import ApiError
from anycastlb.serving.views.changes import plan_view
from anycastlb.serving.views.events import event_views
from anycastlb.serving.views.status import liveness, readiness
from anycastlb.serving.views.vips import View
from anycastlb.serving.views.why import explain, near


async def healthz(request: web.Request) -> web.Response:
    view = _liveness(request)
    return answer(view, 200 if view["alive"] else 503)


async def readyz(request: web.Request) -> web.Response:
    view, alive = readiness(context(request).snapshot()), _liveness(request)
    if not alive["alive"]:
        view["ready"] = False
        view["missing"].append(f"the reconciler gave no sign of life for {alive['silent_seconds']:.1f} s")
    return answer(view, 200 if view["ready"] else 503)


async def metrics(request: web.Request) -> web.Response:
    text, content_type = await context(request).scrape(request.headers.get("Accept", ""))
    body, coding = await context(request).answers.pack(request, text)
    response = written(body, 200, {"Vary": "Accept-Encoding", **HEADERS, **coding}, content_type)
    if request.version < HttpVersion11:
        response.force_close()  # its length is not known, and such a peer does not know chunks
    return response


async def status(request: web.Request) -> web.Response:
    at = context(request)
    snapshot, now = at.snapshot(), at.clock()

    def make() -> Document:
        return Document(*at.answers.texts.status(snapshot, now, at.source))

    return await at.answers.send(request, await at.answers.get("status", parts_of(snapshot), now, make))


async def plan(request: web.Request) -> web.Response:
    at = context(request)
    return await shared(request, partial(plan_view, at.snapshot(), at.clock()))


async def why(request: web.Request) -> web.Response:
    name, snapshot = request.match_info["object"], context(request).snapshot()
    view = await asyncio.to_thread(explain, snapshot, context(request).clock(), name)
    if view is not None:
        return answer(view)
    shown = name[:100]
    alike = await asyncio.to_thread(near, snapshot, shown)
    mend = f"did you mean {', '.join(alike)}?" if alike else "`anycastlb status` shows every name there is"
    raise ApiError(404, f"there is no {shown!r}", shown, "a VIP, SERVICE or SERVICE/BACKEND of the catalog", mend)


async def events(request: web.Request) -> web.StreamResponse:
    if asked(request):
        return await follow(request)
    after = place(request.query.get("after", "0"), "after")
    return answer(event_views(context(request).journal.records(), after))


async def confirm(request: web.Request) -> web.Response:
    unconditional(request)
    await request.read()  # the limit on its size holds only for a body that is read
    at = context(request)
    if not at.confirm():
        what, mend = "no catalog is held", "nothing is to be done: the catalog in force is the latest"
        raise ApiError(409, what, "/v1/confirm", "a held catalog", mend)
    who = caller(request).name
    at.journal.emit(Event("confirm", "catalog", "through the API", before="held", after="confirmed", by=who))
    return answer({"confirmed": True})


def _liveness(request: web.Request) -> View:
    at = context(request)
    return liveness(at.snapshot(), at.clock(), at.alive_at(), at.bound)
