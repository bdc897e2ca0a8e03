"""The router configurations we ship, on the routers they are for: BIRD and FRR, eBGP and iBGP, with two real nodes.

Routes are read from the router's kernel, which is what forwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import ip_address

import pytest

from anycastlb.core.model import Address
from tests.lab import lateness
from tests.lab.process import until
from tests.lab.router import Flavour
from tests.support.rack import CABLED, Rack

FOUR, SIX = ip_address("192.0.2.10"), ip_address("2001:db8:2::10")
LATER4, LATER6 = ip_address("192.0.2.11"), ip_address("2001:db8:2::11")
FOREIGN = ip_address("203.0.113.10")
VIPS = (FOUR, SIX)
BOTH = {"lb1", "lb2"}
ODD = """
    static {
        route 192.0.2.0/24 next-hop self;
        route 192.0.2.199/32 next-hop 198.51.100.77;
        route 10.0.0.0/8 next-hop self;
        route 0.0.0.0/0 next-hop self;
    }
}

neighbor 2001:db8:ffff::1 {
    static {
        route 2001:db8:2::/64 next-hop self;
        route 2001:db8:bad::1/128 next-hop self;
        route ::/0 next-hop self;
    }
"""
"""What no node should announce, in the place where the second neighbor of the template begins."""
ODDITIES = {"}\n\nneighbor 2001:db8:ffff::1 {\n": ODD.removeprefix("\n")}


def told(what: str, seconds: float) -> None:
    """A figure for whoever reads the test's output (``pytest -rP``)."""
    print(f"{what}: {seconds * 1000:.0f} ms")


@pytest.fixture(scope="module", params=["bird", "frr"])
def built(
    request: pytest.FixtureRequest, require: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rack]:
    flavour: Flavour = request.param
    for part in ("kernel", "exabgp", "bird" if flavour == "bird" else "vtysh"):
        require(part)
    rack = Rack(flavour, tmp_path_factory.mktemp("rack"))
    try:
        rack.create()
        yield rack
    finally:
        rack.delete()


@pytest.fixture
def rack(built: Rack) -> Iterator[Rack]:
    """Every node there and announcing one VIP of each family, whatever the last test did."""
    for name, node in built.nodes.items():
        built.plug(name)
        node.watch(None)
    built.announce(VIPS)
    yield built
    print(built.logs())


def leads(rack: Rack, vip: Address, nodes: set[str], since: float, promise: float, what: str) -> None:
    """The route leads to just these nodes, by the time that was promised."""
    told(f"{what}, the route to {vip} leaves", rack.router.until(vip, nodes) - since)
    lateness.kept(promise, since, f"{what}: the route to {vip} left")


def spread(rack: Rack) -> None:
    for vip in VIPS:
        rack.router.until(vip, BOTH)


@pytest.mark.parametrize("kind", ["ebgp", "ibgp"])
def test_the_example_spreads_filters_drains_and_forgets(rack: Rack, kind: str) -> None:
    rack.begin(kind, nodes={"lb1": ODDITIES})
    rack.up()
    spread(rack)
    rack.announce([*VIPS, FOREIGN, LATER4, LATER6])
    for vip in (LATER4, LATER6):  # it came after all the others, over the same session
        rack.router.until(vip, BOTH)
    tables = rack.router.table(4), rack.router.table(6)
    assert set(tables[0]) - {"192.0.2.199"} == {"192.0.2.10", "192.0.2.11"}
    assert set(tables[1]) == {"2001:db8:2::10", "2001:db8:2::11"}
    assert tables[0].get("192.0.2.199", set()) <= {"198.51.100.2"}, "a VIP may lead to who announces it only"

    rack.lb1.announce({vip: {"communities": ["65535:0"]} for vip in VIPS})
    for vip in VIPS:
        rack.router.until(vip, {"lb2"})
    rack.lb2.announce({vip: {"communities": ["65535:0"]} for vip in VIPS})
    spread(rack)  # nobody else is there: better drained than none
    rack.announce(VIPS)
    spread(rack)

    since = lateness.now()
    rack.lb1.announce([])
    for vip in VIPS:
        leads(rack, vip, {"lb2"}, since, 4, "a file is removed")
    rack.announce(VIPS)
    spread(rack)

    for node, left in ((rack.lb1, {"lb2"}), (rack.lb2, set[str]())):
        since = lateness.now()
        node.exabgp.kill()
        for vip in VIPS:  # the hold time is 9 s: no route lingers, there is no graceful restart
            leads(rack, vip, left, since, 4, "ExaBGP is killed")
    for node in rack.nodes.values():
        node.exabgp.start()
    spread(rack)


def test_the_limit_of_prefixes_acts(rack: Rack) -> None:
    limit = (
        {"limit 1000 ": "limit 3 "} if rack.router.flavour == "bird" else {"maximum-prefix 1000 ": "maximum-prefix 3 "}
    )
    rack.begin(router=limit)
    spread(rack)
    rack.lb1.announce([SIX, *(ip_address(f"192.0.2.{20 + number}") for number in range(8))])
    rack.router.until(FOUR, {"lb2"})
    if rack.router.flavour == "bird":
        until(lambda: len(rack.router.table(4)) == 4, "three are taken, and lb2's own")
        assert rack.router.sessions() >= {"lb1v4"}
    else:
        rack.up("lb1v6", "lb2v4", "lb2v6")
        assert set(rack.router.table(4)) == {str(FOUR)}
    assert rack.router.routes(SIX) == BOTH, "the other family's session has its own count"


def test_a_session_needs_the_right_password(rack: Rack) -> None:
    rack.begin(options={"md5"}, nodes={"lb2": {'"change-me"': '"changed"'}})
    rack.up("lb1v4", "lb1v6")
    before = rack.count("TCPMD5Failure")
    until(lambda: rack.count("TCPMD5Failure") > before + 2, "lb2 has tried, and been refused")
    assert rack.router.sessions() == {"lb1v4", "lb1v6"}
    for vip in VIPS:
        rack.router.until(vip, {"lb1"})


def test_ttl_security_keeps_out_who_is_a_hop_away(rack: Rack) -> None:
    far = {"outgoing-ttl 255;": "outgoing-ttl 254;"}  # what arrives from behind one more router
    rack.begin(options={"ttl"}, nodes={"lb2": far})
    rack.up("lb1v4", "lb1v6")
    before = rack.count("TCPMinTTLDrop")
    until(lambda: rack.count("TCPMinTTLDrop") > before + 2, "lb2 has tried, and been dropped")
    assert rack.router.sessions() == {"lb1v4", "lb1v6"}


def test_nodes_with_an_as_each_are_spread_over_and_who_vanishes_is_given_up_after_the_hold_time(rack: Rack) -> None:
    hold = {"hold time 9;": "hold time 3;"} if rack.router.flavour == "bird" else {"timers bgp 3 9": "timers bgp 1 3"}
    rack.begin(router=hold, ases=(65001, 65002))
    spread(rack)
    since = lateness.now()
    rack.unplug("lb1")
    for vip in VIPS:
        leads(rack, vip, {"lb2"}, since, 8, "unplugged, hold time 3 s")
    rack.plug("lb1")
    spread(rack)


def test_a_cable_that_was_out_for_a_moment_is_used_again(rack: Rack) -> None:
    with rack.cabled(rack.lb2):
        rack.begin(nodes={"lb2": CABLED})
        spread(rack)
        for _ in range(2):
            since = lateness.now()
            rack.lb2.namespace.ip("link set eth1 down")
            leads(rack, FOUR, {"lb1"}, since, 4, "cable out")
            rack.lb2.namespace.ip("link set eth1 up")
            rack.router.until(FOUR, BOTH)


def test_bfd_gives_up_a_silent_node_long_before_the_hold_time(rack: Rack) -> None:
    patient = {"hold-time 9;": "hold-time 90;"}
    hold = (
        {"hold time 9;": "hold time 90;"} if rack.router.flavour == "bird" else {"timers bgp 3 9": "timers bgp 30 90"}
    )
    rack.begin(options={"bfd"}, router=hold, nodes={"lb1": patient, "lb2": patient})
    rack.lb1.watch("bird")
    rack.lb2.watch("frr")
    rack.up()
    everybody = {address for node in rack.nodes.values() for address in (node.peer.v4, node.peer.v6)}
    until(lambda: rack.router.watched() == everybody, "BFD is up with both nodes", every=0.2)
    spread(rack)
    for name, other in (("lb1", "lb2"), ("lb2", "lb1")):
        since = lateness.now()
        rack.unplug(name)
        for vip in VIPS:
            leads(rack, vip, {other}, since, 20, f"{name} unplugged, hold time 90 s, BFD 3 x 100 ms")
        rack.plug(name)
        spread(rack)
