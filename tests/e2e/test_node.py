"""Two nodes serve: ECMP over both, all forwarding methods, and backends that die and return."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.lab import lateness
from tests.lab.lab import CHECK, Lab, document
from tests.lab.node import Node
from tests.lab.process import until
from tests.lab.server import DNS, ECHO
from tests.lab.topology import BACKENDS, own, vip
from tests.support.two_nodes import BOTH, DETECTION, FRESH, VIP, serve, weights

FORWARD = ("tunnel", "dr", "nat")
TCP = {"type": "tcp", "interval": "200ms", "timeout": "1s", "rise": 2, "fall": 3}


def test_flows_reach_every_backend_through_both_nodes(lab: Lab) -> None:
    """By every way of forwarding in both families at once; and one service on a VIP of each family."""
    ways = {
        (forward, version): vip(number, version)
        for number, forward in enumerate(FORWARD, FRESH["flows"])
        for version in (4, 6)
    }
    for (forward, version), address in ways.items():
        if forward != "dr":
            lab.put(f"{forward}{version}", document(address, forward))
    lab.put("both", document([ways["dr", 4], ways["dr", 6]], "dr"))
    lab.settle(*ways.values())

    for address in ways.values():
        answered = lab.client.spread(60, address)
        assert set(answered) == set(BACKENDS)
        assert sum(answered.values()) == 60

    # The kernel's counters follow within two seconds; together the nodes scheduled each request exactly once.
    flows = [node.flows for node in lab.nodes.values()]
    for (forward, version), address in ways.items():
        until(lambda: sum(flow(address).total() for flow in flows) == 60, f"both count 60 flows by {forward}")  # noqa: B023
        for flow in flows:
            assert set(+flow(address)) == {own(name, version) for name in BACKENDS}


def test_datagrams_reach_every_backend(lab: Lab) -> None:
    ways = {"tunnel": vip(0), "dr": vip(1)}
    for forward, address in ways.items():
        lab.put(forward, document(address, forward, port=DNS, protocol="udp"))
    lab.settle(*ways.values())
    for address in ways.values():
        assert set(lab.client.spread(60, address, DNS, udp=True)) == set(BACKENDS)


def test_nodes_build_the_same_table(lab: Lab) -> None:
    """Not only the same rows: the same order, which decides where mh sends a flow."""
    backends = {name: {"address": own(name)} for name in ("b2", "b3", "b1")}
    serve(lab, backends=backends)
    lab.put("web", document(VIP, backends={"b2": {"address": own("b2")}, "b1": {"address": own("b1")}}, drain="100ms"))
    lab.lb1.until(lambda: all(len(rows) == 2 for rows in weights(lab)), "b3 left both nodes")
    lab.put("web", document(VIP, backends=backends))
    lab.lb1.until(lambda: all(len(rows) == 3 for rows in weights(lab)), "b3 is back on both nodes")
    until(lambda: lab.lb1.ordered() == lab.lb2.ordered(), "both kernels list the same, in the same order")


@pytest.mark.parametrize("harm", ["kill", "fail", "freeze"])
def test_a_backend_dies_and_only_its_share_moves(lab: Lab, harm: str) -> None:
    serve(lab)
    before = lab.router.all_updates()
    with lab.client.load(VIP) as load:
        until(lambda: len(load.answered) == 3, "all backends answer")
        getattr(lab.backends["b2"], harm)()
        dead = f"{own('b2')}:80"
        lab.lb1.until(lambda: all(rows[dead] == 0 for rows in weights(lab)), "b2 has weight 0 on both nodes")
        noticed, sent = time.monotonic(), load.sent
        until(lambda: load.sent > sent + 20, "20 requests: those on their way to b2 have ended")
        sent, on_b2 = load.sent, load.answered["b2"]
        until(lambda: load.sent > sent + 60, "60 more requests")

    late = [failed for failed in load.failed if failed.at > noticed]
    assert not late, f"{load}; {len(late)} of them began after b2 had weight 0"
    assert load.answered["b2"] == on_b2
    if harm == "fail":  # it still served while it was being found out
        assert not load.failed, str(load)
    assert lab.router.all_updates() == before
    assert lab.router.routes(VIP) == BOTH

    lab.backends["b2"].restore()
    lab.lb1.until(lambda: all(rows[dead] > 0 for rows in weights(lab)), "b2 has its weight again on both nodes")
    assert set(lab.client.spread(60, VIP)) == set(BACKENDS)
    assert lab.router.all_updates() == before


def closed(node: Node, reason: str) -> bool:
    """Does it say that the VIP is closed, for this reason?"""
    (verdict,) = (item for item in node.status()["vips"] if item["vip"] == str(VIP))
    return not verdict["open"] and reason in verdict["reason"]


def test_all_backends_die_and_the_route_goes_in_time(lab: Lab) -> None:
    """Each in its own way: one refuses, one says that it fails, one does not answer."""
    serve(lab)
    since = lateness.now()
    lab.backends["b1"].kill()
    lab.backends["b2"].fail()
    lab.backends["b3"].freeze()
    lab.router.until(VIP, set())
    lateness.kept(DETECTION + 0.5, since, "the route left the router")
    for node in lab.nodes.values():
        node.until(lambda node=node: closed(node, "0/3"), "it says why")

    for backend in lab.backends.values():
        backend.restore()
    lab.router.until(VIP, BOTH)
    lab.settle(VIP)
    assert set(lab.client.spread(40, VIP)) == set(BACKENDS)


def test_min_backends_closes_the_gate_before_the_last_one_dies(lab: Lab) -> None:
    serve(lab, announce={"min_backends": 2})
    lab.backends["b1"].fail()
    lab.lb1.until(lambda: all(rows[f"{own('b1')}:80"] == 0 for rows in weights(lab)), "b1 has weight 0")
    assert lab.router.routes(VIP) == BOTH
    lab.backends["b2"].fail()
    lab.router.until(VIP, set())
    lab.lb1.until(lambda: closed(lab.lb1, "needs 2"), "it says why")


def test_a_change_in_the_kv_is_acted_on(lab: Lab) -> None:
    """From the write to the kernels of both nodes; the bound is loose here, because everything shares one CPU."""
    serve(lab)
    heavier = document(VIP)
    heavier["backends"]["b1"]["weight"] = 50
    since = lateness.now()
    lab.put("web", heavier)
    until(lambda: all(len(set(rows.values())) == 2 for rows in weights(lab)), "b1 weighs half")
    lateness.kept(1.0, since, "b1 weighed half on both nodes")


def test_editing_the_check_of_a_healthy_service_costs_nothing(lab: Lab) -> None:
    serve(lab)
    updates = lab.router.all_updates()
    edits: list[dict[str, Any]] = [{**CHECK, "interval": "300ms"}, {**CHECK, "path": "/health?again"}, TCP]
    with lab.client.load(VIP) as load:
        for check in edits:
            lab.put("web", document(VIP, check=check))
            sent = load.sent
            until(lambda: load.sent > sent + 20, "20 more requests")  # noqa: B023
    assert not load.failed, str(load)
    assert lab.router.all_updates() == updates


def test_a_service_put_again_is_checked_again(lab: Lab) -> None:
    """What was healthy once says nothing about a service that comes back later."""
    serve(lab)
    lab.remove("web")
    for node in lab.nodes.values():
        node.until(lambda node=node: not node.ipvs() and not node.vips(), "the service is gone")
    for backend in lab.backends.values():
        backend.fail()
    before = lab.router.all_updates()
    lab.put("web", document(VIP))
    for node in lab.nodes.values():
        node.until(lambda node=node: len(node.ipvs().get(f"tcp {VIP}:80", {})) == 3, "the service is programmed")
    for backend in lab.backends.values():
        checked = backend.counts()["checks"]
        until(lambda: backend.counts()["checks"] >= checked + 2 * 6, "each node has checked it six times")  # noqa: B023
    assert lab.router.all_updates() == before, "announced although every backend fails its check"


def test_backend_keys_of_their_own_are_merged_and_everything_is_deleted_at_once(lab: Lab) -> None:
    """``consul kv delete -recurse anycastlb/``: noticed at once, and believed when it persists.

    Consul wakes no query for a part of what was deleted above it: the source watches the names above too.
    """
    lab.put("web", document(VIP, backends={}))
    for name in BACKENDS:
        lab.consul.put(f"anycastlb/services/web/backends/{name}", {"address": own(name), "check": CHECK})
    lab.settle(VIP)
    lab.consul.delete("anycastlb/services/web/backends/b3")
    lab.lb1.until(lambda: all(len(rows) == 2 for rows in weights(lab)), "b3 has left both nodes")
    assert set(lab.client.spread(40, VIP)) == {"b1", "b2"}
    lab.consul.delete("anycastlb/", below=True)
    lab.router.until(VIP, set())


def test_a_removed_service_is_served_until_its_flows_have_ended(lab: Lab) -> None:
    serve(lab, port=ECHO, drain="5s", check={**CHECK, "port": 80})
    with lab.client.open(20, VIP) as connections:
        lab.remove("web")
        lab.router.until(VIP, set())
        assert all(VIP in node.vips() for node in lab.nodes.values())
        assert all(f"tcp {VIP}:{ECHO}" in node.ipvs() for node in lab.nodes.values())
        assert connections.ports <= lab.lb1.carries(VIP) | lab.lb2.carries(VIP), "their flows are forwarded still"
    for node in lab.nodes.values():
        node.until(lambda node=node: not node.ipvs() and not node.vips(), "the drained service is gone")


def test_a_hundred_reloads_write_nothing(lab: Lab) -> None:
    serve(lab)
    whole = document(VIP)
    nodes = list(lab.nodes.values())
    for node in nodes:
        node.until(lambda node=node: node.status()["pending"] == 0, "nothing is left to do")
    before = [(node.total("anycastlb_changes_total"), node.ordered()) for node in nodes]
    running = [node.total("anycastlb_checks_running") for node in nodes]
    updates = lab.router.all_updates()
    index = [node.status()["catalog"]["index"] for node in nodes]
    turned = [node.total("anycastlb_events_total", 'kind="check"') for node in nodes]
    for round_ in range(50):
        lab.put("web", whole)
        for node in nodes:
            node.reload()
        if round_ % 10 == 0:
            assert [node.total("anycastlb_checks_running") for node in nodes] == running
    lab.put("last", "{}")  # no service, but proof that the nodes have read everything before it
    for node, seen in zip(nodes, index, strict=True):
        node.until(lambda node=node, seen=seen: node.status()["catalog"]["index"] > seen, "the last write is read")

    assert [(node.total("anycastlb_changes_total"), node.ordered()) for node in nodes] == before
    assert [node.total("anycastlb_checks_running") for node in nodes] == running == [3.0, 3.0]
    assert lab.router.all_updates() == updates
    for node, count in zip(nodes, turned, strict=True):
        assert node.total("anycastlb_events_total", 'kind="check"') == count, "one that begins anew is unknown first"
