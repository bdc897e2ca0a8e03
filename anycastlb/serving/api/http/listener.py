"""One listening socket of the API: it accepts connections and keeps their number bounded.

Where TLS is asked for, the handshake is made here, at a pace that leaves the node its time (``handshakes``). When there
are too many connections, the one that has been idle longest is closed. So idle connections, however many, keep nobody
out and cost the node no more than their bound. What goes over a connection is the business of ``connection``.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from anycastlb.adapters.system.unix_listener import UnixListener
from anycastlb.core.model import AnycastlbError, DriverError
from anycastlb.serving.api.http import local_users
from anycastlb.serving.api.http.connection import Connection, Kind
from anycastlb.serving.api.http.handshakes import Handshakes, pace
from anycastlb.serving.api.http.limits import Allowance, Load

HANDSHAKE_TIMEOUT = 10.0
"""Seconds for a TLS handshake."""
BACKLOG = 128
ACCEPT_RATE = 400.0
"""Connections accepted a second, and at once: a flood must leave the node time for its work."""
LOOK_INTERVAL = 5.0
"""Seconds between two looks for peers that read nothing."""
TlsContext = Callable[[], ssl.SSLContext]
"""The TLS context for a new connection."""


class Listener:
    """``run`` accepts until it is cancelled; then ``close``."""

    def __init__(
        self,
        kind: Kind,
        listener: socket.socket,
        limit: int,
        tls: TlsContext | None = None,
        remove: Callable[[], None] = lambda: None,
    ) -> None:
        self.kind = kind
        self.load = Load()
        self._listener, self._limit, self._tls, self._remove = listener, limit, tls, remove
        self._handshakes: tuple[ssl.SSLContext, Handshakes] | None = None
        """The queue for handshakes, and the certificate for whose cost it was made."""
        self._opening: dict[asyncio.Task[None], None] = {}
        self._idle: dict[Connection, None] = {}
        self._busy: dict[Connection, None] = {}

    @property
    def address(self) -> tuple[str, int]:
        """What a TCP listener listens on."""
        host, port = self._listener.getsockname()[:2]
        return str(host), int(port)

    @property
    def connections(self) -> int:
        return len(self._opening) + len(self._idle) + len(self._busy)

    async def run(self, server: web.Server) -> None:
        loop, pace = asyncio.get_running_loop(), Allowance(ACCEPT_RATE, ACCEPT_RATE)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._look())
            while True:
                await asyncio.sleep(pace.take("", loop.time()))  # lets others run in any case: accepting does not wait
                try:
                    accepted, _ = await loop.sock_accept(self._listener)
                except OSError:  # the peer has gone again, or we are out of descriptors until a connection closes
                    await asyncio.sleep(0.05)
                    continue
                if self.connections >= self._limit and not self._make_room():
                    accepted.close()
                    continue
                task = tasks.create_task(self._open(accepted, server))
                self._opening[task] = None
                task.add_done_callback(lambda done: self._opening.pop(done, None))

    def close(self) -> None:
        """Stop listening, and drop the connections that are left."""
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
            self._idle[connection] = None  # at the end: it has been idle for the shortest time

    def closed(self, connection: Connection) -> None:
        self._idle.pop(connection, None)
        self._busy.pop(connection, None)

    def _make_room(self) -> bool:
        """Close the connection that has been idle longest, else a handshake; False if all are busy."""
        if self._idle:
            connection = next(iter(self._idle))
            self.closed(connection)
            connection.drop()
            return True
        for task in self._opening:
            del self._opening[task]
            task.cancel()
            return True
        return False

    async def _open(self, accepted: socket.socket, server: web.Server) -> None:
        loop = asyncio.get_running_loop()
        context: ssl.SSLContext | None = None
        try:
            accepted.setblocking(False)
            user = local_users.of_unix(accepted) if self.kind == "unix" else None
            if self._tls is not None:
                context = self._tls()
                if not await self._queue(context).turn(accepted.getpeername()[0]):
                    accepted.close()
                    return
            await loop.connect_accepted_socket(
                lambda: Connection(server, self, user, loop),
                accepted,
                ssl=context,
                ssl_handshake_timeout=HANDSHAKE_TIMEOUT if context else None,
                ssl_shutdown_timeout=1.0 if context else None,
            )
        except asyncio.CancelledError:
            accepted.close()
            raise
        except (OSError, AnycastlbError):
            accepted.close()
        except Exception:  # no peer may stop the node
            accepted.close()
            logging.getLogger("anycastlb").exception("a connection to the API could not be taken")

    def _queue(self, context: ssl.SSLContext) -> Handshakes:
        if self._handshakes is None or self._handshakes[0] is not context:
            self._handshakes = context, Handshakes(pace(context))
        return self._handshakes[1]

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_INTERVAL)
            for connection in [*self._idle, *self._busy]:
                connection.look(loop.time())


def on_tcp(listen: tuple[str, int], limit: int, tls: TlsContext | None = None) -> Listener:
    """A listener at an address, of at most ``limit`` connections. Raises ``AnycastlbError`` if it cannot listen."""
    if tls is not None:
        tls()
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
        reason = getattr(exc, "strerror", None) or str(exc)
        raise AnycastlbError(
            f"the API cannot listen on {shown(listen)}: {reason}; "
            "stop what uses it (ss -ltnp) or set another [api] listen in node.toml"
        ) from exc
    return Listener("tls" if tls else "plain", listener, limit, tls)


def on_unix(path: Path, limit: int, group: str | None = None) -> Listener:
    """A listener at a path, for the daemon's user and the group. Raises ``AnycastlbError`` if it cannot listen."""
    try:
        listener = UnixListener(path, group, user="the commands", setting="[api] socket", backlog=BACKLOG)
    except DriverError as exc:
        raise AnycastlbError(str(exc)) from exc
    return Listener("unix", listener.socket, limit, remove=listener.close)


def shown(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
