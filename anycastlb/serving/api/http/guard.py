"""What every request passes before its handler: limits, the caller, the caller's rights, and the origin.

The guard refuses with an ``ApiError``; it decides nothing else and never interprets a body. A refused write is an
event, and so is a wrong token; a flood of them is a few events and a number.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address, ip_network
from math import ceil

from aiohttp import ClientError, web
from aiohttp.http_exceptions import HttpProcessingError

from anycastlb.adapters.system.journal import Journal
from anycastlb.core.events import Event
from anycastlb.serving.api.http import limits, local_users
from anycastlb.serving.api.http.connection import Connection, Owner
from anycastlb.serving.api.http.context import CALLER, Caller, answer, caller
from anycastlb.serving.api.http.errors import ApiError
from anycastlb.serving.api.http.identity import Identity
from anycastlb.settings import Settings

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
SAFE = frozenset({"GET", "HEAD"})
READS = frozenset({("POST", "/v1/plan")})
"""Requests that send a document and need only the right to read."""
ALWAYS = frozenset({"/healthz", "/readyz"})
"""Paths that are answered to everybody, under any load."""
PAGES = ("/web/",)
"""The web page and its parts: they hold no data, and need no rights."""
FOREIGN = frozenset({"cross-site", "same-site"})
NOBODY = Caller("somebody", "none")


async def whoami(request: web.Request) -> web.Response:
    return answer({"name": caller(request).name, "rights": caller(request).rights})


class Guard:
    """``check`` is the middleware. ``identity`` finds the caller of a request."""

    def __init__(
        self, settings: Settings, journal: Journal, identity: Identity, clock: Callable[[], float] = time.monotonic
    ) -> None:
        api = settings.api
        self._api, self._journal, self._identity, self._clock = api, journal, identity, clock
        self._names = {name.lower().rstrip(".") for name in ("localhost", settings.node.name, *api.names)}
        self._allowance = limits.Allowance(api.rate, 2 * api.rate)
        self._reports = limits.Allowance(0.2, 10)
        self._unreported = 0

    @web.middleware
    async def check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        connection = request.protocol if isinstance(request.protocol, Connection) else None
        if connection is None:
            return await self._admit(request, handler, None)
        connection.begin()
        try:
            return await self._admit(request, handler, connection.listener)
        finally:
            connection.end()

    async def _admit(self, request: web.Request, handler: Handler, listener: Owner | None) -> web.StreamResponse:
        request[CALLER] = NOBODY
        if _path(request) in ALWAYS and request.method in SAFE:
            return await handler(request)
        with self._at_work(request, listener):
            self._named(request, listener)
            if not _open(request):
                request[CALLER] = await self._known(request)
            else:
                self._spare(source(request))
            refuse_foreign(request)
            return await handler(await received(request))

    @contextmanager
    def _at_work(self, request: web.Request, listener: Owner | None) -> Iterator[None]:
        """Count the request while it is answered. Raises ``ApiError`` 429 when there are too many."""
        load = listener.load if listener is not None else limits.Load()
        bulk = limits.body(request.method, _path(request)).bulk
        stream = limits.follows(request.method, _path(request), request.headers.get("Accept", ""))
        if stream:
            if load.streams >= self._api.max_streams:
                raise _busy(f"{load.streams} readers follow events", "[api] max_streams", 10)
        elif load.requests >= self._api.max_requests:
            raise _busy(f"{load.requests} requests are at work", "[api] max_requests")
        if bulk and load.bulk >= limits.BULK_AT_ONCE:
            raise _busy(f"{load.bulk} bulk requests are at work", "one after the other")
        load.streams += stream
        load.requests += not stream
        load.bulk += bulk
        try:
            yield
        finally:
            load.streams -= stream
            load.requests -= not stream
            load.bulk -= bulk

    def _named(self, request: web.Request, listener: Owner | None) -> None:
        """Refuse foreign host names: after DNS rebinding, a browser sends the attacker's name as Host."""
        if listener is not None and listener.kind != "plain":
            return
        host = request.headers.get("Host", "")
        name = _hostname(host)
        if not host or name in self._names or _literal(name):
            return
        expected = f"an address, or one of {', '.join(sorted(self._names))}"
        mend = "ask by address, or add the name to [api] names in node.toml"
        raise ApiError(403, f"this node does not go by the name {host[:100]!r}", "Host", expected, mend)

    async def _known(self, request: web.Request) -> Caller:
        """The caller, who has the rights for this request and asks not too often. Raises ``ApiError`` 401, 403, 429."""
        try:
            who = await self._identity.caller(request)
        except ApiError as error:
            self._spare(source(request))
            if request.method not in SAFE or "Authorization" in request.headers:
                self._denied(request, source(request), str(error))
            raise
        self._spare(who.name)
        if who.rights != "write" and not _reads(request):
            what = f"{who.name} may read, not write"
            self._denied(request, who.name, "may read, not write")
            expected = "rights to write: root or the daemon's user on the node, or a token or certificate with them"
            mend = "use sudo on the node, or a token of its [api] write_token_file"
            raise ApiError(403, what, f"{request.method} {request.path[:200]}", expected, mend)
        return who

    def _spare(self, name: str) -> None:
        wait = self._allowance.take(name, self._clock())
        if wait:
            raise _busy(f"more than {self._api.rate} requests a second from {name}", "[api] rate", ceil(wait))

    def _denied(self, request: web.Request, who: str, why: str) -> None:
        if self._reports.take("", self._clock()):
            self._unreported += 1
            return
        more = f" (and {self._unreported} more before)" if self._unreported else ""
        self._unreported = 0
        subject = f"{request.method[:20]} {request.path[:200]}"
        self._journal.emit(Event("denied", subject, reason=f"{why}{more}", after="refused", level="warning", by=who))


async def received(request: web.Request) -> web.Request:
    """The request with its whole body, read here so that handlers need not wait. Raises ``ApiError`` (400 to 415)."""
    if not request.body_exists:
        return request
    body, where = limits.body(request.method, _path(request)), f"{request.method} {request.path[:200]}"
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise ApiError(
            415, "the body is packed", "Content-Encoding", "a body as it is", "send it without Content-Encoding"
        )
    if (request.content_length or 0) > body.size:
        raise _large(where, body.size)
    whole = request.clone(client_max_size=body.size)
    try:
        async with asyncio.timeout(body.seconds):
            await whole.read()
    except web.HTTPRequestEntityTooLarge:
        raise _large(where, body.size) from None
    except TimeoutError:
        expected = f"the whole body within {body.seconds:.0f} s"
        raise ApiError(408, "the body did not come", where, expected, "send it again") from None
    except (OSError, web.RequestPayloadError, ClientError, HttpProcessingError):
        raise ApiError(400, "the body broke off", where, "a whole body as its head promised", "send it again") from None
    return whole


def refuse_foreign(request: web.Request) -> None:
    """Refuse writes that a page of another site makes a browser send: they name that site."""
    if request.method in SAFE:
        return
    origin = request.headers.get("Origin")
    if origin is not None and origin.partition("://")[2] != request.host:
        where, expected = "Origin", f"{request.scheme}://{request.host}"
    elif request.headers.get("Sec-Fetch-Site", "none").lower() in FOREIGN:
        where, expected = "Sec-Fetch-Site", "same-origin or none"
    else:
        return
    mend = "use the page of this node or `anycastlb`, or curl without that header"
    raise ApiError(403, "a page of another site asked for a change", where, expected, mend)


def source(request: web.Request) -> str:
    """Where an unknown caller comes from: the address, or for IPv6 its /64, all of which one host may use."""
    try:
        address = local_users.address(request.remote or "")
    except ValueError:
        return "somebody"
    if isinstance(address, IPv6Address) and not address.is_loopback:
        return str(ip_network((address, 64), strict=False))
    return str(address)


def _open(request: web.Request) -> bool:
    return request.method in SAFE and (_path(request) == "/" or _path(request).startswith(PAGES))


def _reads(request: web.Request) -> bool:
    return request.method in SAFE or (request.method, _path(request)) in READS


def _path(request: web.Request) -> str:
    """The path as routing reads it: decoded, but for ``%2F``, which cannot reach another handler."""
    return request.rel_url.path_safe


def _hostname(host: str) -> str:
    """The name in a Host header, without its port, in lower case."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower().rstrip(".")


def _literal(name: str) -> bool:
    try:
        local_users.address(name)
    except ValueError:
        return False
    return True


def _busy(what: str, expected: str, after: int = 1) -> ApiError:
    headers = {"Retry-After": str(after)}
    return ApiError(429, "too many requests: " + what, "", expected, f"try again in {after} s", headers)


def _large(where: str, size: int) -> ApiError:
    return ApiError(413, "the body is too large", where, f"at most {size} bytes", "send less")
