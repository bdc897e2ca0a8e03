"""IPVS in front of the HAProxies of all nodes of a gateway: a connection stays with its HAProxy, whichever node the
router sends it to. Each connection is kept alive and speaks again; every answer is counted.

``python -m tests.bench.tiers`` does the same at the size that was asked for: three nodes and 300 connections.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from anycastlb.settings import HttpSettings
from tests.lab.haproxy import NodeHaproxy
from tests.lab.lab import Lab
from tests.lab.tiers import VIP, KeptAlive, driven, equal, marks, serve, served_by, takers
from tests.lab.topology import own
from tests.support.two_nodes import BOTH

SECURE = {80: 40, 443: 20}
MARK = str(HttpSettings().marks[0])


@pytest.fixture(scope="module")
def tiers(running_lab: Lab, require: Callable[[str], str]) -> Iterator[dict[str, NodeHaproxy]]:
    running_lab.reset()
    program = require("haproxy-13")
    with tempfile.TemporaryDirectory(prefix="alb.") as folder, driven(running_lab, Path(folder), program) as tiers:
        yield tiers
        running_lab.reset()  # while the nodes know yet what is theirs


@pytest.fixture
def lab(running_lab: Lab, tiers: dict[str, NodeHaproxy]) -> Iterator[Lab]:
    running_lab.reset()
    yield running_lab
    for haproxy in tiers.values():
        haproxy.end()


def test_what_a_node_serves_outlives_every_move_of_the_routes(lab: Lab, tiers: dict[str, NodeHaproxy]) -> None:
    """R23, and the same by TLS."""
    serve(lab, tiers, secure=True)
    with closing(KeptAlive(lab, SECURE)) as kept:
        every, of_lb1, of_lb2 = kept.every, served_by(lab.lb1, kept), served_by(lab.lb2, kept)
        assert of_lb1 | of_lb2 == every
        assert {port for port, _ in of_lb1} == {port for port, _ in of_lb2} == set(SECURE), "each serves some of both"
        lab.lb1.cli("drain", "lb1")
        lab.router.until(VIP, {"lb2"})
        assert kept.alive() == every, "the routes of lb1 are gone, and it serves on what it served"
        lab.lb1.cli("undrain", "lb1")
        lab.router.until(VIP, BOTH)
        assert kept.alive() == every, "the routes are back"
        lab.lb2.die()
        tiers["lb2"].kill()
        lab.router.until(VIP, {"lb1"})
        assert kept.alive(of_lb1) == of_lb1, "only what lb2 served dies with it"
        left = {own("lb1"): 100, own("lb2"): 0}
        lab.lb1.until(lambda: takers(lab.lb1) == [left, left], "lb2 gets nothing new")
        with closing(KeptAlive(lab, SECURE)) as new:
            assert served_by(lab.lb1, new) == new.every
    lab.lb2.revive()


def test_without_sharing_a_move_of_the_routes_breaks_what_it_moves(lab: Lab, tiers: dict[str, NodeHaproxy]) -> None:
    """What the first test is compared with: each HAProxy serves what the router sends to its own node."""
    serve(lab, tiers, spread="none")
    assert not marks(lab.lb1)
    with closing(KeptAlive(lab)) as kept:
        of_lb1 = served_by(lab.lb1, kept)
        lab.lb1.cli("drain", "lb1")
        lab.router.until(VIP, {"lb2"})
        assert of_lb1
        assert kept.alive() == kept.every - of_lb1


def test_while_tables_differ_no_connection_is_lost(lab: Lab, tiers: dict[str, NodeHaproxy]) -> None:
    """By hand each node is told to send everything to the other: what came through a tunnel is not sent on again."""
    serve(lab, tiers)
    for node in lab.nodes.values():
        node.daemon.freeze()
    try:
        for node in lab.nodes.values():
            node.namespace.run("ipvsadm", "-e", "-f", MARK, "-r", own(node.name), "-i", "-w", "0")
        with closing(KeptAlive(lab)) as kept:
            assert kept.alive() == kept.every
            assert served_by(lab.lb1, kept) | served_by(lab.lb2, kept) == kept.every
    finally:
        for node in lab.nodes.values():
            node.daemon.thaw()
    for node in lab.nodes.values():
        node.until(lambda node=node: takers(node) == [equal(lab)], f"{node.name} has repaired its table")
