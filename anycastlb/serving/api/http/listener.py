"""One listening socket of the API, and the connections that came through it.

It accepts, greets with TLS where that is asked for, and keeps their number bounded: when there are too many, the one
that rested longest goes. So idle connections, however many, keep nobody out and cost the node no more than their
bound. What is said over a connection is not known here.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import socket
import ssl
import struct
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from anycastlb.adapters.system.unix_listener import UnixListener
from anycastlb.core.model import AnycastlbError, DriverError
from anycastlb.serving.api.http import local_users
from anycastlb.serving.api.http.context import Caller, answer
from anycastlb.serving.api.http.errors import ApiError
from anycastlb.serving.api.http.limits import Allowance, Load
from anycastlb.serving.api.http.local_users import User

Kind = Literal["unix", "plain", "tls"]
GREET = 10.0
"""Seconds for a TLS handshake."""
BACKLOG = 128
PACE = 400.0
"""Connections accepted a second, as many at once: a flood must leave the node time for what it is there for."""
LOOK_INTERVAL = 5.0
"""Seconds between two looks for peers that take nothing."""


class Listener:
    """``run`` accepts until it is cancelled; then ``close``."""

    def __init__(
        self,
        kind: Kind,
        listener: socket.socket,
        most: int,
        greeting: Callable[[], ssl.SSLContext] | None = None,
        remove: Callable[[], None] = lambda: None,
    ) -> None:
        self.kind = kind
        self.load = Load()
        self._listener, self._most, self._greeting, self._remove = listener, most, greeting, remove
        self._greeted: dict[asyncio.Task[None], None] = {}
        self._idle: dict[Connection, None] = {}
        self._busy: dict[Connection, None] = {}

    @property
    def address(self) -> tuple[str, int]:
        """What a TCP listener listens on."""
        host, port = self._listener.getsockname()[:2]
        return str(host), int(port)

    @property
    def connections(self) -> int:
        return len(self._greeted) + len(self._idle) + len(self._busy)

    async def run(self, server: web.Server) -> None:
        loop, pace = asyncio.get_running_loop(), Allowance(PACE, PACE)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._look())
            while True:
                await asyncio.sleep(pace.take("", loop.time()))  # at least lets others run: accepting does not wait
                try:
                    accepted, _ = await loop.sock_accept(self._listener)
                except OSError:  # the peer has gone again; or out of descriptors, and others may return some
                    await asyncio.sleep(0.05)
                    continue
                if self.connections >= self._most and not self._make_room():
                    accepted.close()
                    continue
                task = tasks.create_task(self._greet(accepted, server))
                self._greeted[task] = None
                task.add_done_callback(lambda done: self._greeted.pop(done, None))

    def close(self) -> None:
        """Stop listening, and drop who is still there."""
        self._remove()
        self._listener.close()
        for connection in [*self._idle, *self._busy]:
            connection.drop()

    def opened(self, connection: Connection) -> None:
        self._idle[connection] = None

    def busy(self, connection: Connection) -> None:
        if connection in self._idle:  # not, when it has gone meanwhile: aiohttp still takes what was pipelined
            del self._idle[connection]
            self._busy[connection] = None

    def idle(self, connection: Connection) -> None:
        if connection in self._busy:
            del self._busy[connection]
            self._idle[connection] = None  # to the end: it rests the shortest

    def closed(self, connection: Connection) -> None:
        self._idle.pop(connection, None)
        self._busy.pop(connection, None)

    def _make_room(self) -> bool:
        """Whoever waits longest without asking for anything goes; False: all are at work."""
        if self._idle:
            connection = next(iter(self._idle))
            self.closed(connection)
            connection.drop()
            return True
        for task in self._greeted:
            del self._greeted[task]
            task.cancel()
            return True
        return False

    async def _greet(self, accepted: socket.socket, server: web.Server) -> None:
        loop = asyncio.get_running_loop()
        context: ssl.SSLContext | None = None
        try:
            accepted.setblocking(False)
            user = local_users.of_unix(accepted) if self.kind == "unix" else None
            if self._greeting is not None:
                context = self._greeting()
            await loop.connect_accepted_socket(
                lambda: Connection(server, self, user, loop),
                accepted,
                ssl=context,
                ssl_handshake_timeout=GREET if context else None,
                ssl_shutdown_timeout=1.0 if context else None,
            )
        except asyncio.CancelledError:
            accepted.close()
            raise
        except (OSError, AnycastlbError):
            accepted.close()
        except Exception:  # no peer may end the node
            accepted.close()
            logging.getLogger("anycastlb").exception("a connection to the API could not be taken")

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_INTERVAL)
            for connection in [*self._idle, *self._busy]:
                connection.look(loop.time())


def on_tcp(listen: tuple[str, int], most: int, greeting: Callable[[], ssl.SSLContext] | None = None) -> Listener:
    """A listener at an address, with TLS if there is a ``greeting``. Raises ``AnycastlbError`` if it cannot listen."""
    if greeting is not None:
        greeting()
    host, port = listen
    try:
        family, kind, _, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST | socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(place)
            listener.listen(BACKLOG)
            listener.setblocking(False)
        except BaseException:
            listener.close()
            raise
    except (OSError, OverflowError) as exc:
        told = getattr(exc, "strerror", None) or str(exc)
        raise AnycastlbError(
            f"the API cannot listen on {shown(listen)}: {told}; "
            "stop what uses it (ss -ltnp) or set another [api] listen in node.toml"
        ) from exc
    return Listener("tls" if greeting else "plain", listener, most, greeting)


def on_unix(path: Path, most: int, group: str | None = None) -> Listener:
    """A listener at a path, for the daemon's user and the group. Raises ``AnycastlbError`` when it cannot be had."""
    try:
        listener = UnixListener(path, group, user="the commands", setting="[api] socket", backlog=BACKLOG)
    except DriverError as exc:
        raise AnycastlbError(str(exc)) from exc
    return Listener("unix", listener.socket, most, remove=listener.close)


def shown(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


HEAD = 10.0
TAKE = 60.0
IDLE = 75.0
LINE, FIELD, FIELDS = 8190, 16380, 100
silent = logging.getLogger("anycastlb.http")
silent.setLevel(logging.CRITICAL)  # what it would tell is only the garbage peers send, with a traceback each


class Connection(web.RequestHandler):
    """What aiohttp knows as the protocol of a connection (``request.protocol``), and what we know beside it."""

    def __init__(
        self, server: web.Server, listener: Listener, user: User | None, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(
            server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # as aiohttp's own runner passes it
            logger=silent,
            keepalive_timeout=IDLE,
            lingering_time=1.0,
            auto_decompress=False,  # a small body could unpack into a very large one
            max_line_size=LINE,
            max_field_size=FIELD,
            max_headers=FIELDS,
        )
        self.listener = listener
        self.user = user
        """Who is at the other end of a unix socket."""
        self.caller: Caller | None = None
        """Who that is without credentials in the request, once it was found out."""
        self.busy = False
        self.wire: asyncio.Transport | None = None
        """Stays when aiohttp has closed it: what is still in its buffer holds memory."""
        self._late: asyncio.TimerHandle | None = None
        self._owing: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.wire = transport
        super().connection_made(transport)
        self.listener.opened(self)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        if not self.busy and self._late is None:
            self._expect_head()
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._head_came()
        self.listener.closed(self)
        super().connection_lost(exc)

    def begin(self) -> None:
        """A request has come whole but for its body."""
        self.busy = True
        self._head_came()
        self.listener.busy(self)

    def end(self) -> None:
        """It is answered; what was written is on its way."""
        self.busy = False
        self.listener.idle(self)

    def drop(self) -> None:
        """At once, with what is still to be sent."""
        if self.wire is not None:
            self.wire.abort()

    def look(self, now: float) -> None:
        """Drop a peer that does not take what it asked for. ``now``: the event loop's time."""
        if self.wire is None or not _owed(self.wire):
            self._owing = None
        elif self._owing is None:
            self._owing = now
        elif now - self._owing >= TAKE:
            self.drop()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """What is no request: garbage, a head too large. Always closes the connection."""
        if request.writer.output_size > 0:
            raise ConnectionError("a part of the answer is sent already")
        response = answer((fault := _unreadable(status, exc)).view(), fault.status)
        response.force_close()
        return response

    def _expect_head(self) -> None:
        self._late = asyncio.get_running_loop().call_later(HEAD, self.drop)

    def _head_came(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def _unreadable(status: int, exc: BaseException | None) -> ApiError:
    if status >= 500:
        return ApiError(
            status, "internal error", "", "an answer", "this is a fault of anycastlb; the log has the details"
        )
    where, mend = "the head of the request", "send HTTP/1.1"
    if isinstance(exc, LineTooLong):
        expected = f"a request line of at most {LINE} bytes and headers of at most {FIELD}"
        return ApiError(431, "the head of the request is too large", where, expected, "send less")
    if "Too many" in str(exc):
        return ApiError(431, "too many headers", where, f"at most {FIELDS} headers", "send fewer")
    return ApiError(400, "this is no HTTP request", where, "a request of HTTP/1.1 or HTTP/1.0", mend)


def _owed(wire: asyncio.Transport) -> bool:
    """Is there something the peer's machine has not taken? While we buffer, the kernel's queue is full as well."""
    sock: Any = wire.get_extra_info("socket")
    if wire.get_write_buffer_size():
        return True
    try:
        return bool(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0])
    except (OSError, ValueError, AttributeError):  # closed meanwhile
        return False
