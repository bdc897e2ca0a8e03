"""One connection to the API: what aiohttp reads and writes over it, and the time a peer may take for that.

A peer that sends no request, or does not read its answer, is dropped. The connection remembers who its peer is;
what that peer may do is the business of ``guard``.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import struct
import termios
from typing import Any, Literal, Protocol

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from anycastlb.serving.api.http.context import Caller, answer
from anycastlb.serving.api.http.errors import ApiError
from anycastlb.serving.api.http.limits import Load
from anycastlb.serving.api.http.local_users import User

Kind = Literal["unix", "plain", "tls"]
HEAD_TIMEOUT = 10.0
"""Seconds in which the head of a request must have come."""
READ_TIMEOUT = 60.0
"""Seconds in which a peer must have read something of what it asked for."""
KEEPALIVE = 75.0
"""Seconds that a connection may be idle."""
MAX_LINE, MAX_FIELD = 8190, 16380
"""Bytes of the request line, and of one header."""
MAX_FIELDS = 100
silent = logging.getLogger("anycastlb.http")
silent.setLevel(logging.CRITICAL)  # it would only log the garbage that peers send, with a traceback each


class Owner(Protocol):
    """The listener a connection came through, as far as a connection and its requests need it."""

    kind: Kind
    load: Load

    def opened(self, connection: Connection) -> None: ...

    def busy(self, connection: Connection) -> None: ...

    def idle(self, connection: Connection) -> None: ...

    def closed(self, connection: Connection) -> None: ...


class Connection(web.RequestHandler):
    """What aiohttp calls the protocol of a connection (``request.protocol``), and what we know about it besides."""

    def __init__(self, server: web.Server, listener: Owner, user: User | None, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # as aiohttp's own runner passes it
            logger=silent,
            keepalive_timeout=KEEPALIVE,
            lingering_time=1.0,
            auto_decompress=False,  # a small body could unpack into a very large one
            max_line_size=MAX_LINE,
            max_field_size=MAX_FIELD,
            max_headers=MAX_FIELDS,
        )
        self.listener = listener
        self.user = user
        """The user at the other end of a unix socket."""
        self.caller: Caller | None = None
        """Who sends requests without credentials over this connection, once that is known."""
        self.busy = False
        self.wire: asyncio.Transport | None = None
        """Kept when aiohttp has closed it: what is still in its buffer takes memory."""
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
        self._head_received()
        self.listener.closed(self)
        super().connection_lost(exc)

    def begin(self) -> None:
        """The head of a request has arrived."""
        self.busy = True
        self._head_received()
        self.listener.busy(self)

    def end(self) -> None:
        """The request is answered; the answer may still be on its way."""
        self.busy = False
        self.listener.idle(self)

    def drop(self) -> None:
        """Close at once, and discard what is still to be sent."""
        if self.wire is not None:
            self.wire.abort()

    def look(self, now: float) -> None:
        """Drop a peer that does not read what it asked for. ``now``: the event loop's time."""
        if self.wire is None or not _owed(self.wire):
            self._owing = None
        elif self._owing is None:
            self._owing = now
        elif now - self._owing >= READ_TIMEOUT:
            self.drop()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answer what is not a request (garbage, a head too large), and close the connection."""
        if request.writer.output_size > 0:
            raise ConnectionError("a part of the answer is sent already")
        response = answer((error := _unreadable(status, exc)).view(), error.status)
        response.force_close()
        return response

    def _expect_head(self) -> None:
        self._late = asyncio.get_running_loop().call_later(HEAD_TIMEOUT, self.drop)

    def _head_received(self) -> None:
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
        expected = f"a request line of at most {MAX_LINE} bytes and headers of at most {MAX_FIELD}"
        return ApiError(431, "the head of the request is too large", where, expected, "send less")
    if "Too many" in str(exc):
        return ApiError(431, "too many headers", where, f"at most {MAX_FIELDS} headers", "send fewer")
    return ApiError(400, "this is no HTTP request", where, "a request of HTTP/1.1 or HTTP/1.0", mend)


def _owed(wire: asyncio.Transport) -> bool:
    """Is there something that the peer's machine has not acknowledged?"""
    sock: Any = wire.get_extra_info("socket")
    if wire.get_write_buffer_size():  # then the kernel's queue is full as well
        return True
    try:
        return bool(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0])
    except (OSError, ValueError, AttributeError):  # closed meanwhile
        return False
