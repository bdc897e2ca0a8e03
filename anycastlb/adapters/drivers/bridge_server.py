"""The daemon's end of the unix socket that ExaBGP's bridge connects to: one bridge at a time, and a living one.

Reports are handed on as they come; what they mean is the business of ``bgp``. A bridge that is silent although its
connection lives, or that does not connect although it runs, is killed (ExaBGP starts another one at once), because
nobody could withdraw a route through it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from anycastlb.adapters.drivers.last_bridge import LastBridge
from anycastlb.adapters.system.unix_listener import UnixListener, is_bridge, peer
from anycastlb.bridge.protocol import MAX_LINE, Heartbeat, ProtocolError, Report, RouteSet, decode_report, encode
from anycastlb.core.events import Event, Level

FIRST_REPORT = 5.0
"""Seconds a new connection has for its first report."""
WATCH_PERIOD = 0.5
SILENT_LIMIT = 10
"""Looks, ``WATCH_PERIOD`` seconds apart, at a bridge that says nothing, after which it counts as hung. Looks are
counted, not seconds: after a freeze of the daemon itself every bridge would seem silent."""
UNREAD_LIMIT = 1 << 16
"""Bytes the bridge has not read, above which nothing more is queued for it."""


class BridgeConnection:
    """One connection of a bridge."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pid: int) -> None:
        self.reader, self.writer, self.pid = reader, writer, pid
        self.report = Report()
        """The last one; not ``ready`` until the bridge knows what ExaBGP announces."""
        self.silent = 0
        """Looks since it last said something."""
        self._line = b""

    async def receive(self) -> bool:
        """Wait for a report; False at the end of the stream. Raises ``ProtocolError``, ``ValueError``, ``OSError``."""
        line = await self.reader.readline()
        if line and line != self._line:
            self.report, self._line = decode_report(line), line
        self.silent = 0
        return bool(line)

    def send(self, message: RouteSet | Heartbeat) -> bool:
        """Queue a message; False if the bridge does not read what was queued before."""
        if self.writer.is_closing() or self.writer.transport.get_write_buffer_size() > UNREAD_LIMIT:
            return False
        self.writer.write(encode(message))
        return True


class BridgeUser(Protocol):
    """Who uses the bridge's connection. Each method is called from the server's own tasks and must not wait."""

    def bridge_connected(self, connection: BridgeConnection) -> None:
        """This is the bridge from now on; its first report has come."""

    def bridge_reported(self, connection: BridgeConnection) -> None:
        """A report has come, which may be the same as before."""

    def bridge_lost(self, connection: BridgeConnection) -> None:
        """It is the bridge no more."""

    def time_passed(self) -> None:
        """Another ``WATCH_PERIOD`` is over."""


class BridgeServer:
    """``path``: the socket; ``group`` may connect to it besides the daemon's own user: the group ExaBGP runs with."""

    def __init__(self, path: str, group: str | None = None, emit: Callable[[Event], None] = lambda event: None) -> None:
        self.connection: BridgeConnection | None = None
        self._path, self._group, self._emit = Path(path), group, emit
        self._refused_pid = 0
        self._last = LastBridge(self._path)

    async def run(self, user: BridgeUser) -> None:
        """Serve the bridge for ever. Raises ``DriverError`` if the socket cannot be had."""
        listener = UnixListener(self._path, self._group)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watch(user))
                while True:
                    try:
                        accepted, _ = await asyncio.get_running_loop().sock_accept(listener.socket)
                    except OSError as exc:
                        self.tell("error", f"cannot accept the bridge's connection, trying again: {exc}")
                        await asyncio.sleep(1)
                        continue
                    tasks.create_task(self._serve(accepted, user))
        finally:
            listener.close()

    def tell(self, level: Level, reason: str, after: str = "") -> None:
        """Emit an event about the bridge."""
        self._emit(Event("bgp", "bridge", reason, after=after, level=level))

    async def _serve(self, accepted: socket.socket, user: BridgeUser) -> None:
        """Serve one connection. It is a bridge once it has said one valid thing."""
        accepted.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=accepted, limit=MAX_LINE)
        pid = 0
        connection = None
        try:
            pid = peer(accepted)
            connection = BridgeConnection(reader, writer, pid)
            async with asyncio.timeout(FIRST_REPORT):
                spoke = await connection.receive()
            if spoke and self._admit(connection):
                user.bridge_connected(connection)
                await self._follow(connection, user)
        except (ProtocolError, ValueError) as exc:  # ValueError: a line without end
            self.tell("error", f"process {pid} is no bridge, or a broken one; connection dropped: {exc}")
        except OSError as exc:  # also a time-out
            self.tell("warning", f"the connection of process {pid} broke: {exc}")
        finally:
            writer.close()
            if connection is not None and self.connection is connection:
                self.connection = None
                user.bridge_lost(connection)

    def _admit(self, connection: BridgeConnection) -> bool:
        """Make this the bridge's connection, unless another one lives."""
        present = self.connection
        if present is not None and present.silent * WATCH_PERIOD < 2:
            if self._refused_pid != connection.pid:  # it comes back ten times a second
                self._refused_pid = connection.pid
                reason = f"a second bridge (process {connection.pid}) was refused: is ExaBGP running twice?"
                self.tell("error", f"{reason} The first one is process {present.pid}")
            return False
        self.connection, self._refused_pid = connection, 0
        self._last.keep(connection.pid)
        return True

    async def _follow(self, connection: BridgeConnection, user: BridgeUser) -> None:
        user.bridge_reported(connection)
        while await connection.receive() and self.connection is connection:
            user.bridge_reported(connection)

    async def _watch(self, user: BridgeUser) -> None:
        """Kill a bridge that is silent, connected or not."""
        alone = 0
        while True:
            await asyncio.sleep(WATCH_PERIOD)
            if (connection := self.connection) is not None:
                alone = 0
                connection.silent += 1
                if connection.silent >= SILENT_LIMIT:
                    self._kill(connection.pid, "says nothing although it is connected")
                    connection.writer.transport.abort()
            else:
                alone += 1
                if alone % SILENT_LIMIT == 0 and (pid := self._last.pid()):
                    self._kill(pid, "does not connect although it runs")
            user.time_passed()

    def _kill(self, pid: int, why: str) -> None:
        self.tell("error", f"the bridge (process {pid}) {why}: killing it")
        if is_bridge(pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError as exc:
                self.tell("error", f"cannot kill the bridge (process {pid}), kill it yourself: {exc}")
