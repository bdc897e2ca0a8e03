"""The ``routes`` table: what ExaBGP announces, written and read through the bridge that ExaBGP runs.

The bridge connects to the daemon's socket (``bridge_server``). What is wanted is always sent whole, and the bridge's
reports are whole too (``anycastlb.bridge.protocol``), so nothing is lost with a connection.

*Nothing is sent before the machine was looked at.* A fresh driver wants nothing (``None``, not "no routes"); the
bridge's first report says what is announced already, that becomes what is wanted, and it is sent only after a cycle
of the reconciler ended (``beat``) or changed it (``apply``). So a daemon that restarts adopts its routes.

*What is wanted is what was observed and the changes that succeeded*, nothing else: a change that failed is taken
back, so that no route appears later which nobody wants any more. The reconciler, woken by ``on_change``, asks again.

*Silence withdraws.* This driver proves life to the bridge only in ``beat``, which the reconciler calls; a daemon that
hangs loses its routes after ``hold`` seconds.

It decides nothing about routes but whether they may leave the node at all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from anycastlb.adapters.drivers.bridge_server import BridgeConnection, BridgeServer
from anycastlb.bridge.protocol import Heartbeat, Report, RouteSet, fault
from anycastlb.core.events import Event, Level
from anycastlb.core.model import Address, Change, Failure, Network, Route, Rows, Session, Speaker, Table

GRACE = 1.0
"""Seconds after ``hold`` by which the bridge has withdrawn the routes of a silent daemon."""
FIRST_LOOK = 1.5
"""Seconds the first look waits for the bridge, which tries to connect ten times a second."""
ANSWER = 2.5
"""Seconds the bridge has to carry out a set, and ``ANSWER_EACH`` for every change in it."""
ANSWER_EACH = 0.005


class BgpDriver:
    """``on_change`` is called whenever there is news the reconciler has not caused: it must only set a flag."""

    tables: tuple[Table, ...] = ("routes",)

    def __init__(
        self,
        server: BridgeServer,
        hold: float,
        vip_ranges: Sequence[Network],
        on_change: Callable[[], None] = lambda: None,
        emit: Callable[[Event], None] = lambda event: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._server, self._hold, self._ranges = server, hold, vip_ranges
        self._on_change, self._emit, self._clock = on_change, emit, clock
        self._report = Report()
        """The last ready one of any bridge."""
        self._wanted: dict[Address, Route] | None = None
        self._decided = False
        """Has a cycle ended since ``wanted`` was taken from a report?"""
        self._serial = self._sent = 0
        """Of the wanted set, and of the last one sent over the present connection."""
        self._away_since: float | None = clock()
        self._first_look: float | None = None
        self._refusals: dict[Address, str] = {}
        """Why changes since the last look failed; the bridge forgets them when they are taken back."""
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Serve the bridge for ever. Raises ``DriverError`` if its socket cannot be had."""
        await self._server.run(self)

    # ------------------------------------------------------------ for the reconciler

    async def observe(self) -> Mapping[Table, Rows]:
        """Routes ExaBGP has acknowledged; without a bridge, the last known ones, until they must be gone."""
        if self._first_look is None:
            self._first_look = self._clock()
            await self._until(lambda: self._wanted is not None, FIRST_LOOK)
        self._forget()
        self._refusals = {}
        return {"routes": dict(self._report.announced)}

    async def apply(self, changes: Sequence[Change]) -> Sequence[Failure]:
        """Send what is wanted now and wait until ExaBGP has acknowledged it."""
        if self._wanted is None:
            return [Failure(change, self._absence()) for change in changes]
        failures: list[Failure] = []
        accepted = []
        for change in changes:
            reason = fault(change.key, change.new, self._ranges) if change.new is not None else ""
            if reason:
                failures.append(Failure(change, reason))
            else:
                accepted.append(change)
                _merge(self._wanted, change)
        self._send()
        serial = self._serial
        if self._server.connection is not None:
            await self._until(lambda: self._covered(serial), ANSWER + ANSWER_EACH * len(accepted))
        refused = [Failure(change, reason) for change in accepted if (reason := self._objection(change, serial))]
        self._refusals |= {failure.change.key: failure.reason for failure in failures + refused}
        if self._wanted is not None and _take_back(self._wanted, refused):
            self._send()
        return failures + refused

    def beat(self) -> None:
        """A cycle has ended and its routes are as they should be: prove life to the bridge."""
        connection = self._server.connection
        if self._wanted is None or connection is None:
            return
        if not self._decided or self._sent != self._serial:
            self._send()
        else:
            connection.send(Heartbeat(self._serial))

    def speaker(self) -> Speaker:
        report, connection = self._report, self._server.connection
        rejected = {**report.rejected, **self._refusals}
        if connection is not None and connection.report.ready:
            return Speaker(True, report.version, report.sessions, rejected)
        since = self._clock() if self._away_since is None else self._away_since
        sessions = tuple(replace(s, state="unknown", since=since, reason=self._absence()) for s in report.sessions)
        return Speaker(False, report.version, sessions, rejected)

    # ------------------------------------------------------------ what is wanted

    def _send(self) -> None:
        """Send the whole set under a new serial; without a bridge it is sent when one connects."""
        if self._wanted is None:
            return
        self._decided = True
        self._serial += 1
        connection = self._server.connection
        if connection is not None and connection.send(RouteSet(self._serial, self._hold, self._wanted)):
            self._sent = self._serial

    def _covered(self, serial: int) -> bool:
        connection = self._server.connection
        return connection is not None and connection.report.ready and connection.report.serial >= serial

    def _objection(self, change: Change, serial: int) -> str:
        """Why the change is not in effect; "" if it is."""
        if (connection := self._server.connection) is None:
            return self._absence()
        report, covered = connection.report, self._covered(serial)
        if covered and report.announced.get(change.key) == change.new:
            return ""
        if change.new is not None and change.key in report.rejected:
            return report.rejected[change.key]
        if covered:
            return "ExaBGP's bridge has done what it was told, but the route is not so: look at the log of ExaBGP"
        return f"ExaBGP's bridge did not answer within {ANSWER:g} s: is ExaBGP frozen or overloaded? See its log"

    def _absence(self) -> str:
        if self._server.connection is not None:
            return "ExaBGP's bridge is connected but ExaBGP does not answer it: look at the log of ExaBGP"
        return "ExaBGP's bridge is not connected: is exabgp running with exabgp/exabgp.conf?"

    def _forget(self) -> None:
        """Once the bridge has been away for so long that it must have withdrawn everything, nothing is known."""
        if self._away_since is not None and self._clock() - self._away_since > self._hold + GRACE:
            self._report = replace(self._report, announced={})
            self._wanted, self._decided = None, False

    async def _until(self, true: Callable[[], bool], seconds: float) -> None:
        """Wait until it is so or the time is over, whichever is first."""
        try:
            async with asyncio.timeout(seconds):
                while not true():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return

    # ------------------------------------------------------------ for the server

    def bridge_connected(self, connection: BridgeConnection) -> None:
        self._sent = 0
        if self._decided:
            self._send()

    def bridge_reported(self, connection: BridgeConnection) -> None:
        before, report = self._report, connection.report
        if not report.ready:
            return
        if self._away_since is not None:
            self._forget()
            what = f"the bridge in ExaBGP {report.version} is connected (process {connection.pid})"
            self._server.tell("info", what, "connected")
        news = self._away_since is not None or self._wanted is None
        self._away_since, self._report = None, report
        if self._wanted is None:
            self._wanted = dict(report.announced)
        news |= before.sessions != report.sessions
        news |= before.announced != report.announced and report.announced != self._wanted
        for session in report.sessions:
            self._tell_session(session, {s.peer: s for s in before.sessions}.get(session.peer))
        self._news.set()
        if news:
            self._on_change()

    def bridge_lost(self, connection: BridgeConnection) -> None:
        if connection.report.ready:
            self._away_since = self._clock()
            what = "the bridge in ExaBGP is gone: ExaBGP starts it again if it lives itself"
            self._server.tell("warning", what, "gone")
        self._news.set()
        self._on_change()

    def time_passed(self) -> None:
        """Have the machine looked at again when the routes of a lost bridge must be gone."""
        if self._server.connection is None and self._wanted is not None:
            self._forget()
            if self._wanted is None:
                self._on_change()

    def _tell_session(self, session: Session, before: Session | None) -> None:
        was = before.state if before else ""
        if was != session.state:
            level: Level = "info" if session.state == "up" else "warning"
            self._emit(Event("bgp", session.peer, session.reason, before=was, after=session.state, level=level))


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
