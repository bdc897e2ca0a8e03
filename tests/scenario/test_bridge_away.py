"""A node whose bridge is away: its routes wait, are reported, and cost nothing until the bridge is back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from anycastlb.core.model import Change, Reason
from tests.support.world import VIP, WEB, World, until

AWAY = Reason("bridge_away", "ExaBGP's bridge is not connected")


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(str(tmp_path))
    world.router.away = AWAY
    world.put("services/web", WEB)
    return world


def routes(changes: list[Change]) -> list[Change]:
    return [change for change in changes if change.table == "routes"]


async def test_a_route_waits_with_its_reason_and_is_announced_when_the_bridge_is_back(world: World) -> None:
    async with world.node() as node:
        await until(lambda: node.snapshot.failures, within=10)
        (failure,) = node.snapshot.failures
        assert (failure.change.key, failure.reason, failure.pending) == (VIP, AWAY, False)
        assert set(world.weights().values()) == {100}, "all else is done"
        assert not world.router.writes
        world.router.away = None
        node.inbox.wake(("routes",))
        await until(lambda: VIP in world.announced, within=1)
        assert node.snapshot.failures == ()
    told = [record.event.code for record in node.journal.records() if record.event.kind == "failure"]
    assert told == ["bridge_away"], "once"


async def test_a_failure_that_lasts_is_the_same_object(world: World) -> None:
    other = {**WEB, "vip": "192.0.2.11"}
    world.put("services/other", other)
    async with world.node() as node:
        await until(lambda: len(node.snapshot.failures) == 2, within=10)
        await asyncio.sleep(5)
        cycles, failures = node.snapshot.cycle, set(map(id, node.snapshot.failures))
        world.put("services/other", {**other, "announce": {"med": 5}})
        await until(lambda: node.snapshot.cycle > cycles, within=2)
        same = [failure.change.key for failure in node.snapshot.failures if id(failure) in failures]
        assert same == [VIP] and len(node.snapshot.failures) == 2, "of the other service another route is wanted now"


async def test_no_look_is_taken_for_a_route_that_waits(world: World) -> None:
    async with world.node() as node:
        await until(lambda: node.snapshot.failures, within=10)
        cycles, looks = node.snapshot.cycle, world.kernel.looks
        node.inbox.wake(())
        await until(lambda: node.snapshot.cycle > cycles, within=2)
        assert world.kernel.looks == looks


async def test_a_withdrawal_is_not_kept_from_a_bridge_that_was_lost(world: World) -> None:
    world.router.away = None
    async with world.node() as node:
        await until(lambda: VIP in world.announced, within=10)
        world.router.away = AWAY
        world.dead |= {"10.1.0.1", "10.1.0.2", "10.1.0.3"}
        await until(lambda: routes(world.router.writes)[-1].new is None, within=20)
        assert not node.snapshot.failures
