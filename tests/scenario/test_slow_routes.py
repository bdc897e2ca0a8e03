"""A node whose speaker takes seconds for every route: what is under way is neither a failure nor done."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest

from anycastlb.core.model import Change, Failure, Reason
from anycastlb.engine.node import Node
from tests.support.world import VIP, WEB, MemoryAnnouncer, World, until

SLOW = 3.0


class SlowAnnouncer(MemoryAnnouncer):
    """It does what it was asked for, ``SLOW`` seconds later, and does not say so."""

    def __init__(self) -> None:
        super().__init__()
        self._under_way: set[Change] = set()

    async def apply(self, changes: Sequence[Change]) -> Sequence[Failure]:
        for change in set(changes) - self._under_way:
            self._under_way.add(change)
            asyncio.get_running_loop().call_later(SLOW, self._finish, change)
        return [Failure(change, Reason("route_under_way", "under way"), pending=True) for change in changes]

    def _finish(self, change: Change) -> None:
        self._under_way.discard(change)
        self.writes.append(change)
        self._write(change)


def routes_told(node: Node) -> list[str]:
    """The kinds of all events about routes."""
    kinds = [record.event.kind for record in node.journal.records()]
    return [kind for kind in kinds if kind.startswith("routes.") or kind == "failure"]


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(str(tmp_path), resync="1s")
    world.router = SlowAnnouncer()
    return world


async def test_a_route_under_way_is_no_failure_and_told_once_when_it_is_there(world: World) -> None:
    world.put("services/web", WEB)
    async with world.node() as node:
        await until(lambda: node.snapshot.decision.verdicts.get(VIP), within=5)
        await until(lambda: node.snapshot.decision.verdicts[VIP].open, within=5)
        await asyncio.sleep(SLOW / 2)
        assert node.snapshot.failures == () and VIP not in node.snapshot.actual.routes
        assert routes_told(node) == []
        await until(lambda: VIP in node.snapshot.actual.routes, within=SLOW)
        await asyncio.sleep(5)
        assert routes_told(node) == ["routes.create"]
        assert len(world.router.writes) == 1


async def test_life_is_proven_while_routes_are_under_way(world: World) -> None:
    world.put("services/web", WEB)
    async with world.node():
        await until(lambda: VIP in world.announced, within=10)
        heartbeats = world.router.heartbeats
        assert max(b - a for a, b in itertools.pairwise(heartbeats)) <= 1.01


async def test_nothing_is_torn_down_under_a_route_that_is_still_leaving(world: World) -> None:
    world.put("services/web", {**WEB, "drain": "0s"})
    async with world.node() as node:
        await until(lambda: VIP in world.announced, within=10)
        world.put("services/api", {**WEB, "vip": "192.0.2.11"})
        await until(lambda: len(world.announced) == 2, within=10)
        world.source.delete("services/web")
        left = asyncio.get_running_loop().time() + SLOW
        while VIP in world.announced:
            assert VIP in world.kernel.rows["addresses"]
            assert asyncio.get_running_loop().time() < left + 3
            await asyncio.sleep(0.05)
        await until(lambda: VIP not in world.kernel.rows["addresses"], within=2)
        assert routes_told(node) == ["routes.create", "routes.create", "routes.delete"], "waiting is no failure"
