"""Every node is restarted under load, one after the other, as docs/ROLLING.md says: it costs clients nothing."""

from __future__ import annotations

import signal
from functools import partial

from tests.lab.lab import CHECK, Lab, document
from tests.lab.node import Node
from tests.lab.process import until
from tests.lab.server import ECHO
from tests.lab.traffic import Traffic
from tests.support.clients_story import PATIENCE, Scene
from tests.support.two_nodes import BOTH, VIP

CHECKED = {**CHECK, "interval": "1s", "timeout": "3s"}


def restart(node: Node, other: Node) -> None:
    """``drain NODE --wait``, ``systemctl restart exabgp anycastlb``, until it answers, ``undrain NODE --wait``."""
    other.cli("drain", node.name, "--wait", timeout=PATIENCE)
    assert node.daemon.stop(60) == 0, node.daemon.tail()
    node.exabgp.stop(30)
    node.start()
    node.daemon.until(lambda: node.cli("status", check=False).returncode in (0, 2), PATIENCE, "it answers again")
    other.cli("undrain", node.name, "--wait", "--timeout", str(PATIENCE), timeout=2 * PATIENCE)


def hand_over(node: Node) -> None:
    """``systemctl kill -s SIGUSR1 anycastlb``: the next process takes over what this one leaves."""
    node.daemon.signal(signal.SIGUSR1)
    until(lambda: not node.daemon.running, 10, "the daemon has ended")
    node.daemon.start()
    node.ready(PATIENCE)


def test_every_node_is_restarted_under_load(lab: Lab) -> None:
    for name, port in (("web", 80), ("echo", ECHO)):
        lab.put(name, document(VIP, port=port, check={**CHECKED, "port": 80}))
    lab.router.until(VIP, BOTH, PATIENCE)
    with Traffic(lab.client.namespace, VIP) as traffic:
        traffic.established()
        scene = Scene(lab, {"tunnel v4": traffic})
        try:
            for node, other in ((lab.lb1, lab.lb2), (lab.lb2, lab.lb1)):
                scene.step(f"{node.name} is restarted", partial(restart, node, other), *BOTH)
            for node in lab.nodes.values():
                scene.step(f"{node.name} hands over", partial(hand_over, node), *BOTH)
        finally:
            print("\n".join(scene.figures))
