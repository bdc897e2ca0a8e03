"""Two nodes serve: ECMP over both, all forwarding methods, and backends that die and return."""

from __future__ import annotations

import time
from ipaddress import ip_address
from typing import Any

import pytest

from tests.lab.lab import CHECK, Lab, document
from tests.lab.process import until
from tests.lab.server import DNS
from tests.lab.topology import BACKENDS, own, vip
from tests.support.two_nodes import BOTH, DETECTION, VIP, serve, weights


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("forward", ["tunnel", "dr", "nat"])
def test_flows_reach_every_backend_through_both_nodes(lab: Lab, forward: str, version: int) -> None:
    address = vip(0, version)
    serve(lab, version=version, forward=forward)

    answered = lab.client.spread(90, address)

    assert set(answered) == set(BACKENDS)
    assert sum(answered.values()) == 90
    # The kernel's counters follow within two seconds; together the nodes scheduled each request exactly once.
    flows = [node.flows for node in lab.nodes.values()]
    until(lambda: sum(sum(flow(address).values()) for flow in flows) == 90, 5, "both nodes count 90 flows")
    for flow in flows:
        assert set(+flow(address)) == {own(name, version) for name in BACKENDS}


@pytest.mark.parametrize("forward", ["tunnel", "dr"])
def test_datagrams_reach_every_backend(lab: Lab, forward: str) -> None:
    lab.put("dns", document(VIP, forward, port=DNS, protocol="udp"))
    lab.settle(VIP)
    assert set(lab.client.spread(60, VIP, DNS, udp=True)) == set(BACKENDS)


def test_one_service_on_a_vip_of_each_family(lab: Lab) -> None:
    lab.put("web", document([vip(0), vip(0, 6)], "dr"))
    lab.settle(vip(0), vip(0, 6))
    for address in (vip(0), vip(0, 6)):
        assert set(lab.client.spread(40, address)) == set(BACKENDS)


def test_nodes_build_the_same_table(lab: Lab) -> None:
    """Not only the same rows: the same order, which decides where mh sends a flow."""
    backends = {name: {"address": own(name)} for name in ("b2", "b3", "b1")}
    serve(lab, backends=backends)
    lab.put("web", document(VIP, backends={"b2": {"address": own("b2")}, "b1": {"address": own("b1")}}, drain="100ms"))
    lab.lb1.until(lambda: all(len(rows) == 2 for rows in weights(lab)), 5, "b3 left both nodes")
    lab.put("web", document(VIP, backends=backends))
    lab.lb1.until(lambda: all(len(rows) == 3 for rows in weights(lab)), 5, "b3 is back on both nodes")
    until(lambda: lab.lb1.ordered() == lab.lb2.ordered(), 3, "both kernels list the same, in the same order")


@pytest.mark.parametrize("harm", ["kill", "fail", "freeze"])
def test_a_backend_dies_and_only_its_share_moves(lab: Lab, harm: str) -> None:
    serve(lab)
    before = lab.router.all_updates()
    with lab.client.load(VIP) as load:
        until(lambda: len(load.answered) == 3, 5, "all backends answer")
        getattr(lab.backends["b2"], harm)()
        dead = f"{own('b2')}:80"
        lab.lb1.until(lambda: all(rows[dead] == 0 for rows in weights(lab)), 5, "b2 has weight 0 on both nodes")
        noticed = time.monotonic()
        time.sleep(0.1)  # requests already on their way to it
        settled, sent, on_b2 = time.monotonic(), load.sent, load.answered["b2"]
        until(lambda: load.sent > sent + 200, 20, "200 more requests")

    late = [failed for failed in load.failed if failed.at > noticed]
    assert not late, f"{load}; {len(late)} of them after b2 had weight 0 ({settled - noticed:.2f} s of grace)"
    assert load.answered["b2"] <= on_b2 + 1
    if harm == "fail":  # it still served while it was being found out
        assert not load.failed, str(load)
    assert lab.router.all_updates() == before
    assert lab.router.routes(VIP) == BOTH

    lab.backends["b2"].restore()
    lab.lb1.until(lambda: all(rows[dead] > 0 for rows in weights(lab)), 5, "b2 has its weight again on both nodes")
    assert set(lab.client.spread(60, VIP)) == set(BACKENDS)
    assert lab.router.all_updates() == before


@pytest.mark.parametrize("harm", ["kill", "fail", "freeze"])
def test_all_backends_die_and_the_route_goes_in_time(lab: Lab, harm: str) -> None:
    serve(lab)
    at = time.monotonic()
    for backend in lab.backends.values():
        getattr(backend, harm)()
    took = lab.router.until(VIP, set()) - at
    assert took <= DETECTION + 0.5, f"the route left the router after {took:.2f} s, promised {DETECTION + 0.5:.2f} s"
    for node in lab.nodes.values():
        verdict = next(item for item in node.status()["vips"] if item["vip"] == str(VIP))
        assert verdict["open"] is False
        assert "0/3" in verdict["reason"]

    for backend in lab.backends.values():
        backend.restore()
    lab.router.until(VIP, BOTH, within=5)
    lab.settle(VIP)
    assert set(lab.client.spread(40, VIP)) == set(BACKENDS)


def test_min_backends_closes_the_gate_before_the_last_one_dies(lab: Lab) -> None:
    serve(lab, announce={"min_backends": 2})
    lab.backends["b1"].fail()
    lab.lb1.until(lambda: all(rows[f"{own('b1')}:80"] == 0 for rows in weights(lab)), 5, "b1 has weight 0")
    assert lab.router.routes(VIP) == BOTH
    lab.backends["b2"].fail()
    lab.router.until(VIP, set(), within=3)
    assert "needs 2" in lab.lb1.status()["vips"][0]["reason"]


def test_a_change_in_the_kv_is_acted_on(lab: Lab) -> None:
    """Write to kernel on both nodes; the bound is loose here, because everything shares one CPU."""
    serve(lab)
    heavier = document(VIP)
    heavier["backends"]["b1"]["weight"] = 50
    at = time.monotonic()
    lab.put("web", heavier)
    until(lambda: all(len(set(rows.values())) == 2 for rows in weights(lab)), 5, "b1 weighs half")
    assert time.monotonic() - at < 1.0


@pytest.mark.parametrize("edit", [{"interval": "300ms"}, {"path": "/health?again"}, {"type": "tcp"}], ids=str)
def test_editing_the_check_of_a_healthy_service_costs_nothing(lab: Lab, edit: dict[str, Any]) -> None:
    serve(lab)
    updates = lab.router.all_updates()
    check = {**CHECK, **edit} if "type" not in edit else {"type": "tcp", "interval": "200ms"}
    with lab.client.load(VIP) as load:
        until(lambda: load.sent > 20, 5, "20 requests")
        lab.put("web", document(VIP, check=check))
        sent = load.sent
        until(lambda: load.sent > sent + 60, 15, "60 more requests")
    assert not load.failed, str(load)
    assert lab.router.all_updates() == updates


def test_a_service_put_again_is_checked_again(lab: Lab) -> None:
    """What was healthy once, or served before a restart, says nothing about a service that comes back later."""
    serve(lab)
    lab.lb1.daemon.kill()
    lab.lb1.daemon.start()
    lab.lb1.ready()
    lab.remove("web")
    for node in lab.nodes.values():
        node.until(lambda node=node: not node.ipvs() and not node.vips(), 5, "the service is gone")
    for backend in lab.backends.values():
        backend.fail()
    before = lab.router.all_updates()
    lab.put("web", document(VIP))
    for node in lab.nodes.values():
        node.until(lambda node=node: len(node.ipvs().get(f"tcp {VIP}:80", {})) == 3, 5, "the service is programmed")
    time.sleep(1)
    assert lab.router.all_updates() == before, "announced although every backend fails its check"


def test_everything_is_deleted_at_once(lab: Lab) -> None:
    """``consul kv delete -recurse anycastlb/``: noticed at once, and believed when it persists.

    Consul wakes no query for a part of what was deleted above it: the source watches the names above too.
    """
    lab.put("web", document(VIP, backends={}))
    for name in BACKENDS:
        lab.consul.put(f"anycastlb/services/web/backends/{name}", {"address": own(name), "check": CHECK})
    lab.settle(VIP)
    lab.consul.delete("anycastlb/services/web/backends/b3")
    lab.lb1.until(lambda: all(len(rows) == 2 for rows in weights(lab)), 5, "b3 has left both nodes")
    lab.consul.delete("anycastlb/", below=True)
    lab.router.until(VIP, set(), within=5)


def test_backend_keys_of_their_own_are_merged(lab: Lab) -> None:
    lab.put("web", document(VIP, backends={}))
    for name in BACKENDS:
        lab.consul.put(f"anycastlb/services/web/backends/{name}", {"address": own(name), "check": CHECK})
    lab.router.until(VIP, BOTH)
    lab.consul.delete("anycastlb/services/web/backends/b3")
    lab.lb1.until(lambda: all(len(rows) == 2 for rows in weights(lab)), 5, "b3 has left both nodes")
    assert set(lab.client.spread(40, VIP)) == {"b1", "b2"}


def test_a_removed_service_is_served_until_its_flows_have_ended(lab: Lab) -> None:
    serve(lab, port=7, drain="2s")
    with lab.client.open(20, VIP) as connections:
        lab.remove("web")
        lab.router.until(VIP, set())
        assert all(ip_address(str(VIP)) in node.vips() for node in lab.nodes.values())
        assert all(f"tcp {VIP}:7" in node.ipvs() for node in lab.nodes.values())
        assert len(connections.ports) == 20
    for node in lab.nodes.values():
        node.until(lambda node=node: not node.ipvs() and not node.vips(), 5, "the drained service is gone")


def test_a_hundred_reloads_write_nothing(lab: Lab) -> None:
    serve(lab)
    whole = document(VIP)
    nodes = list(lab.nodes.values())
    for node in nodes:
        node.until(lambda node=node: node.status()["pending"] == 0, 5, "nothing is left to do")
    before = [(node.total("anycastlb_changes_total"), node.ordered()) for node in nodes]
    running = [node.total("anycastlb_checks_running") for node in nodes]
    updates = lab.router.all_updates()
    index = [node.status()["catalog"]["index"] for node in nodes]
    checked = {name: backend.counts()["checks"] for name, backend in lab.backends.items()}
    at = time.monotonic()
    for round_ in range(50):
        lab.put("web", whole)
        for node in nodes:
            node.reload()
        if round_ % 10 == 0:
            assert [node.total("anycastlb_checks_running") for node in nodes] == running
    lab.put("last", "{}")  # no service, but proof that the nodes have read everything before it
    for node, seen in zip(nodes, index, strict=True):
        node.until(lambda node=node, seen=seen: node.status()["catalog"]["index"] > seen, 5, "the last write is read")
    took = time.monotonic() - at

    assert [(node.total("anycastlb_changes_total"), node.ordered()) for node in nodes] == before
    assert [node.total("anycastlb_checks_running") for node in nodes] == running == [3.0, 3.0]
    assert lab.router.all_updates() == updates
    for name, backend in lab.backends.items():  # restarted checks would have probed at every reload
        assert backend.counts()["checks"] - checked[name] <= 2 * (took / 0.2 + 3)


def test_the_commands_show_what_is(lab: Lab) -> None:
    serve(lab)
    shown = lab.lb1.cli("status").stdout
    assert str(VIP) in shown
    assert "b1" in shown
    assert str(VIP) in lab.lb1.cli("status", "--json").stdout
    lab.backends["b2"].fail()
    lab.lb1.until(lambda: 0 in weights(lab)[0].values(), 5, "b2 has weight 0")
    assert "503" in lab.lb1.cli("why", "web/b2").stdout
    assert lab.lb1.cli("plan").returncode == 0
