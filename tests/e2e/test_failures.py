"""Parts of a node die; the router and the clients are asked what they saw of it.

What the bridge makes of a daemon that is silent, frozen or quickly back is proven in ``tests/parts/test_bridge.py``.
"""

from __future__ import annotations

import signal
import time

import pytest

from anycastlb.core.model import Address
from tests.lab import lateness
from tests.lab.client import Load
from tests.lab.lab import Lab, document
from tests.lab.namespaces import LabError
from tests.lab.node import Node
from tests.lab.process import until
from tests.lab.topology import own, vip
from tests.support.two_nodes import BOTH, VIP, nodes, serve, together, weights

HOLD = 3.0
"""``[bgp] hold`` of a node that is to be silent for so long, seconds."""


SESSION = 10.0 - 10.0 / 3
"""Seconds that a session lives at least when its last renewal was the latest possible before its owner ended."""


def more(load: Load, count: int = 20) -> None:
    """Wait until so many more requests were sent."""
    sent = load.sent
    until(lambda: load.sent >= sent + count, f"{count} more requests")


@pytest.mark.parametrize("how", [signal.SIGUSR1, signal.SIGKILL])
def test_the_next_process_of_a_node_is_invisible(lab: Lab, how: signal.Signals) -> None:
    """An upgrade by handing over, and a crash with a restart within ``hold``.

    Clients, the router, the kernel and the other node notice nothing: the node's key in Consul was never away, and
    always said that the node announces.
    """
    serve(lab)
    together(lab)
    lab.lb2.until(lambda: nodes(lab.lb2)["lb1"]["vips"].get(str(VIP), {}).get("announced"), "lb1 announces")
    started = lab.published("lb1")["started"]
    updates, kernel = lab.router.all_updates(), lab.lb1.ordered()
    with lab.client.load(VIP) as load:
        more(load)
        lab.lb1.daemon.signal(how)
        until(lambda: not lab.lb1.daemon.running, "the daemon has ended")
        assert lab.lb1.ordered() == kernel
        ended = time.monotonic()
        lab.lb1.daemon.start()
        while (now := lab.published("lb1")).get("started") in (started, None):
            assert not now or now["vips"][str(VIP)]["announced"]
            alive = now and nodes(lab.lb2)["lb1"]["alive"]
            # else the machine takes longer to start a program than a session lives
            assert alive or time.monotonic() - ended > SESSION, "its key was away"
            assert lab.lb1.daemon.running, lab.lb1.daemon.tail()
            time.sleep(0.1)
        assert now["vips"][str(VIP)]["announced"], "it published before it knew its own routes"
        assert now["ready"]
        lab.lb1.ready()
        assert lab.lb1.total("anycastlb_changes_total") == 0, "the first plan after a restart was not empty"
        more(load)
    assert not load.failed, str(load)
    assert lab.router.all_updates() == updates and lab.router.routes(VIP) == BOTH
    assert lab.lb1.ordered() == kernel
    assert lab.lb2.events("peer")[-1]["after"] == "alive", "it was seen to go"


def test_restarted_daemon_keeps_a_failed_backend_failed(lab: Lab) -> None:
    """Weight 0 in the kernel at the start is not taken for health: no flow may go to the dead one meanwhile."""
    serve(lab)
    lab.backends["b3"].kill()
    lab.lb1.until(lambda: all(rows[f"{own('b3')}:80"] == 0 for rows in weights(lab)), "b3 has weight 0")
    with lab.client.load(VIP) as load:
        lab.lb1.daemon.kill()
        lab.lb1.daemon.start()
        lab.lb1.ready()
        checked = lab.lb1.total("anycastlb_check_results_total")
        lab.lb1.until(lambda: lab.lb1.total("anycastlb_check_results_total") > checked + 12, "four rounds of checks")
    assert not load.failed, str(load)


def test_without_daemon_and_bridge_routes_are_withdrawn_after_hold(lab: Lab) -> None:
    """Nobody is left who knows the routes but ExaBGP: the bridge that it starts again withdraws them."""
    serve(lab)
    with lab.lb1.changed(('hold = "600s"', f'hold = "{HOLD:g}s"')):
        before = lab.router.updates("lb2")
        since = lateness.now()
        lab.lb1.daemon.kill()
        lab.router.until(VIP, {"lb2"})
        lateness.kept(HOLD + 1, since, "the routes of a daemon that was killed were withdrawn")
        assert time.monotonic() - since > HOLD - 1.5, "withdrawn before a restart had its time"
        assert lab.router.updates("lb2") == before


def test_exabgp_killed_the_other_node_takes_over_and_it_returns(lab: Lab) -> None:
    """A VIP that is closed meanwhile is not announced by the new one."""
    serve(lab)
    lab.put("other", document(vip(1), backends={"b3": {"address": own("b3")}}))
    lab.settle(vip(1))
    with lab.client.load(VIP) as load:
        lab.lb1.exabgp.kill()
        lab.router.until(VIP, {"lb2"})
        lab.lb1.until(lambda: lab.lb1.http("/readyz")[0] == 503, "it says that it is not ready")
        lab.backends["b3"].fail()
        lab.router.until(vip(1), set())
        lab.lb1.until(lambda: not _open(lab.lb1, vip(1)), "the node without ExaBGP has closed it, too")
        lab.lb1.exabgp.start()
        lab.router.until(VIP, BOTH)
        more(load)
    assert not load.failed, str(load)
    lab.lb1.ready()
    assert lab.router.routes(vip(1)) == frozenset()
    assert lab.router.updates("lb1") == (1, 0)  # BIRD counts anew with each session


def _open(node: Node, address: Address) -> bool:
    return any(view["open"] for view in node.status()["vips"] if view["vip"] == str(address))


def test_bridge_killed_is_restarted_and_no_route_flaps(lab: Lab) -> None:
    serve(lab)
    updates = lab.router.all_updates()
    with lab.client.load(VIP) as load:
        old = lab.lb1.kill_bridge()
        until(lambda: _bridge(lab) not in (None, old), "ExaBGP has started another bridge")
        lab.lb1.until(lambda: lab.lb1.http("/readyz")[0] == 200, "the new bridge is connected")
        more(load)
    assert not load.failed, str(load)
    assert lab.router.all_updates() == updates
    # and it is in charge: what happens now reaches the router
    lab.consul.put("anycastlb/drain/lb1", "")
    lab.router.until(VIP, {"lb2"})


def _bridge(lab: Lab) -> int | None:
    try:
        return lab.lb1.bridge()
    except (LabError, OSError):
        return None


def test_consul_killed_nodes_go_on_and_read_on_when_it_returns(lab: Lab) -> None:
    """Also a node whose daemon starts meanwhile: it goes on from its last good catalog."""
    serve(lab)
    updates = lab.router.all_updates()
    with lab.client.load(VIP) as load:
        lab.consul.kill()
        for node in lab.nodes.values():
            node.until(lambda node=node: not node.status()["catalog"]["connected"], "it says that Consul is away")
        assert lab.router.routes(VIP) == BOTH
        lab.lb1.daemon.kill()
        lab.lb1.daemon.start()
        lab.lb1.ready()
        assert lab.lb1.status()["catalog"]["cached"] is True
        # health is still acted on
        lab.backends["b1"].fail()
        lab.lb1.until(lambda: all(rows[f"{own('b1')}:80"] == 0 for rows in weights(lab)), "b1 has weight 0")
        assert lab.router.all_updates() == updates
        lab.consul.start()
        lab.consul.ready()
        lab.put("more", document(vip(1)))
        lab.router.until(vip(1), BOTH)
    assert not load.failed, str(load)
    after = lab.router.all_updates()
    assert {node: count[1] for node, count in after.items()} == {node: count[1] for node, count in updates.items()}


def test_router_restarts_and_routes_return(lab: Lab) -> None:
    addresses = [vip(0), vip(0, 6)]
    lab.put("web", document(addresses))
    lab.settle(*addresses)
    lab.router.kill()
    lab.router.start()
    for address in addresses:
        lab.router.until(address, BOTH)
