"""Stories of the return: a VIP is back soon after enough of its backends are, whatever a dead one does."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.world import VIP, WEB, World, until

INTERVAL, TIMEOUT = 2.0, 1.0
DEAD = "10.1.0.3"
SEEDS = range(8)
PROMISE = INTERVAL + TIMEOUT + 0.05


def web(down_interval: str | None, hold_up: float = 0.0) -> dict[str, object]:
    check = {"interval": f"{INTERVAL:g}s", "timeout": f"{TIMEOUT:g}s"}
    check |= {"down_interval": down_interval} if down_interval else {}
    return {**WEB, "check": check, "announce": {"hold_up": f"{hold_up:g}s"}}


async def return_took(world: World, enough: int = 2) -> float:
    """Seconds from enough backends in the table to the route."""
    await until(lambda: sum(weight > 0 for weight in world.weights().values()) >= enough, within=700)
    return await until(lambda: VIP in world.announced, within=700)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("down_interval", [None, "5m"])
async def test_a_first_start_with_one_dead_backend(tmp_path: Path, seed: int, down_interval: str | None) -> None:
    world = World(str(tmp_path), seed=seed)
    world.put("services/web", web(down_interval))
    world.dead = {DEAD}
    async with world.node():
        assert await return_took(world) <= PROMISE


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("down_interval, dead_for", [(None, 60), ("30s", 600), ("5m", 3600)])
async def test_the_end_of_an_outage_with_one_backend_dead_before(
    tmp_path: Path, seed: int, down_interval: str | None, dead_for: float
) -> None:
    world = World(str(tmp_path), seed=seed)
    world.put("services/web", web(down_interval, hold_up=1.0))
    async with world.node():
        await until(lambda: VIP in world.announced, within=20)
        world.dead = {DEAD}
        await asyncio.sleep(dead_for)
        world.dead |= {"10.1.0.1", "10.1.0.2"}
        await until(lambda: VIP not in world.announced, within=60)
        await asyncio.sleep(dead_for / 10)
        world.dead = {DEAD}
        assert await return_took(world) <= PROMISE + 1.0


@pytest.mark.parametrize("seed", SEEDS)
async def test_what_was_cut_off_together_comes_back_together(tmp_path: Path, seed: int) -> None:
    """With backends that are asked every five minutes, the first that answers wakes the others' checks."""
    world = World(str(tmp_path), seed=seed)
    world.put("services/web", web("5m"))
    everyone = {"10.1.0.1", "10.1.0.2", DEAD}
    async with world.node():
        await until(lambda: VIP in world.announced, within=20)
        world.dead = set(everyone)
        await asyncio.sleep(3600)
        world.dead = set()
        await until(lambda: VIP in world.announced, within=310)
        assert all(world.weights().values()), "the route came with all of them"
