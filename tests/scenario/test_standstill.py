"""A node that stood still for longer than ``hold`` lost its routes; it announces what its checks have seen since."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from anycastlb.core.model import DriverError
from anycastlb.engine.node import Node
from anycastlb.engine.standstill import LONGEST
from tests.support.speaker import HOLD, PEERS, SpeakingWorld
from tests.support.world import VIP, WEB, World, until

EVERYONE = {"10.1.0.1", "10.1.0.2", "10.1.0.3"}
SLOW: dict[str, Any] = {**WEB, "check": {"interval": "2s", "timeout": "1s", "fall": 3}}


def stand_still(seconds: float) -> None:
    """The whole process sleeps, as by SIGSTOP or a paused machine."""
    asyncio.get_running_loop()._virtual.now += seconds  # type: ignore[attr-defined]


@asynccontextmanager
async def serving(world: World, document: dict[str, Any]) -> AsyncIterator[Node]:
    """A node whose VIP is announced, some time before its next look."""
    world.put("services/web", document)
    async with world.node() as node:
        await until(lambda: VIP in world.announced and all(world.weights().values()), within=70)
        await asyncio.sleep(5.3)
        yield node


@asynccontextmanager
async def with_bridge(tmp_path: Path, document: dict[str, Any]) -> AsyncIterator[SpeakingWorld]:
    world = SpeakingWorld(str(tmp_path))
    living = asyncio.ensure_future(world.speaker.live())  # noqa: TID251
    try:
        async with serving(world, document):
            yield world
    finally:
        living.cancel()


async def announcements(world: SpeakingWorld, seconds: float) -> list[bool]:
    """Whether all routers have the route, each time that this changes; in the end too."""
    end, seen = asyncio.get_running_loop().time() + seconds, list[bool]()
    while asyncio.get_running_loop().time() < end:
        await asyncio.sleep(0.01)
        now = any(VIP in world.speaker.exabgp.announced(peer) for peer in PEERS)
        seen += [now] if seen[-1:] != [now] else []
    return seen


@pytest.mark.parametrize("seconds", [20.0, 600.0])
async def test_what_died_meanwhile_is_withdrawn_before_the_first_proof_of_life(tmp_path: Path, seconds: float) -> None:
    world = World(str(tmp_path))
    async with serving(world, SLOW):
        heartbeats, fed = len(world.router.heartbeats), asyncio.get_running_loop().time()
        world.dead = set(EVERYONE)
        stand_still(seconds)
        await until(lambda: len(world.router.heartbeats) > heartbeats, within=LONGEST)
        assert VIP not in world.announced
        assert asyncio.get_running_loop().time() > fed + seconds + 1, "its checks have been answered three times"


@pytest.mark.parametrize("seconds", [HOLD + 3, 600.0])
async def test_no_router_gets_a_route_again_whose_backends_died_meanwhile(tmp_path: Path, seconds: float) -> None:
    async with with_bridge(tmp_path, SLOW) as world:
        world.dead = set(EVERYONE)
        stand_still(seconds)
        assert await announcements(world, 30) in ([True, False], [False])


@pytest.mark.parametrize("document", [SLOW, {**WEB, "check": {"type": "none"}}], ids=["checked", "not checked"])
async def test_what_is_still_well_is_announced_again_with_its_first_answers(
    tmp_path: Path, document: dict[str, Any]
) -> None:
    async with with_bridge(tmp_path, document) as world:
        stand_still(600)
        await asyncio.sleep(0.1)
        await until(lambda: VIP in world.announced, within=4)
        assert await announcements(world, 30) == [True]


async def test_checks_that_were_not_due_meanwhile_are_not_waited_for(tmp_path: Path) -> None:
    async with with_bridge(tmp_path, {**WEB, "check": {"interval": "60s", "timeout": "1s"}}) as world:
        stand_still(HOLD + 3)
        await asyncio.sleep(0.1)
        await until(lambda: VIP in world.announced, within=1.5)


async def test_one_backend_without_an_answer_keeps_no_route_away_for_long(tmp_path: Path) -> None:
    check = {"interval": "5s", "timeout": "4s", "fall": 100}
    async with with_bridge(tmp_path, {**WEB, "check": check}) as world:
        world.dead = {"10.1.0.2"}
        stand_still(600)
        await asyncio.sleep(1)
        assert VIP not in world.announced, "its last answer contradicts the verdict"
        await until(lambda: VIP in world.announced, within=LONGEST + 2)


async def test_what_waits_says_why(tmp_path: Path) -> None:
    world = World(str(tmp_path))
    async with serving(world, SLOW) as node:
        world.router.rows["routes"].clear()
        world.dead = set(EVERYONE)
        stand_still(600)
        await until(lambda: bool(node.snapshot.failures), within=1.5)
        (waits,) = node.snapshot.failures
        assert waits.reason.code == "stood_still" and "stood still for 60" in waits.reason.text


async def test_a_blind_node_does_not_stand_still(tmp_path: Path) -> None:
    """Its checks go on, so that it proves life as soon as it sees, whatever turns just then."""
    world = World(str(tmp_path))
    real = world.kernel.observe

    async def unread() -> Any:
        raise DriverError("no answer")

    async with serving(world, SLOW) as node:
        world.kernel.observe = unread  # type: ignore[method-assign]
        node.inbox.wake()
        await asyncio.sleep(HOLD + 3)
        (check, *_) = [check for check in node.inbox.inputs.health if str(check.address) == "10.1.0.2"]
        world.dead = {"10.1.0.2"}
        await until(lambda: node.inbox.inputs.health[check].streak > 0, within=4)
        heartbeats, world.kernel.observe = len(world.router.heartbeats), real  # type: ignore[method-assign]
        await until(lambda: len(world.router.heartbeats) > heartbeats, within=1.1)
        assert node.inbox.inputs.health[check].up
