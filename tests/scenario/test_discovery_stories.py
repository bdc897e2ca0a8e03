"""The whole daemon on fakes in virtual time, its backends discovered: each test is a story an operator could tell."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from anycastlb.adapters.discovery import Kind, LossRule, endpoint
from anycastlb.adapters.discovery.memory import MemoryDiscovery
from anycastlb.core.model import Instance, Share
from tests.support.world import VIP, WEB, World, until

DISCOVERED: dict[str, Any] = {
    **{field: value for field, value in WEB.items() if field != "backends"},
    "backends_from": {"consul": {"service": "web"}},
}
GRACE = 5.0


def some(*numbers: int) -> tuple[Instance, ...]:
    return tuple(Instance(f"web{n}", ip_address(f"10.1.0.{n}"), created=n) for n in numbers)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(str(tmp_path))


@pytest.fixture
def consul(world: World) -> MemoryDiscovery:
    discovery = MemoryDiscovery(*some(1, 2, 3))
    world.kinds = lambda wanted: Kind(lambda: discovery, LossRule(Share(percent=50.0), GRACE))
    world.put("services/web", DISCOVERED)
    return discovery


async def serving(world: World) -> None:
    await until(lambda: list(world.weights().values()) == [100] * 3, within=3)


async def test_an_instance_leaves_and_drains_and_is_taken_back(world: World, consul: MemoryDiscovery) -> None:
    async with world.node():
        await serving(world)
        assert VIP in world.announced
        consul.put(*some(1, 3))
        await until(lambda: world.weights()["10.1.0.2"] == 0, within=1)
        await asyncio.sleep(5)
        assert world.weights() == {"10.1.0.1": 100, "10.1.0.2": 0, "10.1.0.3": 100}, "its flows may end"
        consul.put(*some(1, 2, 3))
        await until(lambda: world.weights()["10.1.0.2"] == 100, within=3)
        consul.put(*some(1, 3))
        await until(lambda: "10.1.0.2" not in world.weights(), within=12)
        assert VIP in world.announced


async def test_an_election_empties_no_pool(world: World, consul: MemoryDiscovery) -> None:
    async with world.node():
        await serving(world)
        world.forget()
        consul.put()
        await asyncio.sleep(GRACE - 1)
        consul.fail("no cluster leader")
        await asyncio.sleep(60)
        consul.heal()
        await asyncio.sleep(GRACE - 1)
        consul.put(*some(1, 2, 3))
        await asyncio.sleep(60)
        assert not world.writes and VIP in world.announced


async def test_all_instances_fail_their_checks_in_consul(world: World, consul: MemoryDiscovery) -> None:
    async with world.node() as node:
        await serving(world)
        consul.put(unfit=map(endpoint, some(1, 2, 3)), problems=("no instance: none of the 3 passes",))
        await until(lambda: VIP not in world.announced, within=1)
        assert set(world.weights().values()) == {0}, "drained, not dropped"
        (problem,) = node.snapshot.inputs.catalog.problems
        assert str(problem) == "services/web: backends_from: no instance: none of the 3 passes"
        await until(lambda: not world.weights(), within=12)
        consul.put(*some(1, 2, 3))
        await until(lambda: VIP in world.announced, within=3)
        await serving(world)


async def test_a_restart_without_consul_changes_nothing(world: World, consul: MemoryDiscovery) -> None:
    async with world.node():
        await serving(world)
        await asyncio.sleep(1)
    world.forget()
    world.source.fail()
    consul.fail()
    async with world.node() as node:
        await asyncio.sleep(60)
        assert not world.writes and VIP in world.announced
        world.source.heal()
        consul.put(*some(1, 2, 3))
        consul.heal()
        await asyncio.sleep(60)
        assert not world.writes and not node.snapshot.inputs.catalog.problems


async def test_a_restart_that_remembers_nothing_waits_for_consul(world: World, consul: MemoryDiscovery) -> None:
    async with world.node():
        await serving(world)
        await asyncio.sleep(1)
    for path in world.saved():
        path.unlink()
    world.forget()
    async with world.node():
        await asyncio.sleep(60)
        assert not world.writes


async def test_from_written_to_discovered_backends(world: World, consul: MemoryDiscovery) -> None:
    """The same machines, named by Consul from now on: nothing moves, though Consul is slow to answer."""
    world.put("services/web", WEB)
    async with world.node():
        await serving(world)
        world.forget()
        consul.fail()
        world.put("services/web", DISCOVERED)
        await asyncio.sleep(60)
        consul.heal()
        await asyncio.sleep(60)
        assert not world.writes and VIP in world.announced
