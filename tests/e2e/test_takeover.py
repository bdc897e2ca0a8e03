"""Nodes come and go under long-lived connections and a stream of requests in every way: nothing breaks.

How it is counted: see ``tests.lab.traffic``. What is printed is the figure of each step: the packets that were lost and
sent again, and for how long that went on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from itertools import product

import pytest

from anycastlb.core.model import Address
from tests.lab.lab import CHECK, Lab, document
from tests.lab.node import Node
from tests.lab.server import ECHO
from tests.lab.topology import vip
from tests.lab.traffic import Traffic
from tests.support.clients_story import Scene

THREE = ("lb1", "lb2", "lb3")
WAYS = {"tunnel v4": ("tunnel", 4), "dr v6": ("dr", 6)}
CHECKED = {**CHECK, "interval": "2s", "timeout": "5s", "rise": 1, "fall": 5}
"""With patience: a backend that a busy machine answers for late is no subject here."""


def carried(lab: Lab, traffic: Traffic, name: str) -> int:
    return len(_node(lab, name).carries(traffic.vip))


def _node(lab: Lab, name: str) -> Node:
    return {**lab.nodes, **lab.spare}[name]


def begun(stack: ExitStack, lab: Lab, address: Address) -> Traffic:
    """Its lines are made before others' begin: a storm of them is no subject here."""
    traffic = stack.enter_context(Traffic(lab.client.namespace, address, lines=50, rate=5))
    traffic.established()
    return traffic


def drained(lab: Lab, node: Node) -> None:
    """``consul kv put anycastlb/drain/NODE ""``: out of the routes, but still serving what reaches it."""
    lab.consul.put(f"anycastlb/drain/{node.name}", "")


def stopped(node: Node) -> None:
    """``systemctl stop``: it withdraws, waits, and has taken its own away when it ends."""
    assert node.daemon.stop() == 0, node.daemon.tail()
    assert not node.vips() and not node.ipvs()


def restarted(node: Node, other: Node) -> None:
    """As docs/ROLLING.md says: ``drain NODE --wait``, ``systemctl restart exabgp anycastlb``, and, when it answers,
    ``undrain NODE --wait``."""
    other.cli("drain", node.name, "--wait", "--timeout", "600")
    stopped(node)
    node.exabgp.stop()
    node.start()
    node.daemon.until(lambda: node.http("/v1/status")[0] == 200, "it answers again", every=0.1)
    other.cli("undrain", node.name, "--wait", "--timeout", "600")


def test_no_connection_and_no_request_breaks_whatever_happens_to_a_node(lab: Lab) -> None:
    lb1, lb2, lb3 = lab.lb1, lab.lb2, lab.spare["lb3"]
    addresses: dict[str, Address] = {}
    for number, (name, (forward, version)) in enumerate(WAYS.items()):
        addresses[name] = vip(number, version)
        for service, port in (("web", 80), ("echo", ECHO)):
            check = {**CHECKED, "port": 80}
            lab.put(f"{service}{number}", document(addresses[name], forward, port, check=check))
    with ExitStack() as stack:
        for address in addresses.values():
            lab.router.until(address, {"lb1", "lb2"})
        ways = {name: begun(stack, lab, address) for name, address in addresses.items()}
        scene = Scene(lab, ways)
        try:
            for name in ("lb1", "lb2"):
                for way in ways.values():
                    assert carried(lab, way, name) > way.lines / 5, f"{name} carries too few to prove anything"
            scene.step("nothing", lambda: None, "lb1", "lb2")
            scene.step("lb1 loses power", lb1.die, "lb2", lossy=True)
            scene.step("lb1 boots", lb1.revive, "lb1", "lb2")
            scene.step("lb1 is stopped", partial(stopped, lb1), "lb2")
            scene.step("lb1 is started", lb1.start, "lb1", "lb2")
            scene.step("lb2 is drained", partial(drained, lab, lb2), "lb1")
            assert all(address in lb2.vips() for address in addresses.values()), "it goes on serving what reaches it"
            scene.step("lb2 is undrained", lambda: lab.consul.delete("anycastlb/drain/lb2"), "lb1", "lb2")
            scene.step("lb2 is restarted", partial(restarted, lb2, lb1), "lb1", "lb2")
            scene.step("lb3 is added", lb3.start, *THREE)
            assert scene.step("lb1 falls silent", lb1.mute, "lb2", "lb3", lossy=True), "it lost nothing: was it silent?"
            scene.step("lb1 speaks again", lb1.unmute, *THREE)
            scene.step("lb2 loses power", lb2.die, "lb1", "lb3", lossy=True)
            for way in ways.values():
                assert carried(lab, way, "lb3") > way.lines / 5, "lb3 has its share"
            # and were a line to break, it would be counted
            lab.backends["b1"].kill()
            for name, way in ways.items():
                way.breaks(scene.now[name]["backends"]["b1"])
        finally:
            print("\n".join(scene.figures))


SYNCED = """
[ipvs]
sync_interface = "lan"
sync_refresh = "3s"
"""


@pytest.fixture
def synced(lab: Lab) -> Iterator[Lab]:
    """A lab whose nodes share their connections."""
    edit = ("[api]\n", f"{SYNCED}\n[api]\n")
    third = lab.spare["lb3"].settings
    before = third.read_text()
    third.write_text(before.replace(*edit))
    try:
        with lab.lb1.changed(edit), lab.lb2.changed(edit):
            yield lab
            lab.topology.answer("lb1", through="lb1")
            lab.topology.answer("lb2", through="lb2")
            lab.reset()
    finally:
        third.write_text(before)


def test_no_connection_through_nat_breaks_with_connection_sync(synced: Lab) -> None:
    """With ``nat`` answers pass a node, too. When one goes, its address as the backends' gateway must move to another
    (VRRP, in a real network), and that one must know the connections. A node that returns learns them first. A request
    whose connection the dead node had not sent yet (docs/FLOWS.md: batches wait up to 2 s) is lost with it."""
    lab = synced
    lb1, lb2, lb3 = lab.lb1, lab.lb2, lab.spare["lb3"]
    addresses = {f"nat v{version}": vip(0, version) for version in (4, 6)}
    for (name, address), (service, port) in product(addresses.items(), (("web", 80), ("echo", ECHO))):
        lab.put(f"{service}{name[-1]}", document(address, "nat", port, check={**CHECKED, "port": 80}))
    with ExitStack() as stack:
        for address in addresses.values():
            lab.router.until(address, {"lb1", "lb2"})
        ways = {name: begun(stack, lab, address) for name, address in addresses.items()}
        scene = Scene(lab, ways)

        def learned(node: Node) -> None:
            for way in ways.values():
                node.until(lambda way=way: carried(lab, way, node.name) >= way.lines, "it knows every line")

        def dies() -> None:
            lb1.die()
            lab.topology.answer("lb1", through="lb2")

        def boots() -> None:
            lab.consul.put("anycastlb/drain/lb1", "")
            lb1.revive()
            lb1.ready()
            learned(lb1)
            lab.topology.answer("lb1", through="lb1")
            lab.consul.delete("anycastlb/drain/lb1")

        def stops() -> None:
            lab.topology.answer("lb2", through="lb1")
            assert lb2.daemon.stop() == 0, lb2.daemon.tail()

        try:
            learned(lb1)
            learned(lb2)
            scene.step("lb1 loses power", dies, "lb2", lossy=True, failing=True)
            scene.step("lb1 boots", boots, "lb1", "lb2")
            scene.step("lb3 is added", lb3.start, *THREE)
            scene.step("lb2 is drained", lambda: lab.consul.put("anycastlb/drain/lb2", ""), "lb1", "lb3")
            scene.step("lb2 is stopped", stops, "lb1", "lb3")
        finally:
            print("\n".join(scene.figures))
