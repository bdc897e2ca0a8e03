"""The HTTP server of a node: its socket, its routes, and what every request passes on the way to its handler.

It never touches a driver and never decides. A listening address that is taken does not stop the node: it is an event,
and tried again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from anycastlb.api import page, plots, reading, stream
from anycastlb.api.context import CALLER, CONTEXT, Caller, Context, answer
from anycastlb.api.errors import Fault
from anycastlb.events import Event
from anycastlb.model import AnycastlbError

BODY_LIMIT = 64 * 1024
SAFE = frozenset({"GET", "HEAD"})
_peers = logging.getLogger("anycastlb.http")
_peers.setLevel(logging.CRITICAL)  # what it would tell is only the garbage peers send, with a traceback each


class Api:
    """The application and its listening socket; ``run`` serves until it is cancelled."""

    def __init__(self, context: Context, listen: tuple[str, int], *, retry: float = 5.0) -> None:
        self._context = context
        self._journal = context.journal
        self._listen = listen
        self._retry = retry
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
        app[CONTEXT] = self._context
        app[stream.STREAMS] = streams = stream.Streams()
        app.on_shutdown.append(streams.close)
        app.add_routes([*page.routes(), *plots.routes(), *reading.routes()])
        return app

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Every error in one shape; no unsafe request from a web page of another origin."""
        try:
            _refuse_foreign(request)
            request[CALLER] = Caller(request.remote or "somebody", "write")
            return await handler(request)
        except Fault as fault:
            return answer(fault.view(), fault.status, fault.headers)
        except web.HTTPException as exc:
            return answer(_fault(request, exc).view(), exc.status, _allow(exc))
        except Exception as exc:  # a fault of ours must not take the node down
            reason = f"{type(exc).__name__}: {exc}"
            self._journal.emit(Event("api", request.path[:200], reason=reason, level="error"))
            logging.getLogger("anycastlb").exception("the API could not answer %s", request.path[:200])
            mend = "this is a fault of anycastlb; the log has the details"
            return answer(Fault(500, "internal error", request.path[:200], "an answer", mend).view(), 500)


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
