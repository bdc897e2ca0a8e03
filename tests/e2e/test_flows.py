"""200 open TCP connections, and the node that carries them dies, is stopped, is drained: all of them live on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.lab.lab import CHECK, Lab
from tests.lab.process import until
from tests.lab.server import ECHO
from tests.support.two_nodes import BOTH, VIP, serve

CONNECTIONS = 200


def die(lab: Lab) -> None:
    """Power loss: links down, then nothing runs any more."""
    lab.lb1.die()
    lab.router.until(VIP, {"lb2"})


def stop(lab: Lab) -> None:
    """``systemctl stop``: withdraws, waits, and has taken its own away when it ends."""
    assert lab.lb1.daemon.stop(20) == 0, lab.lb1.daemon.tail()
    assert lab.router.routes(VIP) == {"lb2"}
    assert not lab.lb1.vips()
    assert not lab.lb1.ipvs()


def drain(lab: Lab) -> None:
    """``consul kv put anycastlb/drain/lb1 ""``: out of the routes, but still serving what reaches it."""
    lab.consul.put("anycastlb/drain/lb1", "")
    lab.router.until(VIP, {"lb2"})
    assert VIP in lab.lb1.vips()
    assert f"tcp {VIP}:{ECHO}" in lab.lb1.ipvs()


@pytest.mark.parametrize("forward", ["tunnel", "dr"])
@pytest.mark.parametrize("leave", [die, stop, drain], ids=lambda leave: str(leave.__name__))
def test_open_connections_survive(lab: Lab, forward: str, leave: Callable[[Lab], None]) -> None:
    serve(lab, forward=forward, port=ECHO, check={**CHECK, "port": 80})
    try:
        with lab.client.open(CONNECTIONS, VIP) as connections:
            assert set(connections.landed) == {"b1", "b2", "b3"}
            assert connections.alive() == CONNECTIONS
            carried = lab.lb1.carries(VIP) & connections.ports
            assert len(carried) > CONNECTIONS / 5, "lb1 carries too few of them to prove anything"

            leave(lab)

            assert connections.alive() == CONNECTIONS
            assert carried <= lab.lb2.carries(VIP)
            # and back again: the node returns and takes its share over from the other
            lab.consul.delete("anycastlb/drain/lb1")
            if not lab.lb1.daemon.running:
                lab.lb1.revive()
            lab.router.until(VIP, BOTH, within=20)
            until(lambda: connections.alive(2) == CONNECTIONS, 8, "all connections live after the node's return")
    finally:
        if not lab.lb1.daemon.running:
            lab.lb1.revive()


def test_new_connections_find_the_other_node(lab: Lab) -> None:
    """A planned stop costs a client nothing at all."""
    serve(lab)
    with lab.client.load(VIP) as load:
        until(lambda: load.sent > 50, 5, "50 requests")
        assert lab.lb1.daemon.stop(20) == 0
        sent = load.sent
        until(lambda: load.sent > sent + 100, 10, "100 more requests")
        lab.lb1.daemon.start()
        lab.router.until(VIP, BOTH, within=20)
        sent = load.sent
        until(lambda: load.sent > sent + 100, 10, "100 more requests")
    assert not load.failed, str(load)
