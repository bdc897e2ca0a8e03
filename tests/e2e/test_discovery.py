"""Whole nodes on a real kernel: what Consul names is served, and what it forgets is drained.

How instances are followed is proven on a real Consul and real name servers, in ``tests/parts/test_discovery.py``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.lab.lab import Lab, document
from tests.lab.node import Node
from tests.lab.topology import own
from tests.support.two_nodes import VIP


def register(lab: Lab, *names: str, status: str = "passing") -> None:
    for name in names:
        service = {"ID": name, "Service": "web", "Address": own(name), "Port": 80, "Weights": {"Passing": 10}}
        check = {"CheckID": f"c-{name}", "ServiceID": name, "Status": status}
        entry = {"Node": f"host-{name}", "Address": own(name), "Service": service, "Check": check}
        lab.consul._call("PUT", "/v1/catalog/register", json.dumps(entry).encode())


def forget(lab: Lab, *names: str) -> None:
    operations = [{"Node": {"Verb": "delete", "Node": {"Node": f"host-{name}"}}} for name in names]
    lab.consul._call("PUT", "/v1/txn", json.dumps(operations).encode())


def both(lab: Lab, what: Callable[[Node], Any], told: str) -> None:
    for node in lab.nodes.values():
        node.until(lambda node=node: what(node), told)  # type: ignore[misc]


def test_from_consul(lab: Lab) -> None:
    def weights(node: Node) -> dict[str, int]:
        return node.ipvs().get(f"tcp {VIP}:80", {})

    wanted = {"consul": {"service": "web"}}
    register(lab, "b1", "b2")
    lab.put("web", document(VIP, backends={}, backends_from=wanted))
    lab.settle(VIP)
    assert set(lab.client.spread(40, VIP)) == {"b1", "b2"}
    register(lab, "b3")
    both(lab, lambda node: sorted(weights(node).values()) == [10, 10, 10], "three serve")
    assert set(lab.client.spread(60, VIP)) == {"b1", "b2", "b3"}
    forget(lab, "b2")
    both(lab, lambda node: len(weights(node)) == 2, "the forgotten one is drained and deleted")
    lab.consul.kill()
    lab.lb1.reload()
    both(lab, lambda node: not node.status()["catalog"]["connected"], "it says that Consul is away")
    assert set(lab.client.spread(40, VIP)) == {"b1", "b3"}
    lab.consul.start()
    lab.consul.ready()
    register(lab, "b1", "b3", status="critical")
    lab.router.until(VIP, set())
    both(lab, lambda node: not weights(node), "all are drained and deleted")
    (problem,) = lab.lb1.status()["problems"]
    assert (problem["key"], problem["path"]) == ("services/web", "backends_from")
    assert "none of the 2 of 'web' passes its checks" in problem["expected"]
    register(lab, "b1", "b3")
    lab.settle(VIP)
    lab.lb2.daemon.kill()  # the kernel's tables stay
    dry = lab.lb2.cli("plan").stdout
    assert "route" in dry and "destination" not in dry, dry
    forget(lab, "b1")
    dry = lab.lb2.cli("plan").stdout
    assert "10.1.0.1:80" in dry and "10.1.0.3:80" not in dry, dry
    lab.lb2.start()
    lab.lb2.ready()
    forget(lab, "b3")
