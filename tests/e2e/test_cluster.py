"""The nodes of a real cluster know of each other, and what that costs when one of them or Consul dies: nothing."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.lab import Lab, document
from tests.lab.node import Node
from tests.lab.process import until
from tests.lab.topology import own
from tests.support.two_nodes import BOTH, VIP, nodes, serve, together

EXPIRES = 20.0
"""Seconds in which Consul ends a session that nobody renews."""


@pytest.fixture
def lab(lab: Lab) -> Iterator[Lab]:
    """Both nodes know of each other, and nothing of what a test did to them is left."""
    together(lab)
    yield lab


def cluster(node: Node) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(node.http("/v1/nodes")[1])
    return found


def key(lab: Lab, name: str) -> dict[str, Any]:
    raw = lab.consul.value(f"anycastlb/nodes/{name}")
    return json.loads(raw)["status"] if raw else {}


def test_each_node_shows_what_both_announce(lab: Lab) -> None:
    serve(lab)
    for node, other in ((lab.lb1, lab.lb2), (lab.lb2, lab.lb1)):
        node.until(
            lambda node=node, other=other: nodes(node)[other.name]["vips"].get(str(VIP), {}).get("announced"),
            5,
            "it knows that the other announces",
        )
        found = nodes(node)
        assert list(found) == [node.name, other.name], "this node first"
        mine, theirs = found.values()
        assert mine["catalog"]["hash"] == theirs["catalog"]["hash"] != ""
        node.until(lambda node=node: len({view["digests"]["web"] for view in nodes(node).values()}) == 1, 5, "digests")
        assert theirs["services"]["web"][str(VIP)] == {"open": True, "up": 3, "total": 3, "down": []}
        assert {session["state"] for session in theirs["sessions"]} == {"up"}
        assert json.loads(node.http(f"/v1/nodes/{other.name}")[1])["name"] == other.name
        shown = node.cli("status").stdout
        assert "2 of 2 nodes alive" in shown
        assert f"also by {other.name}" in shown
        assert node.metrics()["anycastlb_cluster_peers_alive"] == 1
        assert node.metrics()[f'anycastlb_vip_announcers{{vip="{VIP}"}}'] == 2
    status, body = lab.lb1.http("/v1/nodes/lb9")
    assert status == 404 and json.loads(body)["error"]["what"] == "there is no node 'lb9'"


def test_a_quiet_cluster_writes_nothing(lab: Lab) -> None:
    serve(lab)
    time.sleep(3)

    def written() -> list[int]:
        rows = json.loads(lab.consul._call("GET", "/v1/kv/anycastlb/nodes/?recurse"))
        return [row["ModifyIndex"] for row in rows]

    before = written()
    time.sleep(8)
    assert written() == before


def test_a_node_killed_for_good_is_shown_gone(lab: Lab) -> None:
    serve(lab)
    lab.lb2.daemon.kill()
    at = time.monotonic()
    lab.lb1.until(lambda: not nodes(lab.lb1)["lb2"]["alive"], EXPIRES + 10, "lb2 is gone")
    assert time.monotonic() - at <= EXPIRES + 3
    shown = lab.lb1.cli("status").stdout
    assert "1 of 2 nodes alive" in shown and "lb2  gone for" in shown
    assert lab.lb1.metrics()["anycastlb_cluster_peers_alive"] == 0
    lab.lb2.start()
    together(lab)


def test_a_stopped_node_takes_its_status_away_at_once(lab: Lab) -> None:
    serve(lab, drain="4s")
    lab.lb2.daemon.signal(signal.SIGTERM)
    lab.lb1.until(lambda: nodes(lab.lb1)["lb2"]["stopping"], 5, "lb2 says that it is stopping")
    until(lambda: not lab.lb2.daemon.running, 15, "lb2 has stopped")
    assert lab.consul.value("anycastlb/nodes/lb2") is None
    lab.lb1.until(lambda: not nodes(lab.lb1)["lb2"]["alive"], 3, "lb2 is gone")


@pytest.mark.parametrize("how", [signal.SIGUSR1, signal.SIGKILL])
def test_the_next_process_of_a_node_keeps_its_key(lab: Lab, how: signal.Signals) -> None:
    """Handing over, and a crash with a quick restart: for the others the node was never away and always announced."""
    serve(lab)
    lab.lb1.until(lambda: nodes(lab.lb1)["lb2"]["vips"].get(str(VIP), {}).get("announced"), 5, "lb2 announces")
    started = key(lab, "lb2")["started"]
    lab.lb2.daemon.signal(how)
    until(lambda: not lab.lb2.daemon.running, 5, "the daemon has ended")
    lab.lb2.daemon.start()
    end = time.monotonic() + 30
    while (now := key(lab, "lb2"))["started"] == started:
        assert now["vips"][str(VIP)]["announced"]
        assert nodes(lab.lb1)["lb2"]["alive"]
        assert time.monotonic() < end, "the next process never published"
        time.sleep(0.1)
    assert now["vips"][str(VIP)]["announced"], "it published before it knew its own routes"
    assert now["ready"]
    assert nodes(lab.lb1)["lb2"]["alive"]
    events = json.loads(lab.lb1.http("/v1/events")[1])["events"]
    assert [event["after"] for event in events if event["kind"] == "peer"][-1] == "alive", "it was seen to go"


def test_without_consul_both_keep_serving_and_say_so(lab: Lab) -> None:
    serve(lab)
    updates = lab.router.all_updates()
    with lab.client.load(VIP) as load:
        lab.consul.kill()
        for node in lab.nodes.values():
            node.until(lambda node=node: not cluster(node)["connected"], 10, "it says that Consul is away")
        time.sleep(EXPIRES + 5)  # longer than any session lives
        for node in lab.nodes.values():
            assert all(view["alive"] for view in nodes(node).values()), "the last known view stays"
            assert cluster(node)["error"]
            assert "NOT CONNECTED" in node.cli("status").stdout
        lab.consul.start()
        lab.consul.ready()
        for node in lab.nodes.values():
            node.until(lambda node=node: cluster(node)["connected"], 20, "it follows the others again")
        time.sleep(3)
        together(lab)
    assert not load.failed, str(load)
    assert lab.router.all_updates() == updates and lab.router.routes(VIP) == BOTH


def test_a_table_that_somebody_turned_is_named_until_it_is_mended(lab: Lab) -> None:
    """Equal catalogs, and one node sees a backend dead that the other sees alive: their tables differ, and it shows."""
    serve(lab)
    lab.lb1.namespace.run("ip", "route", "add", "blackhole", f"{own('b3')}/32")
    try:
        lab.lb1.until(lambda: cluster(lab.lb1)["differs"], 15, "the difference is told")
        (told,) = cluster(lab.lb1)["differs"]
        assert told["service"] == "web"
        assert sorted(map(sorted, told["nodes"].values())) == [["lb1"], ["lb2"]]
        assert "DIFFER web" in lab.lb1.cli("status").stdout
        assert nodes(lab.lb2)["lb1"]["services"]["web"][str(VIP)]["down"] == ["b3"]
    finally:
        lab.lb1.namespace.run("ip", "route", "del", "blackhole", f"{own('b3')}/32")
    for node in lab.nodes.values():
        node.until(lambda node=node: not cluster(node)["differs"], 10, "the tables are one again")


def test_two_nodes_with_one_name(lab: Lab) -> None:
    """The second goes on serving, and says what is wrong."""
    serve(lab)
    lab.lb2.daemon.signal(signal.SIGUSR1)
    until(lambda: not lab.lb2.daemon.running, 5, "the daemon has ended")
    text = lab.lb2.settings.read_text()
    lab.lb2.settings.write_text(text.replace('name = "lb2"', 'name = "lb1"'))
    try:
        lab.lb2.start()
        lab.lb2.ready()
        lab.lb2.until(lambda: lab.lb2.status()["problems"], EXPIRES + 40, "it says that its name is taken")
        (problem,) = lab.lb2.status()["problems"]
        assert problem["key"] == "nodes/lb1" and "set another [node] name" in problem["expected"]
        assert lab.router.routes(VIP) == BOTH
        lab.put("web", document(VIP, backends={"b1": {"address": own("b1")}}))
        lab.lb2.until(lambda: len(lab.lb2.ipvs()[f"tcp {VIP}:80"]) == 1, 5, "it goes on following the catalog")
    finally:
        lab.lb2.settings.write_text(text)
        lab.lb2.daemon.end()
        lab.lb2.start()
    lab.lb1.until(lambda: "lb2" in nodes(lab.lb1), 30, "lb2 is lb2 again")
