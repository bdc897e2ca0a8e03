"""The ``routes`` table: what ExaBGP announces, written and read through the bridge that ExaBGP runs.

The daemon listens on a unix socket and the bridge connects to it. What is wanted is always sent whole, and the
bridge's reports are whole too (``anycastlb.bridge.protocol``), so nothing is lost with a connection.

*Nothing is sent before the machine was looked at.* A fresh driver wants nothing (``None``, not "no routes"); the
bridge's first report says what is announced already, that becomes what is wanted, and it is sent only after a cycle
of the reconciler ended (``beat``) or changed it (``apply``). So a daemon that restarts adopts its routes.

*What is wanted is what was found and the changes that succeeded*, nothing else: a change that failed is taken back,
so that no route appears later which nobody wants any more. The reconciler, woken by ``on_change``, asks again.

*Silence withdraws.* This driver proves life to the bridge only in ``beat``, which the reconciler calls; a daemon that
hangs loses its routes after ``hold`` seconds. In the other direction, a bridge that is silent although its
connection lives is killed (ExaBGP starts another one at once); nobody could withdraw a route through it.

It decides nothing about routes but whether they may leave the node at all.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from anycastlb.adapters.system.unix_listener import UnixListener, is_bridge, peer
from anycastlb.bridge.protocol import MAX_LINE, Heartbeat, ProtocolError, Report, RouteSet, decode_report, encode, fault
from anycastlb.core.events import Event, Level
from anycastlb.core.model import Address, Change, Failure, Network, Reason, Route, Rows, Session, Speaker, Table

GRACE = 1.0
"""Seconds after ``hold`` by which the bridge has withdrawn the routes of a silent daemon."""
TIMEOUT = 1.5
"""Seconds the first look waits for the bridge, which tries to connect ten times a second."""
ANSWER = 2.5
"""Seconds the bridge has to carry out a set, and ``ANSWER_EACH`` for every change in it."""
ANSWER_EACH = 0.005
FIRST_WORD = 5.0
"""Seconds a new connection has for its first report."""
WATCH = 0.5
SILENT_WATCHES = 10
"""Looks ``WATCH`` seconds apart at a bridge that says nothing, after which it is dead to us. Looks are counted, not
seconds: after a freeze of the daemon itself every bridge would seem silent."""
UNREAD = 1 << 16
"""Bytes the bridge has not read, above which no more beats are queued for it."""


class BridgeConnection:
    """One connection of a bridge."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer, self.pid = reader, writer, 0
        self.report = Report()
        """The last one; not ``ready`` until the bridge knows what ExaBGP announces."""
        self._line = b""
        self.sent = 0
        """Serial of the last set sent here."""
        self.silent = 0
        """Looks since it last said something."""

    async def hear(self) -> bool:
        """Wait for a report; False at the end of the stream. Raises ``WireError``, ``ValueError``, ``OSError``."""
        line = await self.reader.readline()
        if line and line != self._line:
            self.report, self._line = decode_report(line), line
        self.silent = 0
        return bool(line)

    def send(self, message: RouteSet | Heartbeat) -> None:
        if not self.writer.is_closing():
            self.writer.write(encode(message))

    @property
    def clogged(self) -> bool:
        return self.writer.transport.get_write_buffer_size() > UNREAD


class BgpDriver:
    """``on_change`` is called whenever there is news the reconciler has not caused: it must only set a flag.

    ``group`` may connect besides the daemon's own user: the group ExaBGP runs with.
    """

    tables: tuple[Table, ...] = ("routes",)

    def __init__(
        self,
        socket_path: str,
        hold: float,
        vip_ranges: Sequence[Network],
        on_change: Callable[[], None] = lambda: None,
        emit: Callable[[Event], None] = lambda event: None,
        group: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path, self._hold, self._ranges, self._group = Path(socket_path), hold, vip_ranges, group
        self._on_change, self._emit, self._clock = on_change, emit, clock
        self._link: BridgeConnection | None = None
        self._report = Report()
        """The last ready one of any bridge."""
        self._wanted: dict[Address, Route] | None = None
        self._decided = False
        """Has a cycle ended since ``wanted`` was taken from a report?"""
        self._serial = 0
        self._away_since: float | None = clock()
        self._first_look: float | None = None
        self._refusals: dict[Address, str] = {}
        """Why changes since the last look failed; the bridge forgets them when they are taken back."""
        self._news = asyncio.Event()
        self._intruder = 0

    # ------------------------------------------------------------ for the reconciler

    async def observe(self) -> Mapping[Table, Rows]:
        """Routes ExaBGP has acknowledged; while no bridge is there, the last known ones, until they must be gone."""
        if self._first_look is None:
            self._first_look = self._clock()
            await self._until(lambda: self._wanted is not None, TIMEOUT)
        self._forget()
        self._refusals = {}
        return {"routes": dict(self._report.announced)}

    async def apply(self, changes: Sequence[Change]) -> Sequence[Failure]:
        """Send what is wanted now and wait until ExaBGP has acknowledged it."""
        if self._wanted is None:
            return [Failure(change, Reason("bridge_away", self._absence())) for change in changes]
        failures: list[Failure] = []
        accepted = []
        for change in changes:
            reason = fault(change.key, change.new, self._ranges) if change.new is not None else ""
            if reason:
                failures.append(Failure(change, Reason("inexpressible", reason, str(change.key))))
            else:
                accepted.append(change)
                _merge(self._wanted, change)
        self._send()
        serial = self._serial
        if self._link is not None:
            await self._until(lambda: self._covered(serial), ANSWER + ANSWER_EACH * len(accepted))
        objections = [(change, self._objection(change, serial)) for change in accepted]
        refused = [Failure(change, objection) for change, objection in objections if objection]
        self._refusals |= {failure.change.key: failure.reason.text for failure in failures + refused}
        if self._wanted is not None and _take_back(self._wanted, refused):
            self._send()
        return failures + refused

    def beat(self) -> None:
        """A cycle has ended and its routes are as they should be: prove life to the bridge."""
        if self._wanted is None or self._link is None:
            return
        if not self._decided or self._link.sent != self._serial:
            self._send()
        elif not self._link.clogged:
            self._link.send(Heartbeat(self._serial))

    def speaker(self) -> Speaker:
        report, link = self._report, self._link
        if link is not None and link.report.ready:
            return Speaker(True, report.version, report.sessions, {**report.rejected, **self._refusals})
        since = self._clock() if self._away_since is None else self._away_since
        sessions = tuple(replace(s, state="unknown", since=since, reason=self._absence()) for s in report.sessions)
        return Speaker(False, report.version, sessions, {**report.rejected, **self._refusals})

    # ------------------------------------------------------------ what is wanted

    def _send(self) -> None:
        """The whole set, under a new serial; without a bridge it is sent when one connects."""
        if self._wanted is None:
            return
        self._decided = True
        self._serial += 1
        if self._link is not None and not self._link.clogged:
            self._link.send(RouteSet(self._serial, self._hold, self._wanted))
            self._link.sent = self._serial

    def _covered(self, serial: int) -> bool:
        return self._link is not None and self._link.report.ready and self._link.report.serial >= serial

    def _objection(self, change: Change, serial: int) -> Reason | None:
        """Why the change is not in effect; None if it is."""
        if self._link is None:
            return Reason("bridge_away", self._absence())
        report, covered = self._link.report, self._covered(serial)
        if covered and report.announced.get(change.key) == change.new:
            return None
        if change.new is not None and change.key in report.rejected:
            return Reason("route_rejected", report.rejected[change.key], str(change.key))
        if covered:
            text = "ExaBGP's bridge has done what it was told, but the route is not so: look at the log of ExaBGP"
            return Reason("route_not_so", text, str(change.key))
        text = f"ExaBGP's bridge did not answer within {ANSWER:g} s: is ExaBGP frozen or overloaded? See its log"
        return Reason("bridge_silent", text, str(change.key))

    def _absence(self) -> str:
        if self._link is not None:
            return "ExaBGP's bridge is connected but ExaBGP does not answer it: look at the log of ExaBGP"
        return "ExaBGP's bridge is not connected: is exabgp running with exabgp/exabgp.conf?"

    def _forget(self) -> None:
        """Once the bridge has been away for so long that it must have withdrawn everything, nothing is known."""
        if self._away_since is not None and self._clock() - self._away_since > self._hold + GRACE:
            self._report = replace(self._report, announced={})
            self._wanted, self._decided = None, False

    async def _until(self, true: Callable[[], bool], seconds: float) -> None:
        """Until it is so or the time is over, whichever is first."""
        try:
            async with asyncio.timeout(seconds):
                while not true():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return

    # ------------------------------------------------------------ the socket

    async def run(self) -> None:
        """Serve the bridge for ever. Raises ``DriverError`` if the socket cannot be had."""
        listener = UnixListener(self._path, self._group)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watch())
                while True:
                    try:
                        connection, _ = await asyncio.get_running_loop().sock_accept(listener.socket)
                    except OSError as exc:
                        self._tell("error", f"cannot accept the bridge's connection, trying again: {exc}")
                        await asyncio.sleep(1)
                        continue
                    tasks.create_task(self._serve(connection))
        finally:
            listener.close()

    async def _serve(self, connection: socket.socket) -> None:
        """One connection. It is a bridge once it has said one valid thing."""
        connection.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=connection, limit=MAX_LINE)
        link = BridgeConnection(reader, writer)
        try:
            link.pid = peer(connection)
            async with asyncio.timeout(FIRST_WORD):
                heard = await link.hear()
            if heard and self._welcome(link):
                await self._listen(link)
        except (ProtocolError, ValueError) as exc:  # ValueError: a line without end
            self._tell("error", f"process {link.pid} is no bridge, or a broken one; connection dropped: {exc}")
        except OSError as exc:  # also a time-out
            self._tell("warning", f"the connection of process {link.pid} broke: {exc}")
        finally:
            writer.close()
            if self._link is link:
                self._lost(link)

    def _welcome(self, link: BridgeConnection) -> bool:
        """Make this the bridge's connection, unless another one lives."""
        if self._link is not None and self._link.silent * WATCH < 2:
            if self._intruder != link.pid:  # it comes back ten times a second
                self._intruder = link.pid
                reason = f"a second bridge (process {link.pid}) was refused: is ExaBGP running twice?"
                self._tell("error", f"{reason} The first one is process {self._link.pid}")
            return False
        self._link, self._intruder = link, 0
        if self._decided:
            self._send()
        return True

    async def _listen(self, link: BridgeConnection) -> None:
        self._heard(link)
        while await link.hear() and self._link is link:
            self._heard(link)

    def _heard(self, link: BridgeConnection) -> None:
        before, report = self._report, link.report
        if not report.ready:
            return
        if self._away_since is not None:
            self._forget()
            self._tell("info", f"the bridge in ExaBGP {report.version} is connected (process {link.pid})", "connected")
        news = self._away_since is not None or self._wanted is None
        self._away_since, self._report = None, report
        if self._wanted is None:
            self._wanted = dict(report.announced)
        news |= before.sessions != report.sessions
        news |= before.announced != report.announced and report.announced != self._wanted
        for session in report.sessions:
            self._told(session, {s.peer: s for s in before.sessions}.get(session.peer))
        self._news.set()
        if news:
            self._on_change()

    def _lost(self, link: BridgeConnection) -> None:
        self._link = None
        if link.report.ready:
            self._away_since = self._clock()
            self._tell("warning", "the bridge in ExaBGP is gone: ExaBGP starts it again if it lives itself", "gone")
        self._news.set()
        self._on_change()

    async def _watch(self) -> None:
        """Kill a bridge that is connected and silent; look again when its routes must be gone."""
        while True:
            await asyncio.sleep(WATCH)
            link = self._link
            if link is not None:
                link.silent += 1
                if link.silent >= SILENT_WATCHES:
                    self._link_dead(link)
            elif self._wanted is not None:
                self._forget()
                if self._wanted is None:
                    self._on_change()

    def _link_dead(self, link: BridgeConnection) -> None:
        self._tell("error", f"the bridge (process {link.pid}) says nothing although it is connected: killing it")
        if is_bridge(link.pid):
            try:
                os.kill(link.pid, signal.SIGKILL)
            except OSError as exc:
                self._tell("error", f"cannot kill the bridge (process {link.pid}), kill it yourself: {exc}")
        link.writer.transport.abort()

    def _told(self, session: Session, before: Session | None) -> None:
        was = before.state if before else ""
        if was != session.state:
            level: Level = "info" if session.state == "up" else "warning"
            self._emit(Event("bgp", session.peer, session.reason, before=was, after=session.state, level=level))

    def _tell(self, level: Level, reason: str, after: str = "") -> None:
        self._emit(Event("bgp", "bridge", reason, after=after, level=level))


def _merge(routes: dict[Address, Route], change: Change) -> None:
    if change.new is None:
        routes.pop(change.key, None)
    else:
        routes[change.key] = change.new


def _take_back(routes: dict[Address, Route], failures: Sequence[Failure]) -> bool:
    """Undo failed creates and updates; a failed delete stays wanted: the route has to leave. Was there any?"""
    undone = [failure.change for failure in failures if failure.change.new is not None]
    for change in undone:
        _merge(routes, replace(change, new=change.old))
    return bool(undone)
