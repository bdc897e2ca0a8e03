"""Stories of faults of our own: what goes wrong about one service is wrong for no other, and never ends the node."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from anycastlb.adapters.cluster import status_document
from anycastlb.adapters.cluster.memory import MemoryRegistry
from anycastlb.core.decision import assessment, peer_votes, plan, steps, vip_gates
from anycastlb.core.decision.recollection import Recorder
from anycastlb.core.model import ServiceKey
from anycastlb.engine import cycle_events
from tests.support.world import VIP, WEB, World, until

OTHER = ip_address("192.0.2.20")
ODD = ServiceKey("tcp", VIP, 80)
BACKENDS = {f"api{n}": {"address": f"10.1.0.3{n}"} for n in range(1, 4)}
API = {**WEB, "vip": str(OTHER), "backends": BACKENDS}
MORE = {**WEB, "backends": {**WEB["backends"], "web4": {"address": "10.1.0.4"}}}


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(str(tmp_path))
    world.put("services/web", WEB)
    world.put("services/api", API)
    return world


def about_web(*args: Any) -> bool:
    """Is this call about the service ``web`` or its VIP?"""
    for arg in args:
        vip = getattr(arg, "vip", None) or getattr(getattr(arg, "case", None), "vip", None)
        if vip == VIP or getattr(arg, "name", "") == "web":
            return True
        if isinstance(arg, (list, tuple)) and any(getattr(key, "service", None) == ODD for key in arg):
            return True
    return False


def broken(real: Callable[..., Any], when: Callable[..., bool]) -> Callable[..., Any]:
    """``when``: whether this call of it fails."""

    def step(*args: Any, **kwargs: Any) -> Any:
        if when(*args):
            raise ZeroDivisionError("float division by zero")
        return real(*args, **kwargs)

    return step


STEPS = {
    "judge": (assessment, "judge"),
    "peer vote": (peer_votes, "hear"),
    "gate": (vip_gates, "step_gate"),
    "weigh": (steps, "weigh"),
    "plan": (plan, "_of_service"),
}


@pytest.mark.parametrize("step", STEPS)
async def test_one_service_that_cannot_be_decided_closes_and_the_other_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    faulty = False
    module, name = STEPS[step]
    monkeypatch.setattr(module, name, broken(getattr(module, name), lambda *args: faulty and about_web(*args)))
    async with world.node() as node:
        await until(lambda: world.announced == {VIP, OTHER} and all(world.weights().values()), within=10)
        before = {key: row for key, row in world.kernel.rows["destinations"].items() if key.service == ODD}
        faulty = True
        world.put("services/web", MORE)  # what has not changed is not decided, and cannot fail
        world.dead = {"10.1.0.31"}
        await until(lambda: world.weights()["10.1.0.31"] == 0, within=6)
        await until(lambda: world.announced == {OTHER}, within=6)
        await asyncio.sleep(30)
        rows = world.kernel.rows["destinations"]
        assert {key: row for key, row in rows.items() if key.service == ODD} == before, "it keeps what it had"
        reason = node.snapshot.decision.verdicts[VIP].reason
        assert "internal error about" in reason.text and "ZeroDivisionError" in reason.text
        assert "192.0.2.10" in reason.text and "please report it" in reason.text
        events = [record.event for record in node.journal.records() if record.event.code == "internal_error"]
        assert events and len(events) <= 3, "it is told, and not again and again"
        assert world.router.heartbeats[-1] > asyncio.get_running_loop().time() - 2, "the node lives"
        faulty = False
        world.dead = set()
        await until(lambda: world.announced == {VIP, OTHER} and all(world.weights().values()), within=10)


async def test_a_decision_that_fails_as_a_whole_proves_no_life_and_ends_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty, real = False, steps.drain_step

    def step(*args: Any) -> Any:
        if faulty:
            raise RecursionError("maximum recursion depth exceeded")
        return real(*args)

    monkeypatch.setattr(steps, "drain_step", step)
    async with world.node():
        await until(lambda: world.announced == {VIP, OTHER} and all(world.weights().values()), within=10)
        faulty = True
        world.dead = {"10.1.0.31"}
        await asyncio.sleep(10)
        silent = asyncio.get_running_loop().time() - world.router.heartbeats[-1]
        assert silent > 4 and world.weights()["10.1.0.31"] == 100, "nothing was decided, and nobody vouches for it"
        faulty = False
        await until(lambda: world.weights()["10.1.0.31"] == 0, within=6)


TELLING = {
    "an event about a gate": (cycle_events, "_gate_event"),
    "events about changes": (cycle_events, "_change_events"),
    "the memory of gates": (Recorder, "record"),
    "what the others are told": (status_document, "summarise"),
}


@pytest.mark.parametrize("what", TELLING)
async def test_a_fault_in_telling_stops_nothing_that_is_decided(
    world: World, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """It once ended the node, whose next start came to the same cycle."""
    module, name = TELLING[what]
    faulty = False
    monkeypatch.setattr(module, name, broken(getattr(module, name), lambda *args: faulty))
    world.registry = MemoryRegistry()
    async with world.node() as node:
        await until(lambda: world.announced == {VIP, OTHER} and all(world.weights().values()), within=10)
        faulty = True
        world.dead = {"10.1.0.1", "10.1.0.2", "10.1.0.3"}
        await until(lambda: world.announced == {OTHER}, within=10)
        world.dead = {"10.1.0.31"}
        await until(lambda: world.announced == {VIP, OTHER} and world.weights()["10.1.0.31"] == 0, within=20)
        await asyncio.sleep(30)
        assert world.router.heartbeats[-1] > asyncio.get_running_loop().time() - 2, "the node lives"
        events = [record.event for record in node.journal.records() if "float division by zero" in record.event.reason]
        assert 0 < len(events) <= 8, "it is told, and not again and again"


@pytest.mark.parametrize("half_life, longest", [("1s", "20m"), ("1s", "24h"), ("24h", "1s")])
async def test_damping_at_the_ends_of_its_range_withdraws(world: World, half_life: str, longest: str) -> None:
    world.put("services/web", {**WEB, "announce": {"damping": {"half_life": half_life, "longest": longest}}})
    async with world.node() as node:
        assert not node.inbox.inputs.catalog.problems
        await until(lambda: VIP in world.announced, within=10)
        for _ in range(4):
            world.dead = {"10.1.0.1", "10.1.0.2", "10.1.0.3"}
            await until(lambda: VIP not in world.announced, within=10)
            world.dead = set()
            await asyncio.sleep(10)
        assert not [record.event for record in node.journal.records() if record.event.code == "internal_error"]
