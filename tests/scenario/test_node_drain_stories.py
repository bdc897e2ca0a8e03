"""Nodes that leave the routes and come back, in virtual time: each test is a story."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from anycastlb.adapters.cluster.memory import MemoryRegistry
from anycastlb.core.decision.node_drain import COMMUNITY
from anycastlb.core.model import NodeDrain, Session
from anycastlb.engine.node import Node
from anycastlb.serving.views.cluster import node_view, nodes_view
from tests.support.world import VIP, WEB, World, until

CALM = {"graceful": "5s", "settle": "1m", "deadline": "2m"}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(str(tmp_path), drain=CALM)


def worlds(tmp_path: Path, **drain: Any) -> tuple[World, World]:
    """Two machines that read the same catalog and know of each other."""
    one, two = (World(str(tmp_path / name), drain={**CALM, **drain}, name=name) for name in ("lb1", "lb2"))
    two.source = one.source
    one.registry = two.registry = MemoryRegistry()
    one.put("services/web", WEB)
    return one, two


def leaving(node: Node) -> NodeDrain | None:
    return node.snapshot.decision.memory.node_drain


def stage(node: Node) -> str:
    found = leaving(node)
    return found.stage if found else ""


def plain(world: World) -> bool:
    return VIP in world.announced and COMMUNITY not in world.router.rows["routes"][VIP].communities


def marked(world: World) -> bool:
    return VIP in world.announced and COMMUNITY in world.router.rows["routes"][VIP].communities


def view(node: Node, name: str) -> dict[str, Any]:
    found = node_view(node.snapshot, asyncio.get_running_loop().time(), name)
    assert found is not None
    return found


def told(node: Node) -> list[tuple[str, str]]:
    events = [record.event for record in node.journal.records() if record.event.kind == "drain"]
    return [(event.after, event.level) for event in events]


async def company(one: World, two: World, first: Node, second: Node) -> None:
    """Both serve, know it of each other, and nothing has changed for a while."""
    await until(lambda: plain(one) and plain(two), within=10)
    await until(lambda: all(view(at, "lb1")["vips"] and view(at, "lb2")["vips"] for at in (first, second)), within=10)
    await asyncio.sleep(10)


async def test_a_drain_goes_through_its_stages_and_waits_for_the_last_packets(world: World) -> None:
    world.put("services/web", WEB)
    async with world.node() as node:
        await until(lambda: plain(world), within=3)
        world.forget()
        world.put("drain/lb1", {"reason": "disks", "by": "ann", "since": "now"})
        await until(lambda: marked(world), within=0.5)
        verdict = node.snapshot.decision.verdicts[VIP]
        assert verdict.open and "this node is drained (drain/lb1): still announced, with 65535:0" in verdict.reason.text
        assert await until(lambda: VIP not in world.announced, within=5.1) > 4.5
        for _ in range(30):  # somebody still comes
            world.counted = replace(world.counted, packets_in=world.counted.packets_in + 50)
            await asyncio.sleep(1)
        shown = view(node, "lb1")["drain"]
        assert (shown["stage"], shown["packets_per_second"], shown["why"]) == ("withdrawn", 50.0, "disks")
        assert await until(lambda: stage(node) == "drained", within=8) > 4
        assert [change.table for change in world.writes] == ["routes", "routes"], "the kernel is untouched"
        assert told(node) == [("graceful", "info"), ("withdrawn", "info"), ("drained", "info")]
        world.source.delete("drain/lb1")
        await until(lambda: plain(world), within=1)
        assert told(node)[-1] == ("undrained", "info")


async def test_a_drain_that_hangs_ends_at_its_deadline_and_says_so(world: World) -> None:
    world.put("services/web", WEB)
    async with world.node() as node:
        await until(lambda: plain(world), within=3)
        world.put("drain/lb1", {"deadline": "20s"})
        await until(lambda: stage(node) == "withdrawn", within=6)
        came = 0
        while stage(node) == "withdrawn":
            world.counted = replace(world.counted, packets_in=world.counted.packets_in + 10)
            await asyncio.sleep(0.5)
            came += 1
        assert 38 <= came <= 43
        found = leaving(node)
        assert found is not None and found.overdue and "20 packets/s still came" in found.reason.text
        assert told(node)[-1] == ("drained", "warning")


@pytest.mark.parametrize("pause", [2.0, 5.5, 20.0])
async def test_undrain_gives_the_routes_back_from_any_stage(world: World, pause: float) -> None:
    world.put("services/web", WEB)
    async with world.node() as node:
        await until(lambda: plain(world), within=3)
        world.put("drain/lb1", "")
        await asyncio.sleep(pause)
        assert not plain(world)
        world.source.delete("drain/lb1")
        await until(lambda: plain(world), within=0.5)
        assert leaving(node) is None


async def test_a_drained_node_that_restarts_stays_away_and_one_in_the_middle_goes_on(world: World) -> None:
    world.put("services/web", WEB)
    async with world.node():
        await until(lambda: plain(world), within=3)
        world.put("drain/lb1", "")
        await until(lambda: marked(world), within=1)
        await asyncio.sleep(1)
    world.forget()
    async with world.node() as node:
        await until(lambda: stage(node) == "graceful", within=1)
        assert marked(world) and not world.router.writes
        await until(lambda: VIP not in world.announced, within=6)
        await until(lambda: stage(node) == "drained", within=10)
    async with world.node() as node:
        await until(lambda: stage(node) == "withdrawn", within=1)
        await asyncio.sleep(20)
        assert stage(node) == "drained" and VIP not in world.announced
        assert world.kernel.rows["services"], "it could serve"


async def test_a_node_that_stops_is_the_last_choice_first_and_stops_at_once_when_nothing_comes(world: World) -> None:
    world.put("services/web", WEB)
    async with world.node() as node:
        await until(lambda: plain(world), within=3)
        node.stop()
        await until(lambda: marked(world), within=0.1)
        assert world.weights(), "it serves"
        assert await until(lambda: not world.announced, within=5.1) > 4.9
        await asyncio.sleep(9.5)
        assert list(world.weights().values()) == [100] * 3
        await until(lambda: not world.kernel.rows["services"], within=1)
    async with world.node() as node:
        await until(lambda: plain(world), within=3)
        world.put("drain/lb1", "")
        await until(lambda: stage(node) == "drained", within=15)
        node.stop()
        await until(lambda: not world.kernel.rows["addresses"] and not world.weights(), within=0.1)


async def test_a_drain_waits_until_no_backend_leaves_and_tells_the_others(tmp_path: Path) -> None:
    one, two = worlds(tmp_path)
    async with one.node() as first, two.node() as second:
        await company(one, two, first, second)
        fewer = {name: backend for name, backend in WEB["backends"].items() if name != "web3"}
        one.put("services/web", {**WEB, "backends": fewer})
        one.put("drain/lb1", "")
        await until(lambda: stage(first) == "waiting", within=1)
        await asyncio.sleep(3)
        found = leaving(first)
        assert found is not None and found.reason.text.endswith("10.1.0.3:80 is leaving") and plain(one)
        assert view(second, "lb1")["drain"]["stage"] == "waiting"
        await until(lambda: marked(one), within=20)
        assert len(one.weights()) == 2, "web3 has left first"
        await until(lambda: stage(first) == "drained", within=15)
        await until(lambda: view(second, "lb1")["drain"]["stage"] == "drained", within=3)
        assert plain(two)
        assert isinstance(one.registry, MemoryRegistry)
        writes = one.registry.writes
        await asyncio.sleep(600)
        assert one.registry.writes == writes, "a drained node is quiet"


async def test_a_table_that_never_rests_is_not_waited_for_longer_than_told(tmp_path: Path) -> None:
    one, two = worlds(tmp_path, settle="15s")
    async with one.node() as first, two.node() as second:
        await company(one, two, first, second)
        one.put("drain/lb1", "")
        began = asyncio.get_running_loop().time()
        number = 0
        while stage(first) in ("", "waiting"):
            number += 1
            weights = {**WEB["backends"], "web1": {"address": "10.1.0.1", "weight": 50 + number % 2 * 50}}
            one.put("services/web", {**WEB, "backends": weights})
            await asyncio.sleep(1)
        assert 14 <= asyncio.get_running_loop().time() - began <= 17
        found = leaving(first)
        assert found is not None and found.overdue and "no longer than 15 s" in found.reason.text
        assert ("graceful", "warning") in told(first)
        await until(lambda: not one.announced, within=6)


async def test_drains_written_past_the_budget_are_obeyed_one_after_the_other(tmp_path: Path) -> None:
    one, two = worlds(tmp_path, settle="30s")
    async with one.node() as first, two.node() as second:
        await company(one, two, first, second)
        one.put("drain/lb2", "")
        one.put("drain/lb1", "")
        await until(lambda: stage(second) == "drained", within=25)
        found = leaving(first)
        assert found is not None and found.stage == "waiting" and plain(one)
        assert "lb2 is drained too, and at most 1 may be at once" in found.reason.text
        budget = nodes_view(first.snapshot, asyncio.get_running_loop().time())["budget"]
        assert budget == {"max_drained": 1, "drained": ["lb1", "lb2"], "exceeded": True}
        await until(lambda: not one.announced, within=36)
        one.source.delete("drain/lb2")
        await until(lambda: plain(two), within=2)


async def test_the_last_node_hesitates_unless_it_is_forced(tmp_path: Path) -> None:
    one, two = worlds(tmp_path)
    async with one.node() as first:
        await until(lambda: plain(one), within=5)
        await asyncio.sleep(10)
        one.put("drain/lb1", "")
        await asyncio.sleep(50)
        found = leaving(first)
        assert found is not None and f"no other node that stays announces {VIP}" in found.reason.text and plain(one)
        one.put("drain/lb1", {"force": True})
        await until(lambda: marked(one), within=5)
        await until(lambda: not one.announced, within=6)
        async with two.node():
            await until(lambda: plain(two), within=5)


async def test_a_node_whose_sessions_are_down_is_not_the_one_that_stays(tmp_path: Path) -> None:
    """ExaBGP goes on acknowledging routes that it can send to nobody."""
    one, two = worlds(tmp_path)
    one.router.sessions = (Session("198.51.100.1", "up", 0.0),)
    two.router.sessions = (Session("198.51.100.1", "down", 0.0, "hold timer expired"),)
    async with one.node() as first, two.node() as second:
        await company(one, two, first, second)
        assert two.announced == one.announced and view(first, "lb2")["ready"]
        assert not view(first, "lb2")["vips"][str(VIP)]["announced"]
        one.put("drain/lb1", "")
        await asyncio.sleep(50)
        found = leaving(first)
        assert found is not None and found.reason.code == "last_announcer" and plain(one)
        two.router.sessions = (Session("198.51.100.1", "up", 0.0),)
        await until(lambda: marked(one), within=10)


async def test_sessions_of_which_nobody_knows_anything_are_no_reason_to_wait(tmp_path: Path) -> None:
    """ExaBGP reports no changes, as ``neighbor-changes`` is missing: sessions stay as they were first listed."""
    one, two = worlds(tmp_path)
    two.router.sessions = (Session("198.51.100.1", "down", 0.0),)
    async with one.node() as first, two.node() as second:
        await company(one, two, first, second)
        one.put("drain/lb1", "")
        await until(lambda: marked(one), within=10)
