"""Checks through IPVS, in virtual time: they wait for their marks, use them, and say why they cannot."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from anycastlb.core.model import Change
from tests.support.world import VIP, WEB, World, until

FORWARD: dict[str, Any] = {**WEB, "check": {**WEB["check"], "via": "forward"}}
NAMES = {"10.1.0.1", "10.1.0.2", "10.1.0.3"}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(str(tmp_path))


async def test_probes_take_the_marked_way(world: World) -> None:
    world.put("services/web", FORWARD)
    async with world.node():
        await until(lambda: VIP in world.announced, within=3)
        await until(lambda: all(world.weights().values()), within=3)
        assert set(world.marks()) == set(world.probes) == NAMES
        world.dead.add("10.1.0.2")
        await until(lambda: not world.weights()["10.1.0.2"], within=4)
        assert world.weights()["10.1.0.1"] and world.weights()["10.1.0.3"]


async def test_nothing_is_probed_before_the_kernel_has_the_rows(world: World) -> None:
    world.kernel.refuse = lambda change: "not now" if _probe(change) else None
    world.put("services/web", FORWARD)
    async with world.node() as node:
        await asyncio.sleep(20)
        assert not world.probes
        (reason,) = {verdict.reason for verdict in node.snapshot.decision.backends.values()}
        assert "not checked yet" in reason and "not now" in reason
        assert not world.announced
        world.kernel.refuse = lambda change: None
        await until(lambda: VIP in world.announced, within=10)


async def test_a_refused_mark_holds_up_nobody_else(world: World) -> None:
    world.kernel.refuse = lambda change: (
        "not now" if _probe(change) and str(getattr(change.key, "address", "")) == "10.1.0.2" else None
    )
    world.put("services/web", FORWARD)
    async with world.node():
        await until(lambda: VIP in world.announced, within=3)
        await asyncio.sleep(5)
        assert {name for name, weight in world.weights().items() if weight} == NAMES - {"10.1.0.2"}


async def test_a_restart_keeps_marks_and_takes_nobody_out(world: World) -> None:
    world.put("services/web", FORWARD)
    async with world.node():
        await until(lambda: VIP in world.announced and all(world.weights().values()), within=3)
    before = world.marks()
    world.forget()
    async with world.node():
        await asyncio.sleep(10)
        assert world.marks() == before and world.writes == []


async def test_no_marks_left_takes_nobody_out_who_served(tmp_path: Path) -> None:
    """The operator turns to checks through IPVS, but the range is too small for all."""
    world = World(str(tmp_path))
    world.settings = world.settings.model_copy(
        update={"checks": world.settings.checks.model_copy(update={"marks": (9000, 9001)})}
    )
    world.put("services/web", WEB)
    async with world.node():
        await until(lambda: VIP in world.announced and all(world.weights().values()), within=3)
    world.put("services/web", FORWARD)
    async with world.node() as node:
        await asyncio.sleep(10)
        assert all(world.weights().values())
        reasons = [verdict.reason for verdict in node.snapshot.decision.backends.values()]
        assert sum("no firewall mark is left for the probe in 9000-9001" in reason for reason in reasons) == 1


async def test_a_running_check_is_not_disturbed_when_others_come_and_go(world: World) -> None:
    world.put("services/web", FORWARD)
    async with world.node() as node:
        await until(lambda: VIP in world.announced, within=3)
        await asyncio.sleep(10)
        mark, states = world.marks()["10.1.0.1"], dict(node.snapshot.inputs.health)
        for count in (1, 2, 3, 1):
            world.put("services/more", {**FORWARD, "port": 443, "backends": _backends(count), "drain": "0s"})
            await asyncio.sleep(2)
        assert world.marks()["10.1.0.1"] == mark
        for check, state in states.items():
            now = node.snapshot.inputs.health[check]
            assert now.since == state.since and now.record[1] > state.record[1]


async def test_marks_go_with_their_service_before_it_has_drained(world: World) -> None:
    world.put("services/web", FORWARD)
    world.put("services/keep", {**WEB, "vip": "192.0.2.11"})
    async with world.node():
        await until(lambda: VIP in world.announced, within=3)
        world.source.delete("services/web")
        await until(lambda: not world.marks(), within=2)
        assert len([key for key in world.kernel.rows["services"] if key.address == VIP]) == 1, "it drains"


def _backends(count: int) -> dict[str, Any]:
    return {f"more{number}": {"address": f"10.1.1.{number}"} for number in range(count)}


def _probe(change: Change) -> bool:
    key = getattr(change.key, "service", change.key)
    return change.table in ("services", "destinations") and key.protocol == "fwmark"
