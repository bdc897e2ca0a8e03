"""The nodes that share the connections of a gateway: who they are, their weights, and the marks that lead to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address

import pytest

from anycastlb.adapters.checks.tcp import Params
from anycastlb.core.decision.decide import adopt, decide
from anycastlb.core.model import (
    Catalog,
    Check,
    CheckState,
    Cluster,
    Decision,
    DrainSummary,
    Feed,
    IngressKey,
    Inputs,
    Memory,
    Peer,
    Policy,
    ServiceKey,
    ServiceSummary,
    Spread,
    State,
    Status,
    VipSummary,
)
from tests.support.http_tree import read

VIP = ip_address("192.0.2.10")
GATEWAY = {"vip": "192.0.2.10", "port": 80, "protocol": "http", "drain": "30s"}
ROUTE = {
    "gateways": ["web"],
    "hostnames": ["shop.example"],
    "rules": [{"filters": [{"type": "RequestRedirect", "requestRedirect": {"scheme": "https"}}]}],
}
CHECK = Check("tcp", ip_address("0.0.0.0"), 0, Params(), 1.0, 1.0, 2, 3)
SPREAD = Spread(ip_address("10.0.0.1"), ("eth0", "eth1"), (70, 79), CHECK)


def catalog(**gateways: Mapping[str, object]) -> Catalog:
    found = read(
        {f"gateways/{name}": document for name, document in gateways.items()}
        | {"routes/shop": {**ROUTE, "gateways": sorted(gateways)}}
    )
    assert not found.problems
    return found


def peer(name: str, own: str = "well", stage: str = "", alive: bool = True) -> Peer:
    leave = DrainSummary(stage, "drained", "", DRAINED) if stage else None
    status = Status(
        name,
        ready=True,
        vips={VIP: VipSummary(announced=True, open=True, own=own)},
        services={"gateways/web": {VIP: ServiceSummary(open=True, up=1, total=1)}},
        leave=leave,
        gateway_address=ip_address(f"10.0.0.{name[-1]}"),
    )
    return Peer(name, alive, status)


def inputs(*peers: Peer, spread: Spread | None = SPREAD, **gateways: Mapping[str, object]) -> Inputs:
    return Inputs(
        Policy("lb1", http=True, spread=spread),
        catalog(**(gateways or {"web": GATEWAY})),
        Feed(loaded=True, connected=True),
        cluster=Cluster(follows=True, connected=True, peers={one.name: one for one in peers}),
    )


DRAINED = "1970-01-01T00:01:40.000Z"
"""100 seconds by the nodes' clocks."""
UP, DOWN = CheckState(up=True), CheckState(up=False)


NEW = Memory()


def settled(given: Inputs, memory: Memory = NEW, down: str = "", now: float = 100.0) -> Decision:
    """The decision once every node was probed."""
    asked = decide(given, memory, now)
    health = {
        service.check(vip, node): DOWN if node.name == down else UP
        for service in asked.sharing
        for vip in service.vips
        for node in service.members(vip)
    }
    return decide(replace(given, health=health), asked.memory, now + 1)


def shared(decision: Decision) -> list[ServiceKey]:
    """The services in IPVS, without those for probes."""
    return [key for key in decision.desired.services if key.port in range(70, 80)]


def weights(decision: Decision) -> dict[str, int]:
    """Of the nodes, by their address, in the kernel's order."""
    rows = decision.desired.destinations.items()
    return {str(key.address): row.weight for key, row in rows if key.service in shared(decision)}


def marked(decision: Decision) -> dict[str, int]:
    return {str(key): row.mark for key, row in decision.desired.ingress_marks.items()}


def test_all_nodes_have_the_same_table_and_every_interface_marks() -> None:
    decision = settled(inputs(peer("lb3"), peer("lb2")))
    (service,) = shared(decision)
    assert str(service) == "fwmark 70"
    assert decision.desired.services[service].flags == {"mh-port", "mh-fallback"}
    assert weights(decision) == {"10.0.0.1": 100, "10.0.0.2": 100, "10.0.0.3": 100}
    assert marked(decision) == {"192.0.2.10:80 by eth0": 70, "192.0.2.10:80 by eth1": 70}
    assert decision.verdicts[VIP].open


ALONE = {
    "no other node": inputs(),
    "not asked for": inputs(peer("lb2"), web={**GATEWAY, "spread": "none"}),
    "this node shares none": inputs(peer("lb2"), spread=None),
    "the other shares none": inputs(
        replace(peer("lb2"), status=replace(peer("lb2").status or Status("lb2"), gateway_address=None))
    ),
    "no mark is left": inputs(
        peer("lb2"), spread=replace(SPREAD, marks=(70, 70)), also={**GATEWAY, "port": 81}, web=GATEWAY
    ),
}


@pytest.mark.parametrize("why", ALONE)
def test_alone_a_node_needs_no_ipvs(why: str) -> None:
    decision = settled(ALONE[why])
    assert not decision.desired.ingress_marks and not shared(decision)
    assert decision.verdicts[VIP].open


@pytest.mark.parametrize(
    ("other", "down", "weight"),
    [
        (peer("lb2", stage="graceful"), "", 100),
        (peer("lb2", stage="withdrawn"), "", 100),
        (peer("lb2", stage="drained"), "", 100),
        (peer("lb2", own="ill"), "", 0),
        (peer("lb2", own="unable"), "", 0),
        (peer("lb2", own=""), "", 100),
        (peer("lb2", alive=False), "", 100),
        (peer("lb2"), "lb2", 0),
    ],
    ids=["leaves", "withdrawn", "drained", "ill", "unable", "says nothing", "vanished", "does not answer"],
)
def test_the_weight_of_another_node(other: Peer, down: str, weight: int) -> None:
    decision = settled(inputs(other, peer("lb3")), down=down)
    assert weights(decision) == {"10.0.0.1": 100, "10.0.0.2": weight, "10.0.0.3": 100}


def test_a_drained_node_keeps_its_weight_until_all_its_connections_have_spoken_or_ended() -> None:
    """They may be idle for 60 seconds."""
    given = inputs(peer("lb2", stage="drained"))
    before = settled(given, now=150.0)
    assert weights(before) == {"10.0.0.1": 100, "10.0.0.2": 100} and before.wake_at == 160.0
    after = settled(given, before.memory, now=160.0)
    assert weights(after) == {"10.0.0.1": 100, "10.0.0.2": 0} and after.wake_at is None


def test_without_a_node_that_takes_connections_nothing_is_marked() -> None:
    given = inputs(peer("lb2"))
    decision = decide(given, Memory(), 100.0)
    assert set(weights(decision).values()) == {0} and not marked(decision), "nobody was probed yet"
    assert decision.verdicts[VIP].open, "the gate does not wait for it"
    assert marked(settled(given, decision.memory))


def test_marks_stay_with_their_gateways_also_over_a_restart() -> None:
    three = {name: {**GATEWAY, "port": port} for name, port in (("a", 81), ("b", 82), ("c", 83))}

    def others(names: str) -> Peer:
        known = peer("lb2").status or Status("lb2")
        summary = known.services["gateways/web"]
        return Peer("lb2", True, replace(known, services={f"gateways/{name}": summary for name in names}))

    def by_port(decision: Decision) -> dict[int, int]:
        return {key.port: row.mark for key, row in decision.desired.ingress_marks.items()}

    before = settled(inputs(others("abc"), **three))
    assert by_port(before) == {81: 70, 82: 71, 83: 72}
    two = {name: three[name] for name in "bc"}
    after = settled(inputs(others("bc"), **two), before.memory, now=110.0)
    assert by_port(after) == {81: 70, 82: 71, 83: 72}, "a is still served until its drain is over"
    later = settled(inputs(others("bc"), **two), after.memory, now=150.0)
    assert by_port(later) == {82: 71, 83: 72}
    restarted = settled(inputs(others("bc"), **two), adopt(later.desired, 200.0), now=200.0)
    assert by_port(restarted) == {82: 71, 83: 72}


def test_a_gateway_that_is_removed_leaves_nothing_behind() -> None:
    before = settled(inputs(peer("lb2")))
    gone = replace(inputs(peer("lb2")), catalog=Catalog())
    leaving = decide(gone, before.memory, 110.0)
    assert marked(leaving) == marked(before)
    assert weights(leaving) == weights(before)
    after = decide(gone, leaving.memory, 150.0)
    assert not shared(after) and not marked(after) and not after.memory.http.marks


def test_other_vips_than_the_gateways_are_never_marked() -> None:
    decision = settled(inputs(peer("lb2")))
    assert {key.address for key in decision.desired.ingress_marks} == {VIP}
    assert IngressKey("eth0", VIP, 80) in decision.desired.ingress_marks
    assert decision.desired.addresses.keys() == {VIP}
    assert adopt(State(), 0.0).http.marks == {}
