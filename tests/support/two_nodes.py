"""The lab's two nodes with one service, and what tests of the whole ask of them."""

from __future__ import annotations

import json
from typing import Any

from tests.lab.lab import Lab, document
from tests.lab.node import Node
from tests.lab.topology import vip

BOTH = {"lb1", "lb2"}


VIP = vip(0)


FRESH = {"flows": 10, "metrics": 13, "probes": 14}
"""Numbers of VIPs that no other test uses than the one that reads the kernel's counters there; it takes three from the
first. The kernel remembers a deleted destination for some minutes, and one that is added again begins its counters with
what was counted after the last reading of its former life."""


DETECTION = 0.2 * 3 + 1.0
"""interval x fall + timeout of the lab's check, seconds."""


def serve(lab: Lab, number: int = 0, version: int = 4, **more: Any) -> None:
    """Put the service ``web`` and wait until both nodes serve it with every backend."""
    lab.put("web", document(vip(number, version), **more))
    lab.settle(vip(number, version))


def weights(lab: Lab, service: str = f"tcp {VIP}:80") -> list[dict[str, int]]:
    return [node.ipvs().get(service, {}) for node in lab.nodes.values()]


def nodes(node: Node) -> dict[str, dict[str, Any]]:
    status, body = node.http("/v1/nodes")
    assert status == 200, body
    return {view["name"]: view for view in json.loads(body)["nodes"]}


def together(lab: Lab) -> None:
    for node in lab.nodes.values():
        node.until(
            lambda node=node: [view["alive"] and view["ready"] for view in nodes(node).values()] == [True, True],
            "it knows both nodes as alive and ready",
        )
