"""A node leaves the routes and comes back, on real parts: nobody who asks the VIP notices."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.lab.bird import Bird
from tests.lab.lab import CHECK, Lab, document
from tests.lab.node import ROOT, Node
from tests.lab.process import GIVE_UP, until
from tests.lab.server import ECHO
from tests.lab.topology import vip

VIP = vip(0)
VIP6 = vip(0, 6)
BOTH = {"lb1", "lb2"}
CALM = {**CHECK, "interval": "1s", "timeout": "3s"}
"""A check that a busy machine does not fail: a table that changes all the time is waited for."""
PATIENT = (('graceful = "300ms"', 'graceful = "4s"'), ('settle = "500ms"', 'settle = "30s"'))
"""A node that takes its time to leave."""


@pytest.fixture(scope="module")
def patient(running_lab: Lab) -> Iterator[Lab]:
    if not isinstance(running_lab.router.speaker, Bird):
        pytest.skip("how a route is marked is asked of BIRD; tests/parts/test_routers.py asks FRR")
    running_lab.reset()
    with running_lab.lb1.changed(*PATIENT), running_lab.lb2.changed(*PATIENT):
        yield running_lab
        running_lab.reset()


@pytest.fixture
def lab(patient: Lab) -> Lab:
    patient.reset()
    return patient


def follow(node: Node, *argv: str) -> subprocess.Popen[str]:
    """A command that goes on beside the test."""
    return subprocess.Popen(
        node.namespace.argv(*node.argv(*argv)),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def stage(node: Node) -> str:
    drain = node.status()["node"]["drain"]
    return drain["stage"] if drain else ""


def stages(node: Node) -> list[str]:
    """What its events tell of how it left, each stage once."""
    records = map(json.loads, node.cli("events", "-o", "json").stdout.splitlines())
    return list(dict.fromkeys(record["after"] for record in records if record["kind"] == "drain"))


def bird(lab: Lab) -> Callable[..., str]:
    """What BIRD answers to the words of ``birdc``."""
    assert isinstance(lab.router.speaker, Bird)
    return lab.router.speaker.ask


def marked(lab: Lab, name: str, address: Any = VIP) -> bool:
    """Does BIRD have the node's route with 65535:0, and with nothing to prefer it by?"""
    shown = bird(lab)("show", "route", "all", "protocol", f"{name}v{address.version}", "for", str(address))
    return "(65535,0)" in shown and "BGP.local_pref: 0" in shown


def aside(lab: Lab, address: Any) -> bool:
    """Is lb1 out of ECMP, while the router has a route from it still?"""
    return lab.router.routes(address) == {"lb2"} and marked(lab, "lb1", address)


def test_a_drain_under_load_costs_nothing(lab: Lab) -> None:
    """Community first, out of ECMP while the route still stands, then withdrawn, then drained; and back."""
    lab.put("web", document([VIP, VIP6], check=CALM))
    lab.put("echo", document([VIP, VIP6], port=ECHO, check=CALM))
    lab.settle(VIP, VIP6)
    sessions = lab.router.sessions()
    with (
        lab.client.load(VIP, pause=0.05) as load,
        lab.client.load(VIP6, pause=0.05) as load6,
        lab.client.open(40, VIP) as connections,
        lab.client.open(40, VIP6) as connections6,
    ):
        until(lambda: load.sent > 50 and load6.sent > 50, "50 requests each")
        drain = follow(lab.lb2, "drain", "lb1", "--wait", "--timeout", "600")
        lab.lb1.until(lambda: marked(lab, "lb1") and marked(lab, "lb1", VIP6), "its routes carry 65535:0")
        until(lambda: aside(lab, VIP) and aside(lab, VIP6), "out of ECMP before it is withdrawn")
        lab.lb1.until(lambda: stage(lab.lb1) in ("withdrawn", "drained"), "it has withdrawn")
        until(lambda: str(VIP) not in bird(lab)("show", "route", "protocol", "lb1v4"), "BIRD has no route")
        assert VIP in lab.lb1.vips() and f"tcp {VIP}:80" in lab.lb1.ipvs(), "it goes on serving"
        told, _ = drain.communicate(timeout=10 * GIVE_UP)
        assert drain.returncode == 0 and "nothing comes any more" in told, told
        assert stage(lab.lb1) == "drained"
        back = lab.lb1.cli("undrain", "--wait", "--timeout", "600")
        assert back.returncode == 0, back.stderr
        lab.router.until(VIP, BOTH)
        sent, sent6 = load.sent, load6.sent
        until(lambda: load.sent > sent + 50 and load6.sent > sent6 + 50, "50 more requests each")
        assert connections.alive() == connections6.alive() == 40
    assert not load.failed, str(load)
    assert not load6.failed, str(load6)
    assert lab.router.sessions() == sessions
    assert stages(lab.lb1) == ["waiting", "graceful", "withdrawn", "drained", "undrained"]


def test_a_drained_node_that_restarts_stays_away(lab: Lab) -> None:
    """As in an upgrade: it stops at once, and its next process announces nothing until it is undrained."""
    lab.put("web", document(VIP, check=CALM, drain="30s"))
    lab.settle(VIP)
    with lab.client.load(VIP, pause=0.05) as load:
        until(lambda: load.sent > 20, "20 requests")
        assert lab.lb2.cli("drain", "lb1", "--wait", "--timeout", "600", "--reason", "upgrade").returncode == 0
        refused = lab.lb1.cli("drain", "lb2", check=False)
        assert refused.returncode == 1 and "lb1 is drained already, and at most 1 may be at once" in refused.stderr
        updates = lab.router.updates("lb1")
        assert lab.lb1.daemon.stop() == 0, "nothing comes any more, so it waits for nothing"
        assert not lab.lb1.vips() and not lab.lb1.ipvs()
        lab.lb1.daemon.start()
        lab.lb1.ready()
        lab.lb1.until(lambda: stage(lab.lb1) == "drained", "it stays drained")
        assert lab.router.updates("lb1") == updates, "nothing was announced"
        assert "DRAINED" in lab.lb1.cli("status").stdout
        assert lab.lb2.cli("undrain", "lb1", "--wait", "--timeout", "600").returncode == 0
        lab.router.until(VIP, BOTH)
        sent = load.sent
        until(lambda: load.sent > sent + 20, "20 more requests")
    assert not load.failed, str(load)
    lab.put("web", document(VIP))  # which is soon gone
    lab.settle(VIP)


def test_a_node_that_stops_is_the_last_choice_before_it_goes(lab: Lab) -> None:
    lab.put("web", document(VIP, check=CALM))
    lab.settle(VIP)
    with lab.client.load(VIP, pause=0.05) as load:
        until(lambda: load.sent > 20, "20 requests")
        lab.lb1.daemon.signal(signal.SIGTERM)
        until(lambda: aside(lab, VIP), "its route carries 65535:0, and is not used")
        until(lambda: not lab.lb1.daemon.running, "it has stopped")
        assert not lab.lb1.vips() and not lab.lb1.ipvs()
    assert not load.failed, str(load)
