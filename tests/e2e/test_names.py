"""The names of a real cluster, at a real name server and in a real Consul."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.http import get
from tests.lab.lab import Lab, document
from tests.lab.process import until
from tests.lab.topology import CONSUL
from tests.support.name_servers import ZONE, NameServer
from tests.support.two_nodes import VIP

NAMES = """
[dns]
server = "{server}"
zone = "{zone}"
subdomain = "lb"
tsig_key_file = "{key}"
refresh = "2s"
"""


@pytest.fixture
def server(lab: Lab, require: Callable[[str], str], tmp_path: Path) -> Iterator[NameServer]:
    """A name server beside Consul; both nodes publish names there, and register their services."""
    server = NameServer(require("knotd"), tmp_path, CONSUL, 53, lab.topology.consul)
    server.start()
    names = NAMES.format(server=CONSUL, zone=ZONE, key=server.key_file)
    edits = ("[consul]\n", f"{names}\n[consul]\nregister_services = true\n")
    try:
        with lab.lb1.changed(edits), lab.lb2.changed(edits):
            yield server
            lab.remove("web")
    finally:
        server.kill()


def states(lab: Lab) -> dict[str, str]:
    """Of the instances of ``anycastlb-web`` that Consul knows: node -> state of its check."""
    instances: list[Any] = json.loads(get(lab.topology.consul, CONSUL, 8500, "/v1/health/service/anycastlb-web")[1])
    return {
        entry["Service"]["Meta"]["anycastlb-node"]: check["Status"]
        for entry in instances
        for check in entry["Checks"]
        if check["ServiceID"] == entry["Service"]["ID"]
    }


def test_names_follow_what_the_cluster_announces(lab: Lab, server: NameServer) -> None:
    lab.put("web", {**document(VIP), "dns": {"name": "www", "srv": "_http._tcp"}})
    lab.settle(VIP)
    until(lambda: server.dig("www.lb") == [str(VIP)], "the name is published")
    until(lambda: server.dig("_http._tcp.www.lb", "SRV") == [f"0 0 80 www.lb.{ZONE}."], "and its SRV record")
    until(lambda: states(lab) == {"lb1": "passing", "lb2": "passing"}, "both nodes are registered")
    shown = f"DNS zone {ZONE} at {CONSUL} · 2 records"
    until(lambda: shown in lab.lb1.cli("status").stdout, "the other node has seen them too")
    chain = lab.lb1.cli("why", str(VIP)).stdout
    assert f"www.lb.{ZONE}. A {VIP}" in chain and "consul anycastlb-web" in chain

    lab.consul.put("anycastlb/drain/lb1", {})
    lab.router.until(VIP, {"lb2"})
    until(lambda: states(lab) == {"lb1": "critical", "lb2": "passing"}, "one of them is critical")
    for node in lab.nodes.values():  # both have looked at the zone since
        looked = node.metrics()["anycastlb_reconcile_cycles_total"]
        node.until(lambda n=node, c=looked: n.metrics()["anycastlb_reconcile_cycles_total"] >= c + 4, "cycles")
    assert server.dig("www.lb") == [str(VIP)], "lb2 announces it still"

    for backend in lab.backends.values():
        backend.fail()
    lab.router.until(VIP, set())
    until(lambda: not server.dig("www.lb") and not server.dig("_http._tcp.www.lb", "SRV"), "the name is gone")
    assert not server.dig("_anycastlb.www.lb", "TXT"), "and nothing of ours is left"

    for backend in lab.backends.values():
        backend.restore()
    until(lambda: server.dig("www.lb") == [str(VIP)], "it returns with the backends")
    server.kill()  # a dead name server costs nothing but the name
    lab.consul.delete("anycastlb/drain/lb1")
    lab.settle(VIP)
    for backend in lab.backends.values():
        backend.fail()
    lab.router.until(VIP, set())
    assert all(node.http("/readyz")[0] == 200 for node in lab.nodes.values())
    lab.lb2.until(lambda: lab.lb2.metrics()['anycastlb_names_up{table="dns_records"}'] == 0, "it says so")
    for backend in lab.backends.values():
        backend.restore()
    server.start()  # empty: it keeps nothing
    until(lambda: server.dig("www.lb") == [str(VIP)], "the name is published anew")
