"""The HTTP server of a node: its listeners, its routes, and the one shape of what goes wrong.

The server never touches a driver and never decides. A listener that cannot be opened does not stop the node: it is an
event, and tried again, while the others serve.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

from anycastlb.core.events import Event
from anycastlb.core.model import AnycastlbError
from anycastlb.serving.api import operations
from anycastlb.serving.api.handlers import erulb, gorb, page
from anycastlb.serving.api.handlers.events import STREAMS, Streams
from anycastlb.serving.api.http.connection import silent
from anycastlb.serving.api.http.context import CONTEXT, Context, answer
from anycastlb.serving.api.http.errors import ApiError
from anycastlb.serving.api.http.guard import Guard
from anycastlb.serving.api.http.identity import Identity
from anycastlb.serving.api.http.limits import BULK, ORDINARY
from anycastlb.serving.api.http.listener import Listener, on_tcp, on_unix, shown
from anycastlb.serving.api.http.local_users import address
from anycastlb.serving.api.http.tls import Tls

BODY_LIMIT = ORDINARY.size


class Api:
    """The application and its listeners; ``run`` serves until it is cancelled.

    ``listen``: addresses of the loopback speak plain HTTP, all others TLS. ``socket``: the unix socket, or None. Who
    may do what, and how much, is in the context's settings. ``secure``: TLS on the loopback as well. ``outer``:
    middlewares that see every request first, and its answer last.
    """

    def __init__(
        self,
        context: Context,
        listen: Sequence[tuple[str, int]],
        *,
        socket: Path | None = None,
        secure: bool = False,
        retry: float = 5.0,
        outer: Sequence[Any] = (),
    ) -> None:
        self._context, self._journal, self._retry = context, context.journal, retry
        self._listen, self._socket, self._secure = listen, socket, secure
        self._identity = Identity(context.settings.api, context.journal)
        self._tls = Tls(context.settings.api, context.journal)
        self._guard = Guard(context.settings, context.journal, self._identity)
        self._outer = tuple(outer)
        self.address: tuple[str, int] | None = None
        """The address and port of the first TCP listener; None while there is none."""
        self.listeners: list[Listener] = []
        """Those that are open."""

    def reread(self) -> None:
        """Read tokens and certificates again, though their files may look the same."""
        self._identity.reread()
        self._tls.reread()

    async def run(self) -> None:
        """Serve for ever."""
        runner = web.AppRunner(self.application(), access_log=None, logger=silent, shutdown_timeout=1.0)
        await runner.setup()
        assert runner.server is not None
        try:
            async with asyncio.TaskGroup() as tasks:
                for place, open_listener in self._places():
                    tasks.create_task(self._serve(runner.server, place, open_listener))
                await asyncio.Event().wait()
        finally:
            self.address = None
            await runner.cleanup()

    def _places(self) -> Iterator[tuple[str, Callable[[], Listener]]]:
        """Each place to listen at, in words, and the function that opens its listener."""
        limit = self._context.settings.api.max_connections
        for listen in self._listen:
            plain = address(listen[0]).is_loopback and not self._secure
            tls = None if plain else self._tls.context
            yield shown(listen), partial(on_tcp, listen, limit, tls)
        if (path := self._socket) is not None:
            yield str(path), partial(on_unix, path, limit, self._context.settings.api.group)

    async def _serve(self, server: web.Server, place: str, opened: Callable[[], Listener]) -> None:
        listener = await self._opened(place, opened)
        self.listeners.append(listener)
        if listener.kind != "unix":
            self.address = self.address or listener.address
            place = shown(listener.address)
        self._journal.emit(Event("api", place, reason="listening", after="up"))
        try:
            await listener.run(server)
        finally:
            listener.close()
            self.listeners.remove(listener)

    async def _opened(self, place: str, opened: Callable[[], Listener]) -> Listener:
        reported = ""
        while True:
            try:
                return opened()
            except AnycastlbError as exc:
                if str(exc) != reported:  # once, not every few seconds
                    reported = str(exc)
                    self._journal.emit(Event("api", place, reason=reported, after="down", level="error"))
            await asyncio.sleep(self._retry)

    def application(self) -> web.Application:
        """The routes and the error shape, without a listener."""
        middlewares = [*self._outer, self._shape, self._guard.check]
        app = web.Application(client_max_size=BULK.size, middlewares=middlewares)
        app[CONTEXT] = self._context
        app[STREAMS] = streams = Streams(self._context)
        self._journal.observers.append(streams.stir)
        app.on_shutdown.append(streams.close)
        app.add_routes([*operations.routes(), *gorb.routes(), *erulb.routes(), *page.routes()])
        return app

    @web.middleware
    async def _shape(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Every error in one shape."""
        try:
            return await handler(request)
        except ApiError as error:
            return answer(error.view(), error.status, error.headers)
        except web.HTTPException as exc:
            return answer(_refused_by_aiohttp(request, exc).view(), exc.status, _allow(exc))
        except ConnectionError:
            raise  # the peer has gone in the middle of an answer
        except Exception as exc:  # a fault of ours must not take the node down
            reason = f"{type(exc).__name__}: {exc}"
            self._journal.emit(Event("api", request.path[:200], reason=reason, level="error"))
            logging.getLogger("anycastlb").exception("the API could not answer %s", request.path[:200])
            mend = "this is a fault of anycastlb; the log has the details"
            return answer(ApiError(500, "internal error", request.path[:200], "an answer", mend).view(), 500)


def _refused_by_aiohttp(request: web.Request, exc: web.HTTPException) -> ApiError:
    """The error for a request that aiohttp refuses."""
    where = f"{request.method} {request.path[:200]}"
    if isinstance(exc, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(exc.allowed_methods))
        return ApiError(405, f"{request.method} is not possible here", where, allowed, "use one of those methods")
    if isinstance(exc, web.HTTPRequestEntityTooLarge):
        return ApiError(413, "the body is too large", where, f"at most {BODY_LIMIT} bytes", "send less")
    if exc.status == 404:
        paths = "/healthz, /readyz, /metrics, or a path of /v1/openapi.json"
        return ApiError(404, "there is no such path", where, paths, "check the path")
    return ApiError(exc.status, exc.reason, where)


def _allow(exc: web.HTTPException) -> Mapping[str, str]:
    return {"Allow": exc.headers["Allow"]} if "Allow" in exc.headers else {}
