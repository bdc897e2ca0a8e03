"""Decides what to say next to ExaBGP, from what the daemon wants, what ExaBGP has answered, and the time.

No I/O and no clock: ``now`` is an argument. The loop around it carries lines in and out and does what ``stuck`` says.

One command is outstanding at a time: ExaBGP's answers carry no name and pipelined ones overtake each other. The
talk begins with ``version``, ``enable-ack``, the neighbors and the routes ExaBGP has; the latter two are asked again
after every error and whenever a session comes up (a respawned bridge is told nothing, and a neighbor that was added
by a reload has no routes). From then on it is level-triggered: compare what ExaBGP has with what is wanted, send the
one command that matters most (withdrawals first), look again.

Fail closed: only a valid message proves that the daemon lives. When none came for ``hold`` seconds nothing is
wanted any more. Only host routes inside ``vip_ranges`` are ever sent, and only those (and the ones the daemon itself
names) are ever withdrawn: whatever else ExaBGP announces is not ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from anycastlb.bridge import grammar
from anycastlb.bridge.grammar import Neighbor
from anycastlb.bridge.protocol import Heartbeat, ProtocolError, Report, RouteSet, fault, within
from anycastlb.core.model import Address, Network, Route, Session

ACK_TIMEOUT = 2.0
"""Seconds ExaBGP has for an answer when a route must leave."""
RETRY = 30.0
"""Seconds until a refused announcement is tried again unasked."""
RESYNC_PAUSE = 1.0
"""Least seconds between two resyncs because of refused announcements."""
REFUSALS = 3
"""Refused withdrawals in a row after which ExaBGP is given up."""
TOLD = 1000
ANSWER_LINES = 200_000
"""More lines than this are no answer; the rest is dropped."""

Phase = Literal["version", "acks", "neighbors", "routes", "ready", "unfit"]
Kind = Literal["version", "acks", "neighbors", "routes", "announce", "withdraw"]
HANDSHAKE: Mapping[str, tuple[Kind, str]] = {
    "version": ("version", grammar.VERSION),
    "acks": ("acks", grammar.ENABLE_ACK),
    "neighbors": ("neighbors", grammar.SHOW_NEIGHBORS),
    "routes": ("routes", grammar.SHOW_ROUTES),
}
OPENING: Mapping[str, str] = {"version": "exabgp ", "neighbors": "["}


@dataclass(frozen=True, slots=True)
class Command:
    kind: Kind
    line: str
    peer: Address | None = None
    vips: tuple[Address, ...] = ()
    route: Route | None = None


class Relay:
    """The bridge's whole state."""

    def __init__(self, ranges: Sequence[Network], hold: float, now: float) -> None:
        self.ranges = ranges
        self.notes: list[str] = []
        """What an operator should read; the loop prints and clears it."""
        self.revision = 0
        """Grows whenever ``report`` may have changed."""
        self._phase: Phase = "version"
        self._version = ""
        self._neighbors: dict[Address, Neighbor] = {}
        self._sessions: dict[Address, Session] = {}
        self._rib: dict[Address, dict[Address, Route | None]] = {}
        self._wanted: Mapping[Address, Route] | None = None
        self._told: set[str] = set()
        """Refusals an operator has read already; the daemon asks again and again."""
        self._refused: dict[Address, str] = {}
        """Wanted routes that may not leave the node."""
        self._rejected: dict[tuple[Address, Address], tuple[Route, str]] = {}
        """(peer, vip) -> the route ExaBGP answered ``error`` to."""
        self._suspects: set[tuple[Address, Address]] = set()
        """Members of a refused batch: sent one by one, to find the bad one."""
        self._serial = self._done = 0
        self._hold, self._deadline = hold, now + hold
        self._proven = False
        self._silent = False
        self._command: Command | None = None
        self._heard_at = now
        """When the outstanding command was sent or ExaBGP last said something in answer to it."""
        self._answer: list[str] = []
        self._known = False
        """Has ExaBGP ever told what it announces?"""
        self._late = False
        self._again = False
        self._synced_at = now
        self._withdrawals_refused = 0

    # ------------------------------------------------------------ the daemon

    def linked(self) -> None:
        """A connection to the daemon was made: no proof of life yet."""
        self._proven, self._serial, self._done = False, 0, 0
        self._changed()

    def unlinked(self, now: float) -> None:
        """The connection is gone. The daemon lived until now, if it had beaten in the last second."""
        if self._proven:
            self._deadline = min(now + self._hold, self._deadline + 1.0)
        self._proven, self._serial, self._done = False, 0, 0

    def ordered(self, message: RouteSet | Heartbeat, now: float) -> None:
        """Raises ``WireError`` for a beat that belongs to no set of this connection."""
        if isinstance(message, Heartbeat):
            if message.serial != self._serial:  # which is 0 before the first set of a connection
                raise ProtocolError(
                    f"beat {message.serial}: expected one of set {self._serial}, the last of this connection"
                )
        else:
            self._take(message)
        self._proven, self._deadline = True, now + self._hold
        if self._silent:
            self._silent = False
            self.notes.append("the daemon speaks again: its routes are announced again")
            self._changed()

    def _take(self, message: RouteSet) -> None:
        self._hold, self._serial = message.hold, message.serial
        faults = {vip: fault(vip, route, self.ranges) for vip, route in message.routes.items()}
        refused = {vip: reason for vip, reason in faults.items() if reason}
        self.notes += [f"refused: {reason}" for reason in refused.values() if reason not in self._told]
        self._told = {*islice(self._told, TOLD), *refused.values()}
        self._refused = refused
        self._wanted = {vip: route for vip, route in message.routes.items() if vip not in refused}
        self._changed()

    # ------------------------------------------------------------ ExaBGP

    def heard(self, line: str, now: float) -> None:
        """One line from ExaBGP: an event, or a piece of the answer to the outstanding command."""
        if line.startswith(("{ ", '{"')):
            self._happened(line, now)
        elif self._command is None:
            if line:
                self.notes.append(f"ExaBGP said {line[:80]!r}, which answers nothing; ignored")
        elif line in ("done", "error"):
            if self._complete(self._command.kind):
                self._answered(self._command, line == "done", now)
            else:
                self._answer = []  # the answer to a command of the bridge before this one
        elif line and len(self._answer) < ANSWER_LINES:
            self._answer.append(line)
            self._heard_at = now

    def _complete(self, kind: Kind) -> bool:
        """Is this the answer to *our* command? The two that open a resync are always answered with a line."""
        if kind not in OPENING:
            return True
        self._answer = [line for line in self._answer if line.startswith(OPENING[kind])]
        return bool(self._answer)

    def _answered(self, command: Command, ok: bool, now: float) -> None:
        answer, self._answer, self._command, self._heard_at = self._answer, [], None, now
        self._late = False
        self._changed()
        if command.kind == "announce":
            self._announced(command, ok, now)
        elif command.kind == "withdraw":
            self._withdrawn(command, ok)
        elif command.kind == "version":
            self._greeted(answer[-1])
        elif command.kind == "acks":
            self._phase = "neighbors"
        elif command.kind == "neighbors":
            self._met(answer[-1], now)
        else:
            self._listed(answer, ok, now)

    def _greeted(self, line: str) -> None:
        words = line.split()
        self._version = "".join(char for char in words[-1] if char.isprintable())[:40]
        self._phase = "acks"
        if not re.fullmatch(r"exabgp 5\.\d+\.\S+", line.lower()):
            self._phase, self._known = "unfit", True
            self.notes.append(f"this is ExaBGP {self._version}: nothing is announced; install exabgp >=5.0.13,<6")

    def _met(self, line: str, now: float) -> None:
        try:
            neighbors = {neighbor.peer: neighbor for neighbor in grammar.neighbors(line)}
        except ValueError as exc:
            self.notes.append(str(exc))
            neighbors = self._neighbors
        self._neighbors = neighbors
        self._sessions = {peer: self._session(neighbor, now) for peer, neighbor in neighbors.items()}
        self._phase = "routes"

    def _session(self, neighbor: Neighbor, now: float) -> Session:
        """The listing can be older than the event that led to it, so it counts for new neighbors only."""
        state: Literal["up", "down"] = "up" if neighbor.up else "down"
        return self._sessions.get(neighbor.peer) or Session(str(neighbor.peer), state, now - neighbor.up_for)

    def _listed(self, answer: list[str], ok: bool, now: float) -> None:
        if not ok:
            self.notes.append(f"ExaBGP refused {grammar.SHOW_ROUTES!r}; asked again")
            self._phase = "neighbors"
            return
        listed, senseless = grammar.routes(answer)
        self.notes += [f"ExaBGP listed a route that makes no sense: {line[:200]!r}" for line in senseless[:3]]
        self._rib = {peer: listed.get(peer, {}) for peer in self._neighbors}
        self._rejected, self._known = {}, True
        self._synced_at = now
        self._phase = "neighbors" if self._again else "ready"
        self._again = False

    def _announced(self, command: Command, ok: bool, now: float) -> None:
        assert command.peer is not None and command.route is not None
        pairs = {(command.peer, vip) for vip in command.vips}
        if ok:
            self._rib[command.peer].update(dict.fromkeys(command.vips, command.route))
            self._suspects -= pairs
            return
        if len(pairs) > 1:
            self._suspects |= pairs
        else:
            reason = f"ExaBGP refused it for neighbor {command.peer}; the reason is in ExaBGP's log"
            self.notes.append(f"ExaBGP answered error to: {command.line[:300]}")
            self._rejected |= dict.fromkeys(pairs, (command.route, reason))
            self._suspects -= pairs
        if now - self._synced_at > RESYNC_PAUSE:  # is the neighbor still there?
            self._phase = "neighbors"

    def _withdrawn(self, command: Command, ok: bool) -> None:
        assert command.peer is not None
        if ok:
            self._withdrawals_refused = 0
            for vip in command.vips:
                self._rib[command.peer].pop(vip, None)
            return
        self._withdrawals_refused += 1
        self.notes.append(f"ExaBGP answered error to: {command.line[:300]}")
        self._phase = "neighbors"

    def _happened(self, line: str, now: float) -> None:
        event = grammar.event(line)
        if event is None or event.state == "connected":  # a refusing peer connects once a second: no news
            return
        known = self._sessions.get(event.peer)
        if known is None or known.state != event.state:
            self._sessions[event.peer] = Session(str(event.peer), event.state, now, event.reason)
            self._changed()
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
        if not self._silent and now >= self._deadline:
            self._silent = True
            self.notes.append(f"no sign of life from the daemon for {self._hold:g} s: every route is withdrawn")
            self._changed()
        if self._command and not self._late and now - self._heard_at > ACK_TIMEOUT:
            self._late = True
            self.notes.append(f"ExaBGP has not answered for {ACK_TIMEOUT:g} s: {self._command.line[:120]}")
            self._changed()
        if self._rejected and self._phase == "ready" and now - self._synced_at > RETRY:
            self._phase = "neighbors"

    def next(self, now: float) -> Command | None:
        """The command to send now; it is outstanding from then on. None: nothing to say, or an answer is due."""
        if self._command:
            return None
        talking = self._phase in ("ready", "unfit")
        command = next(self._work(), None) if talking else Command(*HANDSHAKE[self._phase])
        self._command, self._heard_at = command, now
        if command is None and self._done != self._serial and not self._silent:
            self._done = self._serial
            self._changed()
        return command

    def stuck(self, now: float) -> str:
        """Why ExaBGP must be killed: a route has to leave and ExaBGP does not do it. Empty while all is well."""
        if self._withdrawals_refused >= REFUSALS:
            return f"ExaBGP refused to withdraw {REFUSALS} times in a row"
        if not self._late or not self._command:
            return ""
        leaving = self._command.kind == "withdraw" or next(self._withdrawals(), None) is not None
        blind = self._silent and self._phase not in ("ready", "unfit")
        if leaving or blind:
            return f"ExaBGP has not answered for {ACK_TIMEOUT:g} s and routes have to leave"
        return ""

    def report(self) -> Report:
        announced: dict[Address, Route] = {}
        for routes in self._rib.values():
            for vip, route in routes.items():
                if self._ours(vip):
                    announced.setdefault(vip, route or Route())
        return Report(
            serial=self._done,
            ready=self._known,
            version=self._version,
            announced=announced,
            rejected=self._objections(),
            sessions=tuple(self._sessions.values()),
        )

    # ------------------------------------------------------------ wanted and had

    def _target(self) -> Mapping[Address, Route] | None:
        """What should be announced; None: not known yet, so leave everything as it is."""
        return {} if self._silent else self._wanted

    def _ours(self, vip: Address) -> bool:
        return within(vip, self.ranges) or vip in self._refused

    def _work(self) -> Iterator[Command]:
        """What is left to do, the most urgent first; only the first is true, for it changes what follows."""
        yield from self._withdrawals()
        for neighbor in self._neighbors.values():
            yield from self._announcements(neighbor)

    def _withdrawals(self) -> Iterator[Command]:
        if (target := self._target()) is None:
            return
        for peer, routes in self._rib.items():
            extra = tuple(islice((v for v in routes if v not in target and self._ours(v)), grammar.BATCH))
            if extra:
                yield Command("withdraw", grammar.withdraw(peer, extra), peer, extra)

    def _announcements(self, neighbor: Neighbor) -> Iterator[Command]:
        target = self._target() or {}
        missing = [vip for vip, route in target.items() if self._lacks(neighbor, vip, route)]
        single = [vip for vip in missing if (neighbor.peer, vip) in self._suspects][:1]
        if missing:
            route = target[(single or missing)[0]]
            alike = single or [vip for vip in missing if target[vip] == route][: grammar.BATCH]
            yield Command("announce", grammar.announce(neighbor, route, alike), neighbor.peer, tuple(alike), route)

    def _lacks(self, neighbor: Neighbor, vip: Address, route: Route) -> bool:
        if not neighbor.carries(vip) or self._rejected.get((neighbor.peer, vip), (None,))[0] == route:
            return False
        routes = self._rib[neighbor.peer]
        had = routes.get(vip)
        if had == route:
            return False
        if had is None or grammar.canonical(had) != grammar.canonical(route):
            return True
        routes[vip] = route  # the same in other words
        return False

    def _objections(self) -> dict[Address, str]:
        """Why wanted routes are not announced, or not everywhere."""
        objections = dict(self._refused)
        for vip, route in (self._target() or {}).items():
            if self._phase == "unfit":
                objections[vip] = f"ExaBGP {self._version} is not supported; install exabgp >=5.0.13,<6"
            elif self._phase == "ready" and not any(n.carries(vip) for n in self._neighbors.values()):
                objections[vip] = f"ExaBGP has no neighbor with an IPv{vip.version} session; add one to exabgp.conf"
            for peer in self._neighbors:
                refused, reason = self._rejected.get((peer, vip), (None, ""))
                if refused == route:
                    objections[vip] = reason
        if self._late and self._command and self._command.kind == "announce":
            reason = f"ExaBGP has not answered for {ACK_TIMEOUT:g} s"
            objections |= dict.fromkeys(self._command.vips, reason)
        return objections

    def _changed(self) -> None:
        self.revision += 1
