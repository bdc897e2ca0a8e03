"""The conversation with ExaBGP: which line is said next, and what an answer means.

Theory of operation
===================

The relay stands between two parties that may each die, hang or restart at any time. The daemon says which set of
routes it wants (``RouteSet``), and again and again that it still lives (``Heartbeat``). ExaBGP obeys commands and keeps
the routes, whatever happens to the process that asked for them. The relay makes ExaBGP's routes equal to the wanted
ones, and takes care that no route outlives the proof that the daemon still wants it.

It does no I/O and has no clock. The loop around it carries lines in and out, tells it the time and obeys ``stuck``.

**One command at a time** (``exchange``). The relay sends one command, waits for its answer, and only then chooses the
next one.

**Phases.** A relay begins in ``version`` and moves on by answers alone::

      version ──> acks ──> neighbors ──> routes ──> ready
         │                     ^                      │ a session changed its state; ExaBGP refused a command;
         v                     └──────────────────────┘ a refusal has grown old
       unfit

``version`` asks which ExaBGP this is; anything but 5 is ``unfit``, and nothing is announced through it. ``acks`` makes
sure that every command is answered. ``neighbors`` and ``routes`` ask what ExaBGP has: a bridge that was started again
hears nothing of it unasked, and a neighbor that was added by a reload has no routes.

**Ready** is level-triggered. Compare what ExaBGP has acknowledged with what is wanted, send the most urgent command
(withdrawals come before announcements), and look again after its answer. An acknowledged command changes the
relay's picture of ExaBGP, and nothing else does. A batch that is refused is sent again one route at a time, so that a
bad route keeps no good one back; a route that is refused by itself is left alone for ``RETRY`` seconds.

**Why no route outlives its proof.** There are three chains from a proof to a route, and each of them fails closed:

* *The daemon wants it.* Every valid message of the daemon renews a lease of ``hold`` seconds (``lease``). A connection
  is no proof, a message that cannot be read is no proof, and a heartbeat counts only for the last set of its own
  connection. When the lease has run out, the set of wanted routes is empty, and ``ready`` withdraws everything.
* *ExaBGP obeys.* A withdrawal that is not answered within ``ACK_TIMEOUT``, or is refused ``REFUSALS`` times, makes
  ``stuck`` say that ExaBGP must be killed: its sessions end, and its routes with them. An announcement that is not
  answered is only reported, until a route has to leave.
* *The bridge itself lives.* If it dies, ExaBGP starts another one at once, whose lease begins at its start. If it
  hangs, the daemon kills it, because no report comes any more.

The daemon learns all of this from ``report``, which is always complete: a lost report costs a moment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from anycastlb.bridge import grammar
from anycastlb.bridge.exchange import ACK_TIMEOUT, Answer, Command, Exchange, Kind
from anycastlb.bridge.grammar import Neighbor
from anycastlb.bridge.lease import Lease
from anycastlb.bridge.protocol import Heartbeat, ProtocolError, Report, RouteSet
from anycastlb.bridge.routes import RouteTable
from anycastlb.core.model import Address, Network, Session

RETRY = 30.0
"""Seconds until a refused announcement is tried again unasked."""
RESYNC_PAUSE = 1.0
"""Seconds between two questions because of refused announcements, at least."""
REFUSALS = 3
"""Refused withdrawals in a row after which ExaBGP is given up."""

Phase = Literal["version", "acks", "neighbors", "routes", "ready", "unfit"]
HANDSHAKE: Mapping[str, tuple[Kind, str]] = {
    "version": ("version", grammar.VERSION),
    "acks": ("acks", grammar.ENABLE_ACK),
    "neighbors": ("neighbors", grammar.SHOW_NEIGHBORS),
    "routes": ("routes", grammar.SHOW_ROUTES),
}


class Relay:
    """The state of the whole bridge. ``hold``: seconds of the lease until the daemon says how long it is."""

    def __init__(self, ranges: Sequence[Network], hold: float, now: float) -> None:
        self.notes: list[str] = []
        """What an operator should read; the loop prints and clears it."""
        self.revision = 0
        """Grows whenever ``report`` may have changed."""
        self._lease = Lease(hold, now)
        self._routes = RouteTable(ranges)
        self._phase: Phase = "version"
        self._again = False
        """Ask for the neighbors once more when the present questions are answered."""
        self._version = ""
        self._sessions: dict[Address, Session] = {}
        self._serial = self._done_serial = 0
        """The last set of this connection, and the last one that was dealt with entirely."""
        self._exchange = Exchange()
        self._known = False
        """Has ExaBGP ever told what it announces?"""
        self._synced_at = now
        self._withdrawals_refused = 0

    # ------------------------------------------------------------ the daemon

    def set_ranges(self, ranges: Sequence[Network]) -> None:
        """Replace the networks whose host routes may leave the node."""
        self._routes.ranges = ranges

    def connected(self) -> None:
        """A connection to the daemon was made, which is no proof of life yet."""
        self._lease.connected()
        self._serial = self._done_serial = 0
        self.revision += 1

    def disconnected(self, now: float) -> None:
        """The connection to the daemon has ended."""
        self._lease.disconnected(now)
        self._serial = self._done_serial = 0

    def obey(self, message: RouteSet | Heartbeat, now: float) -> None:
        """The daemon has said this. Raises ``ProtocolError`` for a heartbeat of no set of this connection."""
        if isinstance(message, Heartbeat):
            if message.serial != self._serial:  # which is 0 before the first set of a connection
                raise ProtocolError(
                    f"beat {message.serial}: expected one of set {self._serial}, the last of this connection"
                )
        else:
            self._take(message)
        if self._lease.renew(now):
            self._routes.suspend(False)
            self.notes.append("the daemon speaks again: its routes are announced again")
            self.revision += 1

    def _take(self, message: RouteSet) -> None:
        self._lease.hold, self._serial = message.hold, message.serial
        self.notes += [f"refused: {reason}" for reason in self._routes.want(message.routes)]
        self.revision += 1

    # ------------------------------------------------------------ ExaBGP

    def hear(self, line: str, now: float) -> None:
        """ExaBGP has said this line: an event, or a piece of the answer to the outstanding command."""
        if line.startswith(("{ ", '{"')):
            self._happened(line, now)
        elif self._exchange.command is None:
            if line:
                self.notes.append(f"ExaBGP said {line[:80]!r}, which answers nothing; ignored")
        elif answer := self._exchange.hear(line, now):
            self._answered(answer, now)

    def _answered(self, answer: Answer, now: float) -> None:
        self.revision += 1
        match answer.command.kind:
            case "version":
                self._greeted(answer.lines[-1])
            case "acks":
                self._phase = "neighbors"
            case "neighbors":
                self._met(answer.lines[-1], now)
            case "routes":
                self._listed(answer, now)
            case "announce":
                self._announced(answer, now)
            case "withdraw":
                self._withdrawn(answer)

    def _greeted(self, line: str) -> None:
        words = line.split()
        self._version = "".join(char for char in words[-1] if char.isprintable())[:40]
        self._phase = "acks"
        if not re.fullmatch(r"exabgp 5\.\d+\.\S+", line.lower()):
            self._phase, self._known = "unfit", True
            self.notes.append(f"this is ExaBGP {self._version}: nothing is announced; install exabgp >=5.0.13,<6")

    def _met(self, line: str, now: float) -> None:
        try:
            self._routes.neighbors = {neighbor.peer: neighbor for neighbor in grammar.neighbors(line)}
        except ValueError as exc:
            self.notes.append(str(exc))
        neighbors = self._routes.neighbors
        self._sessions = {peer: self._session(neighbor, now) for peer, neighbor in neighbors.items()}
        self._phase = "routes"

    def _session(self, neighbor: Neighbor, now: float) -> Session:
        """The listing can be older than the event that led to it, so it counts for new neighbors only."""
        state: Literal["up", "down"] = "up" if neighbor.up else "down"
        return self._sessions.get(neighbor.peer) or Session(str(neighbor.peer), state, now - neighbor.up_for)

    def _listed(self, answer: Answer, now: float) -> None:
        if not answer.ok:
            self.notes.append(f"ExaBGP refused {grammar.SHOW_ROUTES!r}; asked again")
            self._phase = "neighbors"
            return
        listed, senseless = grammar.routes(answer.lines)
        self.notes += [f"ExaBGP listed a route that makes no sense: {line[:200]!r}" for line in senseless[:3]]
        self._routes.load(listed)
        self._routes.retry()
        self._known = True
        self._synced_at = now
        self._phase = "neighbors" if self._again else "ready"
        self._again = False

    def _announced(self, answer: Answer, now: float) -> None:
        if answer.ok:
            self._routes.done(answer.command)
            return
        if self._routes.failed(answer.command):
            self.notes.append(f"ExaBGP answered error to: {answer.command.line[:300]}")
        if now - self._synced_at > RESYNC_PAUSE:  # is the neighbor still configured?
            self._phase = "neighbors"

    def _withdrawn(self, answer: Answer) -> None:
        if answer.ok:
            self._withdrawals_refused = 0
            self._routes.done(answer.command)
            return
        self._withdrawals_refused += 1
        self.notes.append(f"ExaBGP answered error to: {answer.command.line[:300]}")
        self._phase = "neighbors"

    def _happened(self, line: str, now: float) -> None:
        event = grammar.event(line)
        if event is None or event.state == "connected":  # a refusing peer connects once a second: no news
            return
        known = self._sessions.get(event.peer)
        if known is None or known.state != event.state or (event.reason and not known.reason):  # listed is not heard
            self._sessions[event.peer] = Session(str(event.peer), event.state, now, event.reason)
            self.revision += 1
            self._resync()
        elif event.state == "up":
            self._resync()

    def _resync(self) -> None:
        """Ask ExaBGP for its neighbors and routes; once more if it is being asked already."""
        if self._phase == "ready":
            self._phase = "neighbors"
        elif self._phase in ("neighbors", "routes"):
            self._again = True

    # ------------------------------------------------------------ what to do

    def tick(self, now: float) -> None:
        """Let time pass; call it after everything that was there to read has been read."""
        if self._lease.tick(now):
            self._routes.suspend(True)
            self.notes.append(f"no sign of life from the daemon for {self._lease.hold:g} s: every route is withdrawn")
            self.revision += 1
        if self._exchange.tick(now) and (command := self._exchange.command):
            self.notes.append(f"ExaBGP has not answered for {ACK_TIMEOUT:g} s: {command.line[:120]}")
            self.revision += 1
        if self._routes.has_rejected and self._phase == "ready" and now - self._synced_at > RETRY:
            self._phase = "neighbors"

    def next(self, now: float) -> Command | None:
        """The command to send now; it is outstanding from then on. None: nothing to say, or an answer is due."""
        if self._exchange.command:
            return None
        talking = self._phase in ("ready", "unfit")
        command = self._routes.next() if talking else Command(*HANDSHAKE[self._phase])
        if command is not None:
            self._exchange.begin(command, now)
        elif self._done_serial != self._serial and not self._lease.expired:
            self._done_serial = self._serial
            self.revision += 1
        return command

    def stuck(self, now: float) -> str:
        """Why ExaBGP must be killed: a route has to leave and ExaBGP does not do it. Empty while all is well."""
        if self._withdrawals_refused >= REFUSALS:
            return f"ExaBGP refused to withdraw {REFUSALS} times in a row"
        command = self._exchange.command
        if not self._exchange.late or not command:
            return ""
        leaving = command.kind == "withdraw" or self._routes.withdrawal() is not None
        blind = self._lease.expired and self._phase not in ("ready", "unfit")
        if leaving or blind:
            return f"ExaBGP has not answered for {ACK_TIMEOUT:g} s and routes have to leave"
        return ""

    def report(self) -> Report:
        return Report(
            serial=self._done_serial,
            ready=self._known,
            version=self._version,
            announced=self._routes.announced(),
            rejected=self._objections(),
            sessions=tuple(self._sessions.values()),
        )

    def _objections(self) -> dict[Address, str]:
        """Why wanted routes are not announced, or not everywhere."""
        objections = {}
        if self._phase == "unfit":
            reason = f"ExaBGP {self._version} is not supported; install exabgp >=5.0.13,<6"
            objections = dict.fromkeys(self._routes.target or (), reason)
        elif self._phase == "ready":
            for vip in self._routes.homeless():
                objections[vip] = f"ExaBGP has no neighbor with an IPv{vip.version} session; add one to exabgp.conf"
        objections |= self._routes.objections()
        command = self._exchange.command
        if self._exchange.late and command and command.kind == "announce":
            objections |= dict.fromkeys(command.vips, f"ExaBGP has not answered for {ACK_TIMEOUT:g} s")
        return objections
