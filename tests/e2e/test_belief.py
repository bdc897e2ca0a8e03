"""What a node makes of its peers' word, on real parts: one node cut off from the backends, and all backends dead.

The rules themselves are told in virtual time, in ``tests/scenario/test_peer_health_stories.py``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab import lateness
from tests.lab.lab import Lab, document
from tests.lab.node import Node
from tests.lab.topology import BACKENDS, own, vip
from tests.support.two_nodes import BOTH, DETECTION, VIP, nodes, serve, together

KEPT, LAST = vip(1), vip(2)


@pytest.fixture
def lab(lab: Lab) -> Iterator[Lab]:
    together(lab)
    yield lab


@contextmanager
def cut_off(node: Node) -> Iterator[float]:
    """The node reaches no backend any more, and everything else; when it began."""
    routes = [f"blackhole {own(name)}/32" for name in BACKENDS]
    node.namespace.ip(*(f"route add {route}" for route in routes))
    try:
        yield lateness.now()
    finally:
        node.namespace.ip(*(f"route del {route}" for route in routes))


def reason(node: Node, address: object = VIP) -> str:
    return next(str(item["reason"]) for item in node.status()["vips"] if item["vip"] == str(address))


def test_a_node_cut_off_from_all_backends_steps_aside(lab: Lab) -> None:
    """Its route goes at once, also one that it would keep; its table stays its peers', and it comes back with it."""
    lab.put("kept", document(KEPT, announce={"fail": "keep"}))
    serve(lab)
    lab.settle(KEPT)
    table = lab.lb2.ordered()
    with lab.client.load(VIP) as load:
        with cut_off(lab.lb1) as since:
            lab.router.until(VIP, {"lb2"})
            gone = time.monotonic()
            lateness.kept(DETECTION + 0.5, since, "the route of the node that is cut off left")
            lab.router.until(KEPT, {"lb2"})
            for address in (VIP, KEPT):
                told = "0/3 backends up; 1 of 1 peers reach these backends"
                lab.lb1.until(lambda a=address, told=told: told in reason(lab.lb1, a), "it knows why")
            lab.lb1.until(lambda: lab.lb1.ordered() == table, "its table is its peers'")
            assert "1 of 1 peers reach these backends" in lab.lb1.cli("why", str(VIP)).stdout
            assert not nodes(lab.lb1)["lb1"]["vips"][str(VIP)]["open"]
            assert lab.router.routes(VIP) == {"lb2"}
        lab.router.until(VIP, BOTH)
        assert lab.lb1.ordered() == table, "it opened before all its backends were back"
        lab.router.until(KEPT, BOTH)
    assert lab.lb2.ordered() == table
    late = [failed for failed in load.failed if failed.at > gone + 0.2]
    assert not late, f"{late[:3]}; {load}"


def test_backends_that_are_really_dead_and_what_policy_makes_of_it(lab: Lab) -> None:
    """Withdrawn everywhere by default; kept everywhere without a flap with ``fail: keep``; one route with ``last``."""
    lab.put("kept", document(KEPT, announce={"fail": "keep"}))
    lab.put("last", document(LAST, announce={"last": "keep"}))
    serve(lab)
    lab.settle(KEPT, LAST)
    with lab.router.always(LAST):
        for backend in lab.backends.values():
            backend.fail()
        lab.router.until(LAST, {"lb1"})
    lab.router.until(VIP, set())
    updates = lab.router.all_updates()
    for node in lab.nodes.values():
        node.until(lambda node=node: reason(node) == "0/3 backends up, needs 1", "everybody sees the same")
        node.until(lambda node=node: not any(node.ipvs()[f"tcp {VIP}:80"].values()), "nobody is believed in")
        node.until(lambda node=node: reason(node, KEPT).endswith("kept open (fail = keep)"), "the wait is over")
        assert all(node.ipvs()[f"tcp {KEPT}:80"].values())
    lab.lb1.until(lambda: "kept as the last route" in reason(lab.lb1, LAST), "it has the last route for good")
    closed = "0/3 backends up, needs 1; lb1 keeps the last route"
    lab.lb2.until(lambda: reason(lab.lb2, LAST) == closed, "why it is closed")
    assert all(lab.lb1.ipvs()[f"tcp {LAST}:80"].values())
    assert lab.client.get(LAST) in BACKENDS, "it serves whoever is alive all the same"
    assert [event["after"] for event in lab.lb1.events("kept") if event["subject"] == str(LAST)][-1] == "last"
    assert lab.lb1.metrics()[f'anycastlb_vip_kept{{vip="{LAST}",why="last"}}'] == 1
    assert lab.router.routes(KEPT) == BOTH and lab.router.routes(LAST) == {"lb1"}
    assert lab.router.all_updates() == updates, "it flapped once all was said"
    for backend in lab.backends.values():
        backend.restore()
    lab.settle(VIP, KEPT, LAST)
