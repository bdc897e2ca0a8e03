"""The table of routes: the work that it keeps is the work that a search of everything would find."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from anycastlb.bridge.exchange import Command
from anycastlb.bridge.grammar import Neighbor
from anycastlb.bridge.routes import RouteTable
from anycastlb.core.model import Address, Route

RANGES = (ip_network("192.0.2.0/24"), ip_network("2001:db8::/64"))
VIPS = [ip_address(text) for text in ("192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1", "203.0.113.1")]
NEIGHBORS = [
    Neighbor(ip_address(peer), 65001, peer_as, frozenset({ip_address(peer).version}))
    for peer, peer_as in [("10.99.1.1", 65000), ("10.99.2.1", 65000), ("10.99.3.1", 65001), ("fd00::1", 65000)]
]
ROUTES = [Route(), Route(med=1), Route(("65001:2", "65001:1")), Route(as_path_prepend=1)]

vips, routes, neighbors = st.sampled_from(VIPS), st.sampled_from(ROUTES), st.sampled_from(NEIGHBORS)
sets = st.dictionaries(vips, routes, max_size=5)
steps = st.one_of(
    st.tuples(st.just("want"), sets),
    st.tuples(st.just("meet"), st.lists(neighbors, max_size=4, unique=True)),
    st.tuples(st.just("load"), neighbors, st.dictionaries(vips, routes | st.none(), max_size=4)),
    st.tuples(st.just("doubt"), neighbors),
    st.tuples(st.just("suspend"), st.booleans()),
    st.tuples(st.just("work"), st.booleans()),
    st.tuples(st.just("retry")),
    st.tuples(st.just("ranges"), st.sampled_from([RANGES, RANGES[:1], RANGES[1:]])),
)


class Walk:
    """A table, and beside it what ExaBGP has by its own account."""

    def __init__(self) -> None:
        self.table = RouteTable(RANGES)
        self.exabgp: dict[Address, dict[Address, Route | None]] = {}
        self.met: list[Neighbor] = []

    def step(self, kind: str, *values: object) -> None:
        getattr(self, f"_{kind}")(*values)

    def _want(self, routes: dict[Address, Route]) -> None:
        self.table.want(routes)

    def _meet(self, neighbors: list[Neighbor]) -> None:
        for peer in self.table.meet(neighbors):
            self.exabgp[peer] = {}
        self.met = neighbors
        self.exabgp = {n.peer: self.exabgp[n.peer] for n in neighbors}

    def _load(self, neighbor: Neighbor, listed: dict[Address, Route | None]) -> None:
        if neighbor in self.met:
            self.table.load(neighbor.peer, listed)
            self.exabgp[neighbor.peer] = dict(listed)

    def _doubt(self, neighbor: Neighbor) -> None:
        self.table.doubt(neighbor.peer)

    def _suspend(self, void: bool) -> None:
        self.table.suspend(void)

    def _retry(self) -> None:
        self.table.retry()

    def _ranges(self, ranges: tuple[object, ...]) -> None:
        self.table.admission.change_ranges(ranges)  # type: ignore[arg-type]

    def _work(self, obeys: bool) -> None:
        command = self.table.withdrawal() or self.table.announcement()
        if command is None:
            return
        assert command.peers and command.vips
        if obeys or command.kind == "withdraw":
            self.obey(command)
        else:
            self.table.failed(command)

    def obey(self, command: Command) -> None:
        self.table.done(command)
        for peer in command.peers:
            for vip in command.vips:
                if command.route is None:
                    self.exabgp[peer].pop(vip, None)
                else:
                    self.exabgp[peer][vip] = command.route


@given(st.lists(steps, max_size=25))
def test_the_kept_work_is_the_work_that_a_search_finds(history: list[tuple[object, ...]]) -> None:
    walk = Walk()
    for kind, *values in history:
        walk.step(str(kind), *values)
        kept = set(walk.table.leaving), set(walk.table.missing), dict(walk.table.announced)
        walk.table._judge_all()
        assert kept == (set(walk.table.leaving), set(walk.table.missing), walk.table.announced)


@given(st.lists(steps, max_size=25), sets)
def test_all_work_done_exabgp_has_what_is_wanted(
    history: list[tuple[object, ...]], wanted: dict[Address, Route]
) -> None:
    walk = Walk()
    for kind, *values in [*history, ("suspend", False), ("retry",), ("want", wanted)]:
        walk.step(str(kind), *values)
    for _ in range(200):
        walk.step("work", True)
    assert walk.table.withdrawal() is None and walk.table.announcement() is None and not walk.table.doubted
    admitted = {vip: route for vip, route in wanted.items() if vip not in walk.table.admission.refused}
    for neighbor in walk.met:
        ours = {vip for vip in walk.exabgp[neighbor.peer] if walk.table.admission.is_ours(vip)}
        assert {vip for vip in admitted if neighbor.carries(vip)} <= ours <= set(admitted)
    assert set(walk.table.announced) <= set(admitted)
