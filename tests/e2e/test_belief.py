"""What a node makes of its peers' word, on real parts: cut off from the backends, all backends dead, the last route."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from anycastlb.core.model import Address
from tests.lab.lab import Lab, document
from tests.lab.node import Node
from tests.lab.topology import BACKENDS, own, vip
from tests.support.two_nodes import BOTH, DETECTION, VIP, nodes, serve, together

KEPT = vip(1)
SETTLES = 0.4 + 3.0 + 5.0
"""Seconds until a node trusts its peers' word against its own policy, and a generous rest for one CPU."""


@pytest.fixture
def lab(lab: Lab) -> Iterator[Lab]:
    together(lab)
    yield lab


@contextmanager
def cut_off(node: Node) -> Iterator[float]:
    """The node reaches no backend any more, and everything else; when it began (``time.monotonic()``)."""
    routes = [f"blackhole {own(name)}/32" for name in BACKENDS]
    node.namespace.ip(*(f"route add {route}" for route in routes))
    try:
        yield time.monotonic()
    finally:
        node.namespace.ip(*(f"route del {route}" for route in routes))


def reason(node: Node, address: object = VIP) -> str:
    return next(str(item["reason"]) for item in node.status()["vips"] if item["vip"] == str(address))


def test_a_node_cut_off_from_all_backends_steps_aside(lab: Lab) -> None:
    """Its route goes at once, its table stays its peers', and it comes back without a table of its own."""
    serve(lab)
    table = lab.lb2.ordered()
    with lab.client.load(VIP) as load:
        with cut_off(lab.lb1) as at:
            lab.router.until(VIP, {"lb2"})
            gone = time.monotonic()
            assert gone - at <= DETECTION + 0.5
            lab.lb1.until(lambda: "0/3 backends up; 1 of 1 peers reach these backends" in reason(lab.lb1), 5, "why")
            lab.lb1.until(lambda: lab.lb1.ordered() == table, SETTLES, "its table is its peers'")
            assert "1 of 1 peers reach these backends" in lab.lb1.cli("why", str(VIP)).stdout
            assert not nodes(lab.lb1)["lb1"]["vips"][str(VIP)]["open"]
            assert lab.router.routes(VIP) == {"lb2"}
        lab.router.until(VIP, BOTH)
        assert lab.lb1.ordered() == table, "it opened before all its backends were back"
    assert lab.lb2.ordered() == table
    late = [failed for failed in load.failed if failed.at > gone + 0.2]
    assert not late, f"{late[:3]}; {load}"


def test_backends_that_are_really_dead_and_what_policy_makes_of_it(lab: Lab) -> None:
    """Withdrawn everywhere by default; kept everywhere without a flap with ``fail: keep``; one route with ``last``."""
    lab.put("kept", document(KEPT, announce={"fail": "keep"}))
    serve(lab)
    lab.settle(KEPT)
    updates = lab.router.all_updates()
    for backend in lab.backends.values():
        backend.fail()
    lab.router.until(VIP, set())
    for node in lab.nodes.values():
        node.until(lambda node=node: reason(node) == "0/3 backends up, needs 1", 10, "everybody sees the same")
        node.until(lambda node=node: not any(node.ipvs()[f"tcp {VIP}:80"].values()), 5, "nobody is believed in")
        node.until(lambda node=node: reason(node, KEPT).endswith("kept open (fail = keep)"), 10, "the wait is over")
        assert all(node.ipvs()[f"tcp {KEPT}:80"].values())
    time.sleep(1)  # whatever had been decided on old news would have shown
    assert lab.router.routes(KEPT) == BOTH
    now = lab.router.all_updates()
    assert [now[name][0] - updates[name][0] for name in now] == [0, 0], "announced anew: it had flapped"
    for backend in lab.backends.values():
        backend.restore()
    lab.settle(VIP, KEPT)


def test_a_node_cut_off_closes_what_it_would_keep_open(lab: Lab) -> None:
    lab.put("kept", document(KEPT, announce={"fail": "keep"}))
    lab.settle(KEPT)
    with cut_off(lab.lb1):
        lab.router.until(KEPT, {"lb2"}, within=DETECTION + SETTLES)
        assert reason(lab.lb1, KEPT) == "0/3 backends up; 1 of 1 peers reach these backends"
    lab.router.until(KEPT, BOTH)


def test_the_last_route_is_kept_by_one_and_given_back(lab: Lab) -> None:
    serve(lab, announce={"last": "keep"})
    for backend in lab.backends.values():
        backend.fail()
    end = time.monotonic() + DETECTION + SETTLES
    while lab.router.routes(VIP) != {"lb1"}:
        assert lab.router.routes(VIP), "a moment without a route"
        assert time.monotonic() < end
    lab.lb1.until(lambda: "kept as the last route" in reason(lab.lb1), SETTLES, "it has the last route for good")
    lab.lb2.until(
        lambda: reason(lab.lb2) == "0/3 backends up, needs 1; lb1 keeps the last route", 3, "why it is closed"
    )
    assert all(lab.lb1.ipvs()[f"tcp {VIP}:80"].values())
    assert lab.client.get(VIP) in BACKENDS, "it serves whoever is alive all the same"
    events = json.loads(lab.lb1.http("/v1/events")[1])["events"]
    assert [event["after"] for event in events if event["kind"] == "kept"][-1] == "last"
    assert lab.lb1.metrics()[f'anycastlb_vip_kept{{vip="{VIP}",why="last"}}'] == 1

    lab.lb1.daemon.kill()
    lab.lb1.exabgp.kill()
    lab.router.until(VIP, {"lb2"}, within=40)
    for backend in lab.backends.values():
        backend.restore()
    lab.lb1.start()
    lab.ready()
    lab.settle(VIP)


@contextmanager
def limited(lab: Lab, most: int) -> Iterator[None]:
    """Every node with ``[cluster] max_withdrawals``, taken over by a process that has read it."""
    before = {node: node.settings.read_text() for node in lab.nodes.values()}
    try:
        for node, text in before.items():
            node.settings.write_text(f"{text}\n[cluster]\nmax_withdrawals = {most}\n")
            node.hand_over()
        yield
    finally:
        for node, text in before.items():
            node.settings.write_text(text)
            node.hand_over()


def test_no_more_is_withdrawn_within_a_minute_than_the_cluster_allows(lab: Lab) -> None:
    """Two VIPs lose all their backends at once, and one may go: the other stays, loudly, and both come back."""
    with limited(lab, 1):
        serve(lab)
        lab.put("other", document(KEPT))
        lab.settle(VIP, KEPT)
        for backend in lab.backends.values():
            backend.fail()
        kept = lab.lb1.until(lambda: _held(lab), 2 * SETTLES, "both nodes hold the same VIP")
        (gone,) = {VIP, KEPT} - {kept}
        lab.router.until(gone, set())
        assert lab.router.routes(kept) == BOTH
        events = json.loads(lab.lb1.http("/v1/events")[1])["events"]
        levels = {event["level"] for event in events if event["kind"] == "kept" and event["after"] == "limit"}
        assert levels == {"error"}
        told = f'anycastlb_vip_kept{{vip="{kept}",why="limit"}}'
        lab.lb1.until(lambda: lab.lb1.metrics().get(told) == 1, SETTLES, "the metric says so")
        for backend in lab.backends.values():
            backend.restore()
        lab.settle(VIP, KEPT)


def _held(lab: Lab) -> Address | None:
    """The VIP whose withdrawal waits on every node."""
    for address in (VIP, KEPT):
        if all("its withdrawal waits: 1 VIPs" in reason(node, address) for node in lab.nodes.values()):
            return address
    return None
