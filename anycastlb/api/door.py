"""One listening socket of the API, and the connections that came through it.

It accepts, greets with TLS where that is asked for, and keeps their number bounded: when there are too many, the one
that rested longest goes. So idle connections, however many, keep nobody out and cost the node no more than their
bound. What is said over a connection is not known here.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from aiohttp import web

from anycastlb.api import users
from anycastlb.api.connection import Connection
from anycastlb.api.limits import Allowance, Load
from anycastlb.drivers.bgp_socket import Listener
from anycastlb.model import AnycastlbError, DriverError

Kind = Literal["unix", "plain", "tls"]
GREET = 10.0
"""Seconds for a TLS handshake."""
BACKLOG = 128
PACE = 400.0
"""Connections accepted a second, as many at once: a flood must leave the node time for what it is there for."""
LOOK = 5.0
"""Seconds between two looks for peers that take nothing."""


class Door:
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
        self._resting: dict[Connection, None] = {}
        self._working: dict[Connection, None] = {}

    @property
    def address(self) -> tuple[str, int]:
        """What a TCP door listens on."""
        host, port = self._listener.getsockname()[:2]
        return str(host), int(port)

    @property
    def connections(self) -> int:
        return len(self._greeted) + len(self._resting) + len(self._working)

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
        for connection in [*self._resting, *self._working]:
            connection.drop()

    def came(self, connection: Connection) -> None:
        self._resting[connection] = None

    def works(self, connection: Connection) -> None:
        if connection in self._resting:  # not, when it has gone meanwhile: aiohttp still takes what was pipelined
            del self._resting[connection]
            self._working[connection] = None

    def rests(self, connection: Connection) -> None:
        if connection in self._working:
            del self._working[connection]
            self._resting[connection] = None  # to the end: it rests the shortest

    def went(self, connection: Connection) -> None:
        self._resting.pop(connection, None)
        self._working.pop(connection, None)

    def _make_room(self) -> bool:
        """Whoever waits longest without asking for anything goes; False: all are at work."""
        if self._resting:
            connection = next(iter(self._resting))
            self.went(connection)
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
            user = users.of_unix(accepted) if self.kind == "unix" else None
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
            await asyncio.sleep(LOOK)
            for connection in [*self._resting, *self._working]:
                connection.look(loop.time())


def on_tcp(listen: tuple[str, int], most: int, greeting: Callable[[], ssl.SSLContext] | None = None) -> Door:
    """A door at an address, with TLS if there is a ``greeting``. Raises ``AnycastlbError`` when it cannot be had."""
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
    return Door("tls" if greeting else "plain", listener, most, greeting)


def on_unix(path: Path, most: int, group: str | None = None) -> Door:
    """A door at a path, for the daemon's user and the group. Raises ``AnycastlbError`` when it cannot be had."""
    try:
        listener = Listener(path, group, user="the commands", setting="[api] socket", backlog=BACKLOG)
    except DriverError as exc:
        raise AnycastlbError(str(exc)) from exc
    return Door("unix", listener.socket, most, remove=listener.close)


def shown(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
