"""The checker, the daemon and the bridge of a node are killed and stopped, each alone and in pairs, and starved.

No system service runs in the lab: where ``systemd`` would start a daemon again, or end one that hangs, the test does.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import combinations
from pathlib import Path

import pytest

from tests.lab import lateness
from tests.lab.lab import Lab, document
from tests.lab.namespaces import LabError
from tests.lab.node import Node
from tests.lab.process import until
from tests.lab.topology import own, vip
from tests.support.two_nodes import BOTH, VIP, serve

PARTS = ("checker", "daemon", "bridge")
HARMED = [(part,) for part in PARTS] + list(combinations(PARTS, 2))
HOLD = 3.0
"""``[bgp] hold`` of the node, where something is to go, seconds."""
SILENCE = 5.0
"""How long the daemon waits for a checker that hangs, seconds."""
ALONE = vip(1)
"""A VIP that only b3 serves."""


def process(node: Node, part: str) -> int:
    """0 while there is none."""
    if part == "daemon":
        return node.daemon.pid
    if part == "checker":
        return node.checker()
    with suppress(LabError, OSError):
        return node.bridge()
    return 0


def send(number: int, *processes: int) -> None:
    for pid in processes:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def rounds(node: Node, count: int = 3) -> None:
    """Wait until it has taken so many more rounds of checks of three backends, and is able to serve."""
    node.ready()
    before = node.total("anycastlb_check_results_total")
    node.until(lambda: node.total("anycastlb_check_results_total") > before + 3 * count, "its backends are checked")


def replaced(node: Node, part: str, before: int) -> None:
    """Wait until another process has taken the place of this one."""
    until(lambda: process(node, part) not in (0, before), f"{node.name} has another {part} than {before}")
    until(lambda: not Path(f"/proc/{before}").exists(), f"nothing is left of the {part} {before}")


def kill(node: Node, parts: tuple[str, ...]) -> None:
    before = {part: process(node, part) for part in PARTS}
    send(signal.SIGKILL, *(before[part] for part in parts))
    if "daemon" in parts:
        node.daemon.kill()
        node.daemon.start()
    for part in parts:
        replaced(node, part, before[part])
    if "daemon" in parts:
        until(lambda: not Path(f"/proc/{before['checker']}").exists(), "the checker has ended with its daemon")


def stop(node: Node, parts: tuple[str, ...]) -> None:
    """For longer than any of them is waited for; who is not waited for goes on."""
    stopped = {part: process(node, part) for part in parts}
    send(signal.SIGSTOP, *stopped.values())
    if "daemon" in parts:
        time.sleep(SILENCE + 1)
        send(signal.SIGCONT, *(stopped.pop(part) for part in parts if part != "bridge"))
    for part, pid in stopped.items():
        replaced(node, part, pid)


def starve(node: Node, parts: tuple[str, ...]) -> None:
    """They get a tenth of the time, in pieces, while their backends are asked thirty times and more."""
    processes = [process(node, part) for part in parts]
    for _ in range(10):
        send(signal.SIGSTOP, *processes)
        time.sleep(0.45)
        send(signal.SIGCONT, *processes)
        time.sleep(0.05)


@pytest.mark.parametrize("parts", HARMED, ids="+".join)
def test_what_is_served_stays(lab: Lab, parts: tuple[str, ...]) -> None:
    """No route goes, no backend counts as down, no client is refused; and what was harmed is whole again."""
    serve(lab)
    rounds(lab.lb1)
    routes, kernel = lab.router.all_updates(), lab.lb1.ordered()
    before = max(event["id"] for event in lab.lb1.events("check"))
    with lab.client.load(VIP) as load:
        for harm in (starve, stop, kill)[len(parts) - 1 :]:  # two that starve are less than two that are stopped
            harm(lab.lb1, parts)
            rounds(lab.lb1)
            assert lab.lb1.ordered() == kernel, f"after {harm.__name__}"
            down = [event for event in lab.lb1.events("check") if event["after"] == "down" and event["id"] > before]
            assert not down, f"after {harm.__name__}"
    assert not load.failed, str(load)
    assert lab.router.all_updates() == routes


@pytest.fixture(scope="module")
def short_hold(running_lab: Lab) -> Iterator[None]:
    """The first node gives its routes up soon. It is told so once for all tests: a daemon takes long to start here."""
    running_lab.reset()
    with running_lab.lb1.changed(('hold = "600s"', f'hold = "{HOLD:g}s"')):
        yield


@pytest.mark.usefixtures("short_hold")
@pytest.mark.parametrize("parts", HARMED, ids="+".join)
def test_what_dies_meanwhile_goes(lab: Lab, parts: tuple[str, ...]) -> None:
    """The node's only backend of a VIP dies while they are stopped: its route is gone before they are let go."""
    serve(lab)
    lab.put("alone", document(ALONE, backends={"b3": {"address": own("b3")}}))
    lab.settle(ALONE)
    before = {part: process(lab.lb1, part) for part in parts}
    since = lateness.now()
    send(signal.SIGSTOP, *before.values())
    lab.backends["b3"].kill()
    if set(parts) == {"daemon", "bridge"}:  # nobody is left but ExaBGP, until the daemon is ended and started again
        lab.lb1.daemon.kill()
        lab.lb1.daemon.start()
    lab.router.until(ALONE, set())
    if "daemon" in parts and "bridge" not in parts:
        lateness.kept(HOLD + 1, since, "the route of a VIP that nobody vouched for went")
    send(signal.SIGCONT, *before.values())
    rounds(lab.lb1)
    lab.router.until(VIP, BOTH)
    lab.lb1.until(lambda: not lab.router.routes(ALONE), "what is dead is not announced")
    assert lab.lb1.ipvs()[f"tcp {ALONE}:80"] == {f"{own('b3')}:80": 0}
