"""Somebody changes the kernel by hand: what is ours is repaired within one resync, what is not ours stays."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.lab import lateness
from tests.lab.lab import Lab, document
from tests.lab.node import Node
from tests.lab.process import until
from tests.lab.topology import own, vip
from tests.support.two_nodes import BOTH, VIP, serve

RESYNC = 1.0
"""``[node] resync`` of the lab's nodes, seconds."""


def ipvsadm(*words: str) -> Callable[[Node], str]:
    return lambda node: node.namespace.run("ipvsadm", *words)


SERVICE = ("-t", f"{VIP}:80")
DRIFTS = {
    "vip deleted": lambda node: node.namespace.ip(f"addr del {VIP}/32 dev lo"),
    "service deleted": ipvsadm("-D", *SERVICE),
    "destination deleted": ipvsadm("-d", *SERVICE, "-r", f"{own('b2')}:80"),
    "weight changed": ipvsadm("-e", *SERVICE, "-r", f"{own('b2')}:80", "-i", "-w", "77"),
    "weight set to 0": ipvsadm("-e", *SERVICE, "-r", f"{own('b1')}:80", "-i", "-w", "0"),
    "scheduler changed": ipvsadm("-E", *SERVICE, "-s", "rr"),
    "forwarding changed": ipvsadm("-e", *SERVICE, "-r", f"{own('b3')}:80", "-g", "-w", "1"),
    "destination added": ipvsadm("-a", *SERVICE, "-r", "10.1.0.99:80", "-i", "-w", "1"),
    "everything flushed": ipvsadm("-C"),
}


@pytest.fixture(scope="module")
def served(running_lab: Lab) -> Lab:
    """One service for all rows: each of them ends where it began."""
    running_lab.reset()
    serve(running_lab)
    return running_lab


def resyncs(node: Node, count: int = 2) -> None:
    """Wait until the node has looked at its kernel so many times more, by its own count."""
    looked = node.total("anycastlb_reconcile_cycles_total")
    node.until(lambda: node.total("anycastlb_reconcile_cycles_total") >= looked + count, f"{count} more looks")


@pytest.mark.parametrize("drift", DRIFTS)
def test_drift_is_repaired_within_one_resync(served: Lab, drift: str) -> None:
    lab, node = served, served.lb1
    node.until(lambda: node.status()["pending"] == 0, "nothing is left to do")
    updates = lab.router.all_updates()
    before, changes = (node.ipvs(), node.vips(), node.ordered()), node.total("anycastlb_changes_total")

    DRIFTS[drift](node)
    since = lateness.now()
    node.until(lambda: (node.ipvs(), node.vips(), node.ordered()) == before, f"repaired: {drift}")
    lateness.kept(RESYNC + 0.5, since, f"repaired: {drift}")

    until(lambda: node.total("anycastlb_changes_total") > changes, "the repair is counted")
    assert node.ordered() == lab.lb2.ordered(), "repaired in another order than the other node's"
    assert lab.router.all_updates() == updates
    assert set(lab.client.spread(30, VIP)) == {"b1", "b2", "b3"}


def foreign(node: Node) -> list[str]:
    """What is on the node that is not ours, as the kernel's own tools show it."""
    entries = node.namespace.run("ipvsadm", "-Sn").splitlines()
    addresses = node.namespace.run("ip", "-br", "addr", "show", "dev", "lo")
    ours = (str(VIP), str(vip(1)))
    return sorted(line for line in entries if not any(f" {item}:" in line for item in ours)) + [
        word for word in addresses.split() if "/" in word and not word.startswith(tuple(f"{item}/" for item in ours))
    ]


def test_foreign_entries_are_never_touched(lab: Lab) -> None:
    serve(lab)
    node = lab.lb1
    add = [
        ("-A", "-f", "7", "-s", "rr"),
        ("-a", "-f", "7", "-r", own("b1"), "-g", "-w", "3"),
        ("-A", "-t", "198.51.100.1:80", "-s", "lblcr"),
        ("-a", "-t", "198.51.100.1:80", "-r", "10.1.0.50:80", "-m", "-w", "9"),
        ("-A", "-u", "[2001:db8:ffff::1]:53", "-s", "sed"),
    ]
    for words in add:
        node.namespace.run("ipvsadm", *words)
    node.namespace.ip("addr add 192.0.2.200/32 dev lo", "addr add 2001:db8:2::200/128 dev lo nodad")
    theirs = foreign(node)
    assert len(theirs) >= len(add) + 2

    try:
        resyncs(node)
        assert foreign(node) == theirs
        lab.put("more", document(vip(1)))  # our own entries change around them
        lab.router.until(vip(1), BOTH)
        lab.remove("more")
        lab.router.until(vip(1), set())
        node.until(lambda: vip(1) not in node.vips(), "the removed VIP is gone")
        assert foreign(node) == theirs
        lab.lb1.daemon.stop()
        assert foreign(node) == theirs
        assert vip(0) not in node.vips()
    finally:
        node.namespace.run("ipvsadm", "-C")
        node.namespace.ip("addr del 192.0.2.200/32 dev lo", "addr del 2001:db8:2::200/128 dev lo", check=False)


def test_a_vip_somebody_else_put_there_is_not_announced_by_us(lab: Lab) -> None:
    """The address exists without our mark: it is not ours to use or to delete, and the operator is told."""
    node = lab.lb1
    node.namespace.ip(f"addr add {VIP}/32 dev lo")
    try:
        lab.put("web", document(VIP))
        lab.router.until(VIP, {"lb2"})
        resyncs(node)
        assert lab.router.routes(VIP) == {"lb2"}
        assert [item["vip"] for item in node.status()["vips"] if not item["open"]] == [str(VIP)]
    finally:
        node.namespace.ip(f"addr del {VIP}/32 dev lo", check=False)
    lab.router.until(VIP, BOTH)
