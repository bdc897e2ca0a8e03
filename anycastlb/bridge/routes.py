"""What ExaBGP has, what is wanted, and what is left to do about the difference.

Pure: the relay tells this table what the daemon wants and what ExaBGP has acknowledged, and asks it for the next
command. Only host routes inside ``vip_ranges`` are ever announced. Only routes of ours are ever withdrawn: those inside
the ranges that this bridge has known at any time, and those that the daemon itself has named. Whatever else ExaBGP
announces is not ours.

The work that is left is kept, not searched: a VIP is judged again when what is wanted of it or what ExaBGP has of it
changes, so that an idle table costs nothing, however many routes it holds. There are three queues, the most urgent
first: ``leaving``, ``missing`` and ``doubted``. The last one holds routes that were acknowledged to a neighbor whose
session has come up again since: announcing them once more costs the router nothing, and restores what a reload of
ExaBGP may have dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from anycastlb.bridge import grammar
from anycastlb.bridge.admission import Admission
from anycastlb.bridge.exchange import Command
from anycastlb.bridge.grammar import Neighbor
from anycastlb.core.model import EMPTY, Address, Network, Route

LOOK_AHEAD = 1000
"""VIPs of a queue that are looked at to fill one command."""
PLAIN = Route()


class RouteTable:
    """``ranges``: the networks whose host routes may leave the node."""

    def __init__(self, ranges: Sequence[Network]) -> None:
        self.admission = Admission(ranges)
        self.neighbors: Mapping[Address, Neighbor] = {}
        self.leaving: dict[Address, None] = {}
        """VIPs to withdraw from whoever has them."""
        self.missing: dict[Address, None] = {}
        """VIPs that some neighbor should have and has not, or with other attributes."""
        self.doubted: dict[Address, set[Address]] = {}
        """VIPs to announce once more, and to which neighbors."""
        self.announced: dict[Address, Route] = {}
        """Our routes that ExaBGP has acknowledged, towards at least one neighbor."""
        self._wanted: Mapping[Address, Route] | None = None
        """None: not known yet, so everything stays as it is."""
        self._void = False
        self._held: dict[Address, dict[Address, Route | None]] = {}
        """VIP -> neighbor -> what ExaBGP has acknowledged to it. None: its attributes could not be read."""
        self._carriers: Mapping[int, tuple[Neighbor, ...]] = {}
        """IP version -> the neighbors that carry it."""
        self._rejected: dict[Address, dict[Address, Route]] = {}
        """VIP -> neighbor -> the route ExaBGP answered ``error`` to."""
        self._suspects: set[Address] = set()
        """Members of a refused batch, which are sent one by one to find the bad one."""

    # ------------------------------------------------------------ what the daemon wants

    def want(self, routes: Mapping[Address, Route]) -> list[str]:
        """Want exactly these from now on, but for those that may not leave; return the reasons not yet given."""
        before = self._wanted
        known = before or EMPTY
        new = self.admission.offer(routes)
        refused = self.admission.refused
        wanted = {vip: _same(known.get(vip), route) for vip, route in routes.items() if vip not in refused}
        changed = [vip for vip, route in wanted.items() if known.get(vip) is not route]
        self._wanted = wanted
        if before is None or self._void:
            self._judge_all()
        else:
            self._judge([*changed, *(vip for vip in before if vip not in wanted), *refused])
        return new

    def suspend(self, void: bool) -> None:
        """While it is so, nothing is wanted, whatever ``want`` says."""
        if void != self._void:
            self._void = void
            self._judge_all()

    @property
    def withheld(self) -> Iterable[Address]:
        """What the daemon asks for in vain while nothing is wanted."""
        return (self._wanted or EMPTY) if self._void else ()

    @property
    def target(self) -> Mapping[Address, Route] | None:
        """What should be announced; None: not known yet, so everything stays as it is."""
        return EMPTY if self._void else self._wanted

    # ------------------------------------------------------------ what ExaBGP has

    def meet(self, neighbors: Iterable[Neighbor]) -> list[Address]:
        """ExaBGP has exactly these neighbors. The ones of which it is not known what ExaBGP has for them."""
        before, self.neighbors = self.neighbors, {neighbor.peer: neighbor for neighbor in neighbors}
        strangers = [n.peer for n in self.neighbors.values() if not _is_same_neighbor(before.get(n.peer), n)]
        gone = {*(before.keys() - self.neighbors.keys()), *strangers}
        for table in (self._held, self._rejected):
            for holders in table.values():
                for peer in gone:
                    holders.pop(peer, None)
        self.doubted = {vip: peers - gone for vip, peers in self.doubted.items() if peers - gone}
        self._carriers = {
            version: tuple(n for n in self.neighbors.values() if n.peer.version == version and version in n.families)
            for version in (4, 6)
        }
        if gone:
            self._judge_all()
        return strangers

    def load(self, peer: Address, listed: Mapping[Address, Route | None]) -> None:
        """ExaBGP announces exactly this to the neighbor."""
        changed = {**dict.fromkeys(vip for vip, holders in self._held.items() if peer in holders), **listed}
        for vip in changed:
            holders = self._held.setdefault(vip, {})
            holders.pop(peer, None)
            if vip in listed:
                holders[peer] = listed[vip]
        self.admission.listed(listed)
        self._judge(changed)

    def doubt(self, peer: Address) -> None:
        """The neighbor's session has come up again: ExaBGP may have dropped some of its routes meanwhile."""
        target, neighbor = self.target or EMPTY, self.neighbors.get(peer)
        if neighbor is None:
            return
        for vip, holders in self._held.items():
            if peer in holders and vip in target and neighbor.carries(vip):
                self.doubted.setdefault(vip, set()).add(peer)

    def retry(self) -> None:
        """Forget what ExaBGP has refused."""
        vips = list(self._rejected)
        self._rejected = {}
        self._judge(vips)

    @property
    def has_rejected(self) -> bool:
        return bool(self._rejected)

    def done(self, command: Command) -> None:
        """ExaBGP has carried it out."""
        peers = [peer for peer in command.peers if peer in self.neighbors]
        for vip in command.vips:
            holders = self._held.setdefault(vip, {})
            for peer in peers:
                if command.route is None:
                    holders.pop(peer, None)
                else:
                    holders[peer] = command.route
            if command.route is not None:
                self._settle(vip, peers)
        self._judge(command.vips)

    def failed(self, command: Command) -> bool:
        """ExaBGP has refused this announcement. True if that is final; a batch is tried again one by one."""
        assert command.route is not None
        if len(command.vips) > 1:
            self._suspects |= {*command.vips}
            return False
        (vip,) = command.vips
        self._rejected.setdefault(vip, {}).update(dict.fromkeys(command.peers, command.route))
        self._settle(vip, command.peers)
        self._judge(command.vips)
        return True

    @property
    def size(self) -> int:
        """How many routes ExaBGP announces, each counted for every neighbor."""
        return len(self.announced) * len(self.neighbors)

    def objections(self) -> dict[Address, str]:
        """Why wanted routes are refused, here or by ExaBGP."""
        objections = dict(self.admission.refused)
        target = self.target or {}
        for vip, refusals in self._rejected.items():
            if peers := [str(peer) for peer, route in refusals.items() if target.get(vip) == route]:
                where = f"neighbor {', '.join(peers)}"
                objections[vip] = f"ExaBGP refused it for {where}; the reason is in ExaBGP's log"
        return objections

    def uncarried(self) -> Iterable[Address]:
        """Wanted routes that no neighbor can carry."""
        absent = {version for version in (4, 6) if not self._carriers.get(version)}
        return [vip for vip in self.target or () if vip.version in absent] if absent else ()

    # ------------------------------------------------------------ what is left to do

    def withdrawal(self) -> Command | None:
        """The next withdrawal; None if none is due."""
        for first in self.leaving:
            peers = self._held[first].keys()
            vips = [vip for vip in islice(self.leaving, LOOK_AHEAD) if self._held[vip].keys() == peers]
            batch = tuple(vips[: grammar.batch(len(peers))])
            return Command("withdraw", grammar.withdraw(tuple(peers), batch), tuple(peers), batch)
        return None

    def announcement(self) -> Command | None:
        """The next announcement; None if none is due."""
        for first in self.missing:
            return self._announce(first, self.missing)
        for first in self.doubted:
            return self._announce(first, self.doubted)
        return None

    def _announce(self, first: Address, queue: Mapping[Address, object]) -> Command:
        route = (self.target or {})[first]
        peers = grammar.alike(self._in_need(first, route, queue), route)
        vips = [first]
        if first not in self._suspects:
            limit = grammar.batch(len(peers))
            for vip in islice(queue, 1, LOOK_AHEAD):
                if len(vips) == limit:
                    break
                if vip not in self._suspects and self._has_need(vip, route, peers, queue):
                    vips.append(vip)
        line = grammar.announce(peers, route, vips)
        return Command("announce", line, tuple(n.peer for n in peers), tuple(vips), route)

    def _has_need(self, vip: Address, route: Route, peers: Sequence[Neighbor], queue: Mapping[Address, object]) -> bool:
        wanted = (self.target or {})[vip]
        return wanted == route and grammar.alike(self._in_need(vip, wanted, queue), wanted) == peers

    def _in_need(self, vip: Address, route: Route, queue: Mapping[Address, object]) -> Sequence[Neighbor]:
        """The neighbors to which the route is to be announced, because of this queue."""
        if queue is self.doubted:
            return [n for n in self._carriers.get(vip.version, ()) if n.peer in self.doubted[vip]]
        return self._without(vip, route)

    # ------------------------------------------------------------ judging

    def _judge_all(self) -> None:
        self.leaving, self.missing, self.announced = {}, {}, {}
        self._judge({**dict.fromkeys(self._held), **dict.fromkeys(self.target or ())})

    def _judge(self, vips: Iterable[Address]) -> None:
        """Put each VIP into the queues that it belongs to, and into ``announced`` if it is."""
        target = self.target
        for vip in vips:
            self.leaving.pop(vip, None)
            self.missing.pop(vip, None)
            route = target.get(vip) if target is not None else None
            if route is None:
                self.doubted.pop(vip, None)
                self._suspects.discard(vip)
            elif self._without(vip, route):
                self.missing[vip] = None
            holders = self._held.get(vip)
            if not holders:
                self._held.pop(vip, None)
                self.announced.pop(vip, None)
            elif not self.admission.is_ours(vip):
                self.announced.pop(vip, None)
            else:
                self.announced[vip] = _representative(holders, route)
                if route is None and target is not None:
                    self.leaving[vip] = None

    def _without(self, vip: Address, route: Route) -> Sequence[Neighbor]:
        """The neighbors that should have this route and have not, but for those for which ExaBGP has refused it."""
        holders = self._held.get(vip, {})
        without = [n for n in self._carriers.get(vip.version, ()) if not _is_held(holders, n.peer, route)]
        if without and (refusals := self._rejected.get(vip)):
            return [n for n in without if refusals.get(n.peer) != route]
        return without

    def _settle(self, vip: Address, peers: Iterable[Address]) -> None:
        """This route was answered for these neighbors, one way or the other."""
        self._suspects.discard(vip)
        if (doubts := self.doubted.get(vip)) is not None:
            doubts.difference_update(peers)
            if not doubts:
                del self.doubted[vip]


def _same(before: Route | None, route: Route) -> Route:
    """The very object of before if it is equal: what has not changed is recognised at once."""
    return before if before is route or (before is not None and before == route) else route


def _is_same_neighbor(before: Neighbor | None, neighbor: Neighbor) -> bool:
    return before is not None and (before.local_as, before.peer_as, before.families) == (
        neighbor.local_as,
        neighbor.peer_as,
        neighbor.families,
    )


def _is_held(holders: dict[Address, Route | None], peer: Address, route: Route) -> bool:
    held = holders.get(peer)
    if held is route:
        return True
    if held is None or (held != route and grammar.canonical(held) != grammar.canonical(route)):
        return False
    holders[peer] = route  # the same, perhaps in other words
    return True


def _representative(holders: Mapping[Address, Route | None], wanted: Route | None) -> Route:
    """The wanted route if any neighbor has it, else what the first one has."""
    for route in holders.values():
        if route is wanted is not None:
            return wanted
    return next(iter(holders.values())) or PLAIN
