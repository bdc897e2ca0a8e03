"""One connection: who is at its other end, what it is doing, and the times it must keep.

A peer has ``HEAD`` seconds to send the head of a request once it began one (or connected), and must have taken an
answer within ``TAKE`` seconds. Whatever is no HTTP is answered in the one shape of errors, without a word in the log.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import struct
import termios
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from anycastlb.api.context import Caller, answer
from anycastlb.api.errors import Fault
from anycastlb.api.users import User

if TYPE_CHECKING:
    from anycastlb.api.door import Door

HEAD = 10.0
TAKE = 60.0
IDLE = 75.0
LINE, FIELD, FIELDS = 8190, 16380, 100
silent = logging.getLogger("anycastlb.http")
silent.setLevel(logging.CRITICAL)  # what it would tell is only the garbage peers send, with a traceback each


class Connection(web.RequestHandler):
    """What aiohttp knows as the protocol of a connection (``request.protocol``), and what we know beside it."""

    def __init__(self, server: web.Server, door: Door, user: User | None, loop: asyncio.AbstractEventLoop) -> None:
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
        self.door = door
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
        self.door.came(self)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        if not self.busy and self._late is None:
            self._expect_head()
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._head_came()
        self.door.went(self)
        super().connection_lost(exc)

    def begin(self) -> None:
        """A request has come whole but for its body."""
        self.busy = True
        self._head_came()
        self.door.works(self)

    def end(self) -> None:
        """It is answered; what was written is on its way."""
        self.busy = False
        self.door.rests(self)

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


def _unreadable(status: int, exc: BaseException | None) -> Fault:
    if status >= 500:
        return Fault(status, "internal error", "", "an answer", "this is a fault of anycastlb; the log has the details")
    where, mend = "the head of the request", "send HTTP/1.1"
    if isinstance(exc, LineTooLong):
        expected = f"a request line of at most {LINE} bytes and headers of at most {FIELD}"
        return Fault(431, "the head of the request is too large", where, expected, "send less")
    if "Too many" in str(exc):
        return Fault(431, "too many headers", where, f"at most {FIELDS} headers", "send fewer")
    return Fault(400, "this is no HTTP request", where, "a request of HTTP/1.1 or HTTP/1.0", mend)


def _owed(wire: asyncio.Transport) -> bool:
    """Is there something the peer's machine has not taken? While we buffer, the kernel's queue is full as well."""
    sock: Any = wire.get_extra_info("socket")
    if wire.get_write_buffer_size():
        return True
    try:
        return bool(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0])
    except (OSError, ValueError, AttributeError):  # closed meanwhile
        return False
