"""Parts of a node die; the router and the clients are asked what they saw of it."""

from __future__ import annotations

import signal
import time

import pytest

from tests.lab.lab import Lab, document
from tests.lab.namespaces import LabError
from tests.lab.process import until
from tests.lab.topology import own, vip
from tests.support.two_nodes import BOTH, VIP, serve, weights

HOLD = 8.0
"""``[bgp] hold`` of the lab's nodes, seconds: longer than a daemon takes to start on a busy machine."""


def test_daemon_killed_and_restarted_within_hold_is_invisible(lab: Lab) -> None:
    serve(lab)
    updates, kernel = lab.router.all_updates(), lab.lb1.ordered()
    with lab.client.load(VIP) as load:
        until(lambda: load.sent > 50, 5, "50 requests")
        lab.lb1.daemon.kill()
        lab.lb1.daemon.start()
        lab.lb1.ready()
        assert lab.lb1.total("anycastlb_changes_total") == 0, "the first plan after a restart was not empty"
        time.sleep(HOLD + 1)

    assert load.sent > 200
    assert not load.failed, str(load)
    assert lab.router.all_updates() == updates
    assert lab.router.routes(VIP) == BOTH
    assert lab.lb1.ordered() == kernel


def test_an_upgrade_by_handing_over_is_invisible(lab: Lab) -> None:
    """SIGUSR1: the daemon ends at once and leaves routes and kernel to the next one."""
    serve(lab)
    updates, kernel = lab.router.all_updates(), lab.lb1.ordered()
    with lab.client.load(VIP) as load:
        until(lambda: load.sent > 50, 5, "50 requests")
        lab.lb1.daemon.signal(signal.SIGUSR1)
        until(lambda: not lab.lb1.daemon.running, 5, "the daemon has ended")
        assert lab.lb1.ordered() == kernel
        lab.lb1.daemon.start()
        lab.lb1.ready()
        assert lab.lb1.total("anycastlb_changes_total") == 0
        time.sleep(2)
    assert not load.failed, str(load)
    assert lab.router.all_updates() == updates and lab.router.routes(VIP) == BOTH


def test_restarted_daemon_keeps_a_failed_backend_failed(lab: Lab) -> None:
    """Weight 0 in the kernel at the start is not taken for health: no flow may go to the dead one meanwhile."""
    serve(lab)
    lab.backends["b3"].kill()
    lab.lb1.until(lambda: all(rows[f"{own('b3')}:80"] == 0 for rows in weights(lab)), 5, "b3 has weight 0")
    with lab.client.load(VIP) as load:
        lab.lb1.daemon.kill()
        lab.lb1.daemon.start()
        lab.lb1.ready()
        time.sleep(1.5)
    assert not load.failed, str(load)


def test_daemon_killed_for_good_is_withdrawn_after_hold(lab: Lab) -> None:
    serve(lab)
    before = lab.router.updates("lb2")
    lab.lb1.daemon.kill()
    at = time.monotonic()
    took = lab.router.until(VIP, {"lb2"}, within=HOLD + 5) - at
    assert HOLD - 1.1 <= took <= HOLD + 1, f"withdrawn {took:.2f} s after the kill; hold is {HOLD} s"
    assert lab.router.updates("lb2") == before
    lab.lb1.start()
    lab.router.until(VIP, BOTH, within=30)


def test_daemon_frozen_is_withdrawn_after_hold(lab: Lab) -> None:
    serve(lab)
    lab.lb1.daemon.signal(signal.SIGSTOP)
    at = time.monotonic()
    try:
        took = lab.router.until(VIP, {"lb2"}, within=HOLD + 5) - at
    finally:
        lab.lb1.daemon.signal(signal.SIGCONT)
    assert took <= HOLD + 1, f"withdrawn {took:.2f} s after the freeze; hold is {HOLD} s"
    lab.router.until(VIP, BOTH, within=30)


def test_exabgp_killed_the_other_node_takes_over_and_it_returns(lab: Lab) -> None:
    serve(lab)
    with lab.client.load(VIP) as load:
        lab.lb1.exabgp.kill()
        lab.router.until(VIP, {"lb2"}, within=2)
        lab.lb1.until(lambda: lab.lb1.http("/readyz")[0] == 503, 5, "it says that it is not ready")
        lab.lb1.exabgp.start()
        lab.router.until(VIP, BOTH, within=30)
        time.sleep(0.5)
    assert not load.failed, str(load)
    lab.lb1.ready()


def test_exabgp_restarted_while_a_vip_was_closed_does_not_announce_it(lab: Lab) -> None:
    serve(lab)
    for backend in lab.backends.values():
        backend.fail()
    lab.lb1.exabgp.kill()
    lab.router.until(VIP, set())
    lab.lb1.exabgp.start()
    until(lambda: {"lb1v4", "lb1v6"} <= lab.router.sessions(), 15, "the sessions of lb1 are up again")
    lab.lb1.ready()
    time.sleep(1.5)
    assert lab.router.routes(VIP) == frozenset()
    assert lab.router.updates("lb1") == (0, 0)  # BIRD counts anew with each session


def test_bridge_killed_is_restarted_and_no_route_flaps(lab: Lab) -> None:
    serve(lab)
    updates = lab.router.all_updates()
    with lab.client.load(VIP) as load:
        old = lab.lb1.kill_bridge()
        until(lambda: _bridge(lab) not in (None, old), 5, "ExaBGP has started another bridge")
        lab.lb1.until(lambda: lab.lb1.http("/readyz")[0] == 200, 10, "the new bridge is connected")
        time.sleep(1)
    assert not load.failed, str(load)
    assert lab.router.all_updates() == updates
    # and it is in charge: what happens now reaches the router
    lab.consul.put("anycastlb/drain/lb1", "")
    lab.router.until(VIP, {"lb2"}, within=3)


def test_bridge_and_daemon_killed_together(lab: Lab) -> None:
    """Nobody is left who knows the routes but ExaBGP: the new bridge withdraws them after hold."""
    serve(lab)
    lab.lb1.daemon.kill()
    lab.lb1.kill_bridge()
    at = time.monotonic()
    took = lab.router.until(VIP, {"lb2"}, within=HOLD + 8) - at
    assert took <= HOLD + 2, f"withdrawn {took:.2f} s after both died; hold is {HOLD} s"


def _bridge(lab: Lab) -> int | None:
    try:
        return lab.lb1.bridge()
    except (LabError, OSError):
        return None


def test_consul_killed_nodes_go_on_and_read_on_when_it_returns(lab: Lab) -> None:
    serve(lab)
    updates = lab.router.all_updates()
    with lab.client.load(VIP) as load:
        lab.consul.kill()
        lab.lb1.until(lambda: lab.lb1.status()["catalog"]["connected"] is False, 10, "it says that Consul is away")
        assert lab.router.routes(VIP) == BOTH
        # health is still acted on
        lab.backends["b1"].fail()
        lab.lb1.until(lambda: all(rows[f"{own('b1')}:80"] == 0 for rows in weights(lab)), 5, "b1 has weight 0")
        lab.consul.start()
        lab.consul.ready()
        lab.put("more", document(vip(1)))
        lab.router.until(vip(1), BOTH, within=30)
    assert not load.failed, str(load)
    after = lab.router.all_updates()
    assert {node: count[1] for node, count in after.items()} == {node: count[1] for node, count in updates.items()}


def test_node_starts_from_its_last_good_catalog_while_consul_is_away(lab: Lab) -> None:
    serve(lab)
    lab.consul.kill()
    updates = lab.router.all_updates()
    lab.lb1.daemon.kill()
    lab.lb1.daemon.start()
    lab.lb1.ready()
    assert lab.lb1.status()["catalog"]["cached"] is True
    time.sleep(1)
    assert lab.router.all_updates() == updates
    assert lab.router.routes(VIP) == BOTH


@pytest.mark.parametrize("version", [4, 6])
def test_router_restarts_and_routes_return(lab: Lab, version: int) -> None:
    serve(lab, version=version)
    lab.router.kill()
    lab.router.start()
    lab.router.until(vip(0, version), BOTH, within=20)
