"""What the bridge asks ExaBGP, and knows of it: its version, its neighbors, their sessions, the routes it had before.

The phases are drawn in ``relay``. Answers alone lead from one to the next.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from anycastlb.bridge import grammar
from anycastlb.bridge.exchange import Answer, Command
from anycastlb.bridge.grammar import Neighbor, StateEvent
from anycastlb.bridge.routes import RouteTable
from anycastlb.core.model import Address, Session

Phase = Literal["version", "acks", "neighbors", "routes", "ready", "unfit"]
FIXED: Mapping[Phase, Command] = {
    "version": Command("version", grammar.VERSION),
    "acks": Command("acks", grammar.ENABLE_ACK),
    "neighbors": Command("neighbors", grammar.SHOW_NEIGHBORS),
}


class Questions:
    """``routes`` learns the neighbors and their routes; ``notes`` gets what an operator should read."""

    def __init__(self, routes: RouteTable, notes: list[str], now: float) -> None:
        self.phase: Phase = "version"
        self.version = ""
        self.sessions: dict[Address, Session] = {}
        self.answered_once = False
        """Has ExaBGP ever said all that it announces?"""
        self.asked_at = now
        """When it last said which neighbors it has."""
        self._routes, self._notes = routes, notes
        self._again = False
        """Ask for the neighbors once more when the present questions are answered."""
        self._unlisted: list[Address] = []
        """Neighbors of which it is not known what ExaBGP has for them."""

    def next(self) -> Command | None:
        """The question to ask now; None if all are answered."""
        if self.phase == "routes":
            peer = self._unlisted[0]
            return Command("routes", grammar.show_routes(peer), (peer,))
        return FIXED.get(self.phase)

    def restart(self) -> None:
        """An answer was lost: begin the handshake again, so that no later answer is taken for another one."""
        self.phase = "version"

    def ask_neighbors(self) -> None:
        """Ask for the neighbors; once more if they are being asked for already."""
        if self.phase == "ready":
            self.phase = "neighbors"
        elif self.phase in ("neighbors", "routes"):
            self._again = True

    def answered(self, answer: Answer, now: float) -> None:
        """A question was answered."""
        match answer.command.kind:
            case "version":
                self._greeted(answer.lines[-1])
            case "acks":
                self.phase = "neighbors"
            case "neighbors":
                self._met(answer.lines[-1], now)
            case "routes":
                self._listed(answer)

    def happened(self, event: StateEvent, now: float) -> bool:
        """A session has changed its state. False if that is no news."""
        if event.state == "connected":  # a refusing peer connects once a second
            return False
        known = self.sessions.get(event.peer)
        unreported = known is not None and event.reason and not known.reason  # it was only listed, without a report
        news = known is None or known.state != event.state or bool(unreported)
        if news:
            self.sessions[event.peer] = Session(str(event.peer), event.state, now, event.reason)
        if event.state == "up":
            self._routes.doubt(event.peer)
        if news or event.state == "up":
            self.ask_neighbors()
        return news

    def _greeted(self, line: str) -> None:
        words = line.split()
        self.version = "".join(char for char in words[-1] if char.isprintable())[:40]
        self.phase = "acks"
        if not re.fullmatch(r"exabgp 5\.\d+\.\S+", line.lower()):
            self.phase, self.answered_once = "unfit", True
            self._notes.append(f"this is ExaBGP {self.version}: nothing is announced; install exabgp >=5.0.13,<6")

    def _met(self, line: str, now: float) -> None:
        try:
            strangers = self._routes.meet(grammar.neighbors(line))
        except ValueError as exc:
            strangers = []
            self._notes.append(str(exc))
        neighbors = self._routes.neighbors
        self._unlisted = [peer for peer in dict.fromkeys((*self._unlisted, *strangers)) if peer in neighbors]
        self.sessions = {peer: self._session(neighbor, now) for peer, neighbor in neighbors.items()}
        self.asked_at = now
        self._go_on()

    def _session(self, neighbor: Neighbor, now: float) -> Session:
        """The listing can be older than the event that led to it, so it counts for new neighbors only."""
        state: Literal["up", "down"] = "up" if neighbor.up else "down"
        return self.sessions.get(neighbor.peer) or Session(str(neighbor.peer), state, now - neighbor.up_for)

    def _listed(self, answer: Answer) -> None:
        (peer,) = answer.command.peers
        if not answer.ok:
            self._notes.append(f"ExaBGP refused {answer.command.line!r}; asked again")
            self.phase = "neighbors"
            return
        listed, senseless = grammar.routes(answer.lines)
        self._notes += [f"ExaBGP listed a route that makes no sense: {line[:200]!r}" for line in senseless[:3]]
        self._routes.load(peer, listed.get(peer, {}))
        self._unlisted.remove(peer)
        self._go_on()

    def _go_on(self) -> None:
        """Ask what else is not known, or let the work begin."""
        if self._unlisted:
            self.phase = "routes"
            return
        self.phase = "neighbors" if self._again else "ready"
        self._again, self.answered_once = False, True
