"""Stories of pools: floors, fallbacks, thresholds, ramps and drains, told by the whole daemon in virtual time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.world import VIP, WEB, World, until

FOUR = {**WEB, "backends": {f"web{n}": {"address": f"10.1.0.{n}"} for n in range(1, 5)}}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(str(tmp_path))


def pooled(world: World) -> set[str]:
    """The last numbers of the backends that get flows."""
    return {address.rsplit(".", 1)[1] for address, weight in world.weights().items() if weight}


async def all_up(world: World, count: int = 4) -> None:
    await until(lambda: list(world.weights().values()) == [100] * count, within=5)


async def test_two_of_four_fail_and_the_floor_keeps_one_pooled(world: World) -> None:
    world.put("services/web", {**FOUR, "max_failed": "25%"})
    async with world.node() as node:
        await all_up(world)
        world.dead.add("10.1.0.1")
        await until(lambda: pooled(world) == {"2", "3", "4"}, within=5)
        world.dead.add("10.1.0.2")
        await asyncio.sleep(10)
        assert pooled(world) == {"2", "3", "4"}, "the one that failed last stays in"
        reasons = {v.backend: v.reason for v in node.snapshot.decision.backends.values()}
        assert reasons["web2"] == "down: connection refused; kept in by the floor (max_failed 25%)"
        assert node.snapshot.decision.verdicts[VIP].reason == "2/4 backends up", "the gate is not fooled"
        world.dead.discard("10.1.0.1")
        await until(lambda: pooled(world) == {"1", "3", "4"}, within=5)


async def test_an_edit_does_not_get_around_the_floor(world: World) -> None:
    """Wikimedia, 2015: a configuration change let the depool threshold be bypassed, and everything was depooled."""
    world.put("services/web", {**FOUR, "max_failed": "50%"})
    async with world.node() as node:
        await all_up(world)
        world.dead |= {"10.1.0.1", "10.1.0.2", "10.1.0.3"}
        await until(lambda: len(pooled(world)) == 2, within=6)
        for edit in ({"drain": "11s"}, {"scheduler": "wrr"}, {"check": {**WEB["check"], "fall": 1}}):
            world.put("services/web", {**FOUR, "max_failed": "50%", **edit})
            for _ in range(50):
                await asyncio.sleep(0.1)
                assert len(pooled(world)) >= 2
        assert node.snapshot.inputs.catalog.services


async def test_the_sorry_server_takes_over_and_steps_back(world: World) -> None:
    sorry = {**WEB["backends"], "sorry": {"address": "10.1.0.9", "fallback": True}}
    world.put("services/web", {**WEB, "backends": sorry})
    async with world.node() as node:
        await until(lambda: pooled(world) == {"1", "2", "3"}, within=5)
        await asyncio.sleep(5)
        world.forget()
        world.dead |= {"10.1.0.1", "10.1.0.2", "10.1.0.3"}
        await until(lambda: pooled(world) == {"9"}, within=5)
        await asyncio.sleep(2)
        assert VIP in world.announced
        assert node.snapshot.decision.verdicts[VIP].reason == "0/3 backends up; 1 fallback serving"
        assert not [change for change in world.writes if change.table == "routes"], "the route never moved"
        world.put("services/web", {**WEB, "backends": sorry, "announce": {"fallback": "withdraw"}})
        await until(lambda: VIP not in world.announced, within=1)
        world.dead.clear()
        await until(lambda: pooled(world) == {"1", "2", "3"} and VIP in world.announced, within=5)


async def test_it_takes_more_to_reopen_than_to_stay_open(world: World) -> None:
    world.put("services/web", {**FOUR, "announce": {"min_backends": 2, "reopen": 4}})
    async with world.node() as node:
        await until(lambda: VIP in world.announced, within=5)
        world.dead |= {"10.1.0.1", "10.1.0.2"}
        await asyncio.sleep(10)
        assert VIP in world.announced, "two are enough to stay"
        world.dead.add("10.1.0.3")
        await until(lambda: VIP not in world.announced, within=5)
        world.dead -= {"10.1.0.2", "10.1.0.3"}
        await asyncio.sleep(10)
        reason = node.snapshot.decision.verdicts[VIP].reason
        assert VIP not in world.announced and reason == "3/4 backends up, needs 4 to open again"
        world.dead.clear()
        await until(lambda: VIP in world.announced, within=5)


async def test_a_service_that_flaps_is_damped(world: World) -> None:
    damping = {"half_life": "30s", "suppress": 2000, "reuse": 750, "longest": "5m"}
    world.put("services/web", {**WEB, "announce": {"damping": damping}})
    everyone = {"10.1.0.1", "10.1.0.2", "10.1.0.3"}
    async with world.node() as node:
        await until(lambda: VIP in world.announced, within=5)
        for _ in range(3):
            world.dead |= everyone
            await until(lambda: VIP not in world.announced, within=5)
            world.dead.clear()
            await asyncio.sleep(4)
        verdict = node.snapshot.decision.verdicts[VIP]
        assert VIP not in world.announced and "damped: penalty" in verdict.reason and verdict.penalty > 2000
        took = await until(lambda: VIP in world.announced, within=120)
        assert took > 30


async def test_a_removed_backend_goes_when_its_last_connection_does(world: World) -> None:
    world.put("services/web", {**WEB, "drain": "10m"})
    async with world.node():
        await all_up(world, 3)
        fewer = {name: backend for name, backend in WEB["backends"].items() if name != "web2"}
        world.put("services/web", {**WEB, "drain": "10m", "backends": fewer})
        await until(lambda: world.weights()["10.1.0.2"] == 0, within=1)
        await asyncio.sleep(60)
        assert "10.1.0.2" in world.weights(), "it has connections"
        world.kernel.idle |= {key for key in world.kernel.rows["destinations"] if str(key.address) == "10.1.0.2"}
        await until(lambda: "10.1.0.2" not in world.weights(), within=5.1)


async def test_a_drained_backend_leaves_and_returns_to_its_place(world: World) -> None:
    world.put("services/web", WEB)
    async with world.node() as node:
        await all_up(world, 3)
        drained = {**WEB["backends"], "web1": {"address": "10.1.0.1", "drain": True}}
        world.put("services/web", {**WEB, "backends": drained})
        await until(lambda: world.weights()["10.1.0.1"] == 0, within=1)
        verdicts = {v.backend: v.reason for v in node.snapshot.decision.backends.values()}
        assert verdicts["web1"] == "drained"
        took = await until(lambda: "10.1.0.1" not in world.weights(), within=12)
        assert took > 9
        world.put("services/web", WEB)
        await all_up(world, 3)
        assert list(world.weights()) == ["10.1.0.1", "10.1.0.2", "10.1.0.3"]


async def test_an_operators_weight_does_not_touch_the_configured_one(world: World) -> None:
    world.put("services/web", WEB)
    async with world.node():
        await all_up(world, 3)
        set_to = {**WEB["backends"], "web1": {"address": "10.1.0.1", "override": 30}}
        world.put("services/web", {**WEB, "backends": set_to})
        await until(lambda: world.weights()["10.1.0.1"] == 30, within=1)
        world.dead.add("10.1.0.1")
        await until(lambda: world.weights()["10.1.0.1"] == 0, within=5)
        world.dead.clear()
        await until(lambda: world.weights()["10.1.0.1"] == 30, within=5)
        world.put("services/web", WEB)
        await all_up(world, 3)


async def test_slow_start_by_history(world: World) -> None:
    world.put("services/web", {**WEB, "slow_start": "history"})
    async with world.node():
        await all_up(world, 3)
        world.dead.add("10.1.0.1")
        await until(lambda: world.weights()["10.1.0.1"] == 0, within=5)
        world.dead.clear()
        await until(lambda: world.weights()["10.1.0.1"] > 0, within=5)
        seen = []
        for _ in range(200):
            seen.append(world.weights()["10.1.0.1"])
            await asyncio.sleep(1)
        assert seen == sorted(seen) and seen[0] < 100 and seen[-1] >= 90


async def test_fast_while_turning_and_slow_while_down(world: World) -> None:
    times = {"interval": "10s", "fast_interval": "1s", "down_interval": "60s", "timeout": "1s", "fall": 3}
    world.put("services/web", {**WEB, "check": times})
    async with world.node():
        await until(lambda: list(world.weights().values()) == [100] * 3, within=12)
        world.dead.add("10.1.0.1")
        took = await until(lambda: world.weights()["10.1.0.1"] == 0, within=30)
        assert took <= 10 + 2 * 1 + 0.1, "the second and third look came fast"
        await asyncio.sleep(300)
        before = world.probes["10.1.0.1"]
        await asyncio.sleep(600)
        assert world.probes["10.1.0.1"] - before <= 600 / 54 + 1, "a dead backend is asked once a minute"
        world.dead.clear()
        await until(lambda: world.weights()["10.1.0.1"] == 100, within=62)
