"""The HTTP server of a node: reads the latest ``Snapshot``, and lets a held catalog through when asked to.

It never touches a driver and never decides. Views are built in a worker thread (a snapshot is immutable), so that a
picture of thousands of backends does not hold up the event loop. A listening address that is taken does not stop the
node: it is an event, and tried again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from aiohttp import web

from anycastlb.api import views, why
from anycastlb.api.errors import Fault
from anycastlb.events import Event, Journal
from anycastlb.model import AnycastlbError, Snapshot

Scrape = Callable[[str], Awaitable[tuple[bytes, str]]]
"""The value of an Accept header -> the metrics as text, and their content type."""
BODY_LIMIT = 64 * 1024
SAFE = frozenset({"GET", "HEAD"})
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_peers = logging.getLogger("anycastlb.http")
_peers.setLevel(logging.CRITICAL)  # what it would tell is only the garbage peers send, with a traceback each


class Api:
    """The application and its listening socket; ``run`` serves until it is cancelled.

    ``confirm`` lets a held catalog through and says whether there was one. ``alive_at`` tells when the reconciler
    last gave a sign of life (the end of its last cycle, unless given); ``bound`` is how many seconds later the node
    counts as stuck.
    """

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        journal: Journal,
        confirm: Callable[[], bool],
        listen: tuple[str, int],
        *,
        scrape: Scrape,
        source: str = "",
        alive_at: Callable[[], float] | None = None,
        bound: float = 30.0,
        retry: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._snapshot = snapshot
        self._journal = journal
        self._confirm = confirm
        self._listen = listen
        self._scrape = scrape
        self._source = source
        self._alive_at = alive_at or (lambda: snapshot().at)
        self._bound = bound
        self._retry = retry
        self._clock = clock
        self._started = clock()
        self.address: tuple[str, int] | None = None
        """What it really listens on; None while it does not."""

    async def run(self) -> None:
        """Serve for ever."""
        runner = web.AppRunner(
            self.application(),
            access_log=None,
            logger=_peers,
            keepalive_timeout=75.0,
            lingering_time=1.0,
            shutdown_timeout=1.0,
        )
        await runner.setup()
        try:
            await self._bind(runner)
            await asyncio.Event().wait()
        finally:
            self.address = None
            await runner.cleanup()

    async def _bind(self, runner: web.AppRunner) -> None:
        told = ""
        while True:
            try:
                self.address = await bind(runner, self._listen)
                self._journal.emit(Event("api", _shown(self.address), reason="listening", after="up"))
                return
            except AnycastlbError as exc:
                if str(exc) != told:  # once, not every few seconds
                    told = str(exc)
                    self._journal.emit(Event("api", _shown(self._listen), reason=told, after="down", level="error"))
            await asyncio.sleep(self._retry)

    def application(self) -> web.Application:
        """The routes and the error shape, without a socket."""
        app = web.Application(client_max_size=BODY_LIMIT, middlewares=[self._guard])
        app.add_routes(
            [
                web.get("/healthz", self.healthz),
                web.get("/readyz", self.readyz),
                web.get("/metrics", self.metrics),
                web.get("/v1/status", self.status),
                web.get("/v1/why/{object:.+}", self.why),
                web.get("/v1/plan", self.plan),
                web.get("/v1/events", self.events),
                web.post("/v1/confirm", self.confirm),
            ]
        )
        return app

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Every error in one shape; no unsafe request from a web page of another origin."""
        try:
            _refuse_foreign(request)
            return await handler(request)
        except Fault as fault:
            return _json(fault.view(), fault.status, fault.headers)
        except web.HTTPException as exc:
            return _json(_fault(request, exc).view(), exc.status, _allow(exc))
        except Exception as exc:  # a fault of ours must not take the node down
            reason = f"{type(exc).__name__}: {exc}"
            self._journal.emit(Event("api", request.path[:200], reason=reason, level="error"))
            logging.getLogger("anycastlb").exception("the API could not answer %s", request.path[:200])
            mend = "this is a fault of anycastlb; the log has the details"
            return _json(Fault(500, "internal error", request.path[:200], "an answer", mend).view(), 500)

    async def healthz(self, request: web.Request) -> web.Response:
        view = self._liveness()
        return _json(view, 200 if view["alive"] else 503)

    async def readyz(self, request: web.Request) -> web.Response:
        view, alive = views.readiness(self._snapshot()), self._liveness()
        if not alive["alive"]:
            view["ready"] = False
            view["missing"].append(f"the reconciler gave no sign of life for {alive['silent_seconds']:.1f} s")
        return _json(view, 200 if view["ready"] else 503)

    async def metrics(self, request: web.Request) -> web.Response:
        text, content_type = await self._scrape(request.headers.get("Accept", ""))
        return web.Response(body=text, headers={"Content-Type": content_type, **HEADERS})

    async def status(self, request: web.Request) -> web.Response:
        return await _built(partial(views.status, self._snapshot(), self._clock(), self._source))

    async def plan(self, request: web.Request) -> web.Response:
        return await _built(partial(views.plan, self._snapshot(), self._clock()))

    async def why(self, request: web.Request) -> web.Response:
        name, snapshot = request.match_info["object"], self._snapshot()
        view = await asyncio.to_thread(why.explain, snapshot, self._clock(), name)
        if view is not None:
            return _json(view)
        shown = name[:100]
        alike = await asyncio.to_thread(why.near, snapshot, shown)
        mend = f"did you mean {', '.join(alike)}?" if alike else "`anycastlb status` shows every name there is"
        raise Fault(404, f"there is no {shown!r}", shown, "a VIP, SERVICE or SERVICE/BACKEND of the catalog", mend)

    async def events(self, request: web.Request) -> web.Response:
        text = request.query.get("after", "0")
        if not (text.isascii() and text.isdigit() and len(text) <= 18):
            raise Fault(400, "after is not an event's id", "after", "a whole number", "take the `last` of an answer")
        return _json(views.events(self._journal.records(), int(text)))

    async def confirm(self, request: web.Request) -> web.Response:
        await request.read()  # the limit on its size holds only for a body that is read
        if not self._confirm():
            what, mend = "no catalog is held", "nothing is to be done: the catalog in force is the latest"
            raise Fault(409, what, "/v1/confirm", "a held catalog", mend)
        who = f"confirmed through the API from {request.remote}"
        self._journal.emit(Event("confirm", "catalog", reason=who, before="held", after="confirmed"))
        return _json({"confirmed": True})

    def _liveness(self) -> views.View:
        alive_at = max(self._alive_at(), self._started)
        return views.liveness(self._snapshot(), self._clock(), alive_at, self._bound)


async def bind(runner: web.AppRunner, listen: tuple[str, int]) -> tuple[str, int]:
    """Open the listening socket; the address it got. Raises ``AnycastlbError`` when that cannot be had."""
    host, port = listen
    try:
        await web.TCPSite(runner, host or None, port).start()
    except (OSError, OverflowError) as exc:
        told = getattr(exc, "strerror", None) or str(exc)
        raise AnycastlbError(
            f"the API cannot listen on {_shown(listen)}: {told}; "
            "stop what uses it (ss -ltnp) or set another [api] listen in node.toml"
        ) from exc
    found = runner.addresses[0]
    return str(found[0]), int(found[1])


def _shown(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _refuse_foreign(request: web.Request) -> None:
    """A browser that visits another site must not write here: such a request names that site as its origin."""
    origin = request.headers.get("Origin")
    if request.method in SAFE or origin is None or origin.partition("://")[2] == request.host:
        return
    mend = "use `anycastlb confirm`, or curl without an Origin header"
    raise Fault(403, "a page of another site asked for a change", "Origin", f"http://{request.host}", mend)


def _fault(request: web.Request, exc: web.HTTPException) -> Fault:
    """What aiohttp refuses, in our words."""
    where = f"{request.method} {request.path[:200]}"
    if isinstance(exc, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(exc.allowed_methods))
        return Fault(405, f"{request.method} is not possible here", where, allowed, "use one of those methods")
    if isinstance(exc, web.HTTPRequestEntityTooLarge):
        return Fault(413, "the body is too large", where, f"at most {BODY_LIMIT} bytes", "send less")
    if exc.status == 404:
        paths = "/healthz, /readyz, /metrics or /v1/{status,why/OBJECT,plan,events,confirm}"
        return Fault(404, "there is no such path", where, paths, "check the path")
    return Fault(exc.status, exc.reason, where)


def _allow(exc: web.HTTPException) -> Mapping[str, str]:
    return {"Allow": exc.headers["Allow"]} if "Allow" in exc.headers else {}


async def _built(view: Callable[[], views.View]) -> web.Response:
    text = await asyncio.to_thread(lambda: json.dumps(view()))
    return web.Response(text=text, content_type="application/json", headers=HEADERS)


def _json(view: Any, status: int = 200, headers: Mapping[str, str] = HEADERS) -> web.Response:
    return web.json_response(view, status=status, headers={**HEADERS, **headers})
