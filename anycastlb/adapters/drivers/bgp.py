"""The ``routes`` table: what ExaBGP announces, written and read through the bridge that ExaBGP runs.

The bridge connects to the daemon's socket (``bridge_server``). What is wanted is always sent whole, and the bridge's
reports are whole too (``anycastlb.bridge.protocol``), so nothing is lost with a connection.

*Nothing is sent before the machine was looked at.* A fresh driver does not know what is wanted (``wanted_routes``); the
bridge's first report says what is announced already, that becomes what is wanted, and it is sent only after a cycle
of the reconciler ended (``beat``) or changed it (``apply``). So a daemon that restarts adopts its routes.

*What is wanted is what the last look showed and the changes that the cycle asked for*, nothing else. A change that was
refused is taken back at once; one that is under way stays wanted, and is taken back when a cycle ends that did not ask
for it again. So no route appears later which nobody wants any more, and no work that is half done is undone.

*Progress counts, not deadlines.* A change is done when ExaBGP has acknowledged it, whatever else of the set is still
outstanding. ``apply`` waits a moment for a small set; what is not acknowledged by then is ``pending``, and
``on_change`` is called when it is done, so that a long set never keeps the reconciler from the next withdrawal. Only
a bridge that makes no progress at all for ``STALL`` seconds makes a change fail.

*Silence withdraws.* This driver proves life to the bridge only in ``beat``, which the reconciler calls; a daemon that
hangs loses its routes after ``hold`` seconds. When it comes back, nothing is sent before a whole cycle has ended.

It decides nothing about routes but whether they may leave the node at all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import replace

from anycastlb.adapters.drivers.bridge_server import BridgeConnection, BridgeServer
from anycastlb.adapters.drivers.under_way import STALL, UnderWay, has_drifted
from anycastlb.adapters.drivers.wanted_routes import WantedRoutes
from anycastlb.bridge.protocol import Heartbeat, Report, RouteSet, fault
from anycastlb.core.delta import shared
from anycastlb.core.events import Event, Level
from anycastlb.core.model import Address, Change, Failure, Network, Reason, Rows, Session, Speaker, Table

GRACE = 1.0
"""Seconds after ``hold`` by which the bridge has withdrawn the routes of a silent daemon."""
FIRST_LOOK = 1.5
"""Seconds the first look waits for the bridge, which tries to connect ten times a second."""
ACKNOWLEDGE_WAIT = 0.25
"""Seconds that ``apply`` waits for the acknowledgement of at most ``SMALL`` changes."""
SMALL = 100


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
        self._heard = self._report
        """The same as it came: its routes are no objects of the one before."""
        self._wanted = WantedRoutes()
        self._under_way = UnderWay()
        self._serial = self._sent = 0
        """Of the wanted set, and of the last one sent over the present connection."""
        self._vouched_at = clock()
        """When the reconciler last vouched for the wanted routes."""
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
            await self._until(lambda: self._wanted.known, FIRST_LOOK)
        self._forget()
        self._refusals, self._under_way.expected = {}, False
        self._wanted.begin_cycle(self._report.announced)
        return {"routes": self._report.announced}

    async def apply(self, changes: Sequence[Change]) -> Sequence[Failure]:
        """Send what is wanted now, and wait a moment until ExaBGP has acknowledged it."""
        new = [change for change in changes if not self._under_way.has(change)]
        faults = {change.key: reason for change in new if (reason := self._fault(change))}
        await self._give_way(new)
        if not self._wanted.known:
            absence = self._absence()
            return [Failure(change, absence) for change in changes]
        self._wanted.ask(change.key for change in changes if change.key not in faults)
        fresh = [change for change in new if change.key not in faults]
        if fresh:
            self._wanted.change(fresh)
            self._under_way.begin(fresh, self._clock())
            self._send()
            await self._give_way(fresh)
            if self._server.connection is not None and len(fresh) <= SMALL:
                await self._until(lambda: self._covered() or not self._under_way.has_any(fresh), ACKNOWLEDGE_WAIT)
        outcomes = [outcome for change in changes if (outcome := self._outcome(change, faults.get(change.key)))]
        refused = [outcome for outcome in outcomes if not outcome.pending]
        self._refusals |= {failure.change.key: failure.reason.text for failure in refused}
        self._under_way.expected |= len(refused) < len(outcomes)
        if not self._is_stalled():
            self._take_back([failure.change for failure in refused if failure.change.key not in faults])
        return outcomes

    def beat(self) -> None:
        """A cycle has ended and its routes are as they should be, or nothing has changed since: prove life."""
        now = self._clock()
        if not self._wanted.known:  # nothing is known to be announced that anybody could vouch for
            self._vouched_at = now
            return
        was_silent = now - self._vouched_at >= self._hold
        if self._wanted.in_cycle:
            changed = self._wanted.end_cycle()
            self._under_way.keep(self._wanted.asked)
            if changed:
                self._send()
        elif was_silent:
            self._on_change()  # the bridge has withdrawn everything: decide anew before anything is announced
            return
        self._vouched_at = now
        connection = self._server.connection
        if connection is None or not self._wanted.decided:
            return
        if self._sent != self._serial or was_silent:
            self._send()
        else:
            connection.send(Heartbeat(self._serial))

    def speaker(self) -> Speaker:
        report, connection = self._report, self._server.connection
        rejected = {**report.rejected, **self._refusals}
        if connection is not None and connection.report.ready:
            return Speaker(True, report.version, report.sessions, rejected)
        since = self._clock() if self._away_since is None else self._away_since
        sessions = tuple(replace(s, state="unknown", since=since, reason=self._absence().text) for s in report.sessions)
        return Speaker(False, report.version, sessions, rejected)

    def absence(self) -> Reason | None:
        """Why no route can be announced or changed now; None if it can. ``on_change`` is called when that is over."""
        return None if self._wanted.known and self._server.connection else self._absence()

    # ------------------------------------------------------------ what is wanted

    def _send(self) -> None:
        """Send the whole set under a new serial; without a bridge it is sent when one connects."""
        if self._wanted.routes is None:
            return
        self._wanted.decided = True
        self._serial += 1
        connection = self._server.connection
        if connection is not None and connection.send(RouteSet(self._serial, self._hold, self._wanted.routes)):
            self._sent = self._serial

    def _take_back(self, changes: Sequence[Change]) -> None:
        """Undo refused creates and updates; a refused delete stays wanted, because the route has to leave."""
        undone = [replace(change, new=change.old) for change in changes if change.new is not None]
        if not undone or not self._wanted.known:
            return
        self._wanted.change(undone)
        self._under_way.forget(change.key for change in undone)
        self._send()

    # ------------------------------------------------------------ what has become of a change

    def _fault(self, change: Change) -> Reason | None:
        text = fault(change.key, change.new, self._ranges) if change.new is not None else ""
        return Reason("inexpressible", text, str(change.key)) if text else None

    def _covered(self) -> bool:
        """Has the bridge dealt with the whole of the wanted set?"""
        connection = self._server.connection
        return connection is not None and connection.report.ready and connection.report.serial >= self._serial

    def _is_stalled(self) -> bool:
        """Is a bridge there that makes no progress?"""
        return self._server.connection is not None and self._under_way.stalled and not self._covered()

    def _outcome(self, change: Change, unfit: Reason | None) -> Failure | None:
        """Why the change is not in effect, or not yet; None if it is."""
        if unfit:
            return Failure(change, unfit)
        if (connection := self._server.connection) is None:
            return Failure(change, self._absence())
        report = connection.report
        if report.ready and report.announced.get(change.key) == change.new:
            return None
        covered, name = self._covered(), str(change.key)
        if not covered and not self._is_stalled():
            text = f"under way: ExaBGP has yet to acknowledge {len(self._under_way)} changes"
            return Failure(change, Reason("route_under_way", text, name), pending=True)
        if change.key in report.rejected and (change.new is not None or not covered):
            return Failure(change, Reason("route_rejected", report.rejected[change.key], name))
        if covered:
            text = "ExaBGP's bridge has done what it was told, but the route is not so: look at the log of ExaBGP"
            return Failure(change, Reason("route_not_so", text, name))
        text = f"ExaBGP's bridge made no progress for {STALL:g} s: is ExaBGP frozen or overloaded? See its log"
        return Failure(change, Reason("bridge_silent", text, name))

    def _absence(self) -> Reason:
        if self._server.connection is not None:
            text = "ExaBGP's bridge is connected but ExaBGP does not answer it: look at the log of ExaBGP"
        else:
            text = "ExaBGP's bridge is not connected: is exabgp running with exabgp/exabgp.conf?"
        return Reason("bridge_away", text)

    def _forget(self) -> None:
        """Once the bridge has been away for so long that it must have withdrawn everything, nothing is known."""
        if self._away_since is not None and self._clock() - self._away_since > self._hold + GRACE:
            self._report = replace(self._report, announced={})
            self._wanted.forget()
            self._under_way = UnderWay()

    @staticmethod
    async def _give_way(changes: Sized) -> None:
        """Let other tasks have their turn, if so many changes have taken some milliseconds."""
        if len(changes) > SMALL:
            await asyncio.sleep(0)

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
        if self._wanted.decided and self._clock() - self._vouched_at < self._hold:
            self._send()

    def bridge_reported(self, connection: BridgeConnection) -> None:
        before, heard = self._report, connection.report
        if not heard.ready:
            return
        report = before if heard is self._heard else replace(heard, announced=shared(before.announced, heard.announced))
        if self._away_since is not None:
            self._forget()
            what = f"the bridge in ExaBGP {report.version} is connected (process {connection.pid})"
            self._server.tell("info", what, "connected")
        news = self._away_since is not None or not self._wanted.known
        self._away_since, self._heard, self._report = None, heard, report
        self._wanted.adopt(report.announced)
        news |= before.sessions != report.sessions
        if before.announced is not report.announced:
            news |= has_drifted(before.announced, report.announced, self._wanted.routes or {})
        news |= self._under_way.advance(before, report, self._covered(), self._clock())
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
        """Have the machine looked at again when changes have stalled, or the routes of a lost bridge must be gone."""
        if self._under_way.stall(self._clock()):
            self._on_change()
        if self._server.connection is None and self._wanted.known:
            self._forget()
            if not self._wanted.known:
                self._on_change()

    def _tell_session(self, session: Session, before: Session | None) -> None:
        was = before.state if before else ""
        if was != session.state:
            level: Level = "info" if session.state == "up" else "warning"
            self._emit(Event("bgp", session.peer, session.reason, before=was, after=session.state, level=level))
