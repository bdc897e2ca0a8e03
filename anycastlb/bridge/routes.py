"""What ExaBGP has, what is wanted, and what is left to do about the difference.

Pure: the relay tells this table what the daemon wants and what ExaBGP has acknowledged, and asks it for the next
command. Only host routes inside ``vip_ranges`` are ever announced, and only those (and the ones that the daemon itself
names) are ever withdrawn: whatever else ExaBGP announces is not ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from anycastlb.bridge import grammar
from anycastlb.bridge.exchange import Command
from anycastlb.bridge.grammar import Neighbor
from anycastlb.bridge.protocol import fault, within
from anycastlb.core.model import EMPTY, Address, Network, Route

GIVEN = 1000
"""Reasons remembered, so that each is given once."""


class RouteTable:
    """``ranges``: the networks whose host routes may leave the node; they may be replaced."""

    def __init__(self, ranges: Sequence[Network]) -> None:
        self.ranges = ranges
        self.neighbors: Mapping[Address, Neighbor] = {}
        self.refused: Mapping[Address, str] = EMPTY
        """Why wanted routes may not leave the node."""
        self._given: set[str] = set()
        """Reasons of refusals that were returned before: the daemon asks again and again."""
        self._wanted: Mapping[Address, Route] | None = None
        """None: not known yet, so everything stays as it is."""
        self._void = False
        self._acknowledged: dict[Address, dict[Address, Route | None]] = {}
        """By peer and VIP; None: its attributes could not be read."""
        self._rejected: dict[tuple[Address, Address], tuple[Route, str]] = {}
        """(peer, vip) -> the route ExaBGP answered ``error`` to, and what to say about it."""
        self._suspects: set[tuple[Address, Address]] = set()
        """Members of a refused batch, which are sent one by one to find the bad one."""

    # ------------------------------------------------------------ what the daemon wants

    def want(self, routes: Mapping[Address, Route]) -> list[str]:
        """Want exactly these from now on, but for those that may not leave; return the reasons not yet given."""
        faults = {vip: fault(vip, route, self.ranges) for vip, route in routes.items()}
        self.refused = {vip: reason for vip, reason in faults.items() if reason}
        self._wanted = {vip: route for vip, route in routes.items() if vip not in self.refused}
        new = [reason for reason in self.refused.values() if reason not in self._given]
        self._given = {*islice(self._given, GIVEN), *new}
        return new

    def suspend(self, void: bool) -> None:
        """While it is so, nothing is wanted, whatever ``want`` has said."""
        self._void = void

    @property
    def target(self) -> Mapping[Address, Route] | None:
        """What should be announced; None: not known yet, so everything stays as it is."""
        return EMPTY if self._void else self._wanted

    # ------------------------------------------------------------ what ExaBGP has

    def load(self, listed: Mapping[Address, Mapping[Address, Route | None]]) -> None:
        """This is what ExaBGP announces to each neighbor."""
        self._acknowledged = {peer: dict(listed.get(peer, {})) for peer in self.neighbors}

    def retry(self) -> None:
        """Forget what ExaBGP has refused."""
        self._rejected = {}

    @property
    def has_rejected(self) -> bool:
        return bool(self._rejected)

    def done(self, command: Command) -> None:
        """ExaBGP has carried it out."""
        assert command.peer is not None
        routes = self._acknowledged[command.peer]
        if command.route is None:
            for vip in command.vips:
                routes.pop(vip, None)
        else:
            routes.update(dict.fromkeys(command.vips, command.route))
            self._suspects -= {(command.peer, vip) for vip in command.vips}

    def failed(self, command: Command) -> bool:
        """ExaBGP has refused this announcement. True if that is final; a batch is tried again one by one."""
        assert command.peer is not None and command.route is not None
        pairs = {(command.peer, vip) for vip in command.vips}
        if len(pairs) > 1:
            self._suspects |= pairs
            return False
        reason = f"ExaBGP refused it for neighbor {command.peer}; the reason is in ExaBGP's log"
        self._rejected |= dict.fromkeys(pairs, (command.route, reason))
        self._suspects -= pairs
        return True

    def announced(self) -> dict[Address, Route]:
        """Our routes that ExaBGP has acknowledged, towards at least one neighbor."""
        announced: dict[Address, Route] = {}
        for routes in self._acknowledged.values():
            for vip, route in routes.items():
                if self._ours(vip):
                    announced.setdefault(vip, route or Route())
        return announced

    def objections(self) -> dict[Address, str]:
        """Why wanted routes are refused, here or by ExaBGP."""
        objections = dict(self.refused)
        target = self.target or {}
        for (_, vip), (route, reason) in self._rejected.items():
            if target.get(vip) == route:
                objections[vip] = reason
        return objections

    def homeless(self) -> Iterable[Address]:
        """Wanted routes that no neighbor can carry."""
        return [vip for vip in self.target or () if not any(n.carries(vip) for n in self.neighbors.values())]

    # ------------------------------------------------------------ what is left to do

    def next(self) -> Command | None:
        """The most urgent command: withdrawals come first. None if nothing is left to do."""
        return self.withdrawal() or self._announcement()

    def withdrawal(self) -> Command | None:
        if (target := self.target) is None:
            return None
        for peer, routes in self._acknowledged.items():
            extra = tuple(islice((v for v in routes if v not in target and self._ours(v)), grammar.BATCH))
            if extra:
                return Command("withdraw", grammar.withdraw(peer, extra), peer, extra)
        return None

    def _announcement(self) -> Command | None:
        target = self.target or {}
        for neighbor in self.neighbors.values():
            missing = [vip for vip, route in target.items() if self._misses(neighbor, vip, route)]
            if not missing:
                continue
            single = [vip for vip in missing if (neighbor.peer, vip) in self._suspects][:1]
            route = target[(single or missing)[0]]
            alike = single or [vip for vip in missing if target[vip] == route][: grammar.BATCH]
            return Command("announce", grammar.announce(neighbor, route, alike), neighbor.peer, tuple(alike), route)
        return None

    def _misses(self, neighbor: Neighbor, vip: Address, route: Route) -> bool:
        if not neighbor.carries(vip) or self._rejected.get((neighbor.peer, vip), (None,))[0] == route:
            return False
        routes = self._acknowledged[neighbor.peer]
        present = routes.get(vip)
        if present == route:
            return False
        if present is None or grammar.canonical(present) != grammar.canonical(route):
            return True
        routes[vip] = route  # the same in other words
        return False

    def _ours(self, vip: Address) -> bool:
        return within(vip, self.ranges) or vip in self.refused
