"""Nothing in virtual time asks the machine for the time or for chance: a story is a function of its seed."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from types import FrameType
from typing import Any

from anycastlb.adapters.cluster.memory import MemoryRegistry
from anycastlb.adapters.discovery import Kind, LossRule
from anycastlb.adapters.discovery.memory import MemoryDiscovery
from anycastlb.adapters.drivers.names.memory import Board, MemoryRecordStore
from anycastlb.core.events import Event
from anycastlb.core.model import Instance, Share
from tests.support import virtual
from tests.support.world import VIP, WEB, World, until

MACHINE = (
    *(time.time, time.monotonic, time.perf_counter, time.time_ns, time.monotonic_ns, time.clock_gettime),
    *(os.urandom, random.random),
)
NAMES = """
[dns]
server = "127.0.0.1"
zone = "example.net"
subdomain = "lb"
tsig_key_file = "/nowhere"
"""
SHOP = {
    **{key: WEB[key] for key in ("port", "check")},
    "vip": "192.0.2.11",
    "backends_from": {"consul": {"service": "shop"}},
}


@contextmanager
def watched() -> Iterator[list[str]]:
    """Where the product asks the machine for the time or for chance, in the block."""
    asked: list[str] = []

    def look(frame: FrameType, event: str, call: Any) -> None:
        if event == "c_call" and frame.f_globals["__name__"].startswith("anycastlb.") and call in MACHINE:
            asked.append(f"{frame.f_globals['__name__']}.{frame.f_code.co_name}: {call.__name__}")

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        yield asked
    finally:
        sys.setprofile(before)


async def everything_fails(state: Path, seed: int) -> list[object]:
    """A cluster, names and discoveries in trouble, and all that two nodes said and wrote in it, with the times."""
    registry, board, discovery = MemoryRegistry(), Board(), MemoryDiscovery()
    worlds = [World(str(state / name), NAMES, seed=seed, name=name) for name in ("lb1", "lb2")]
    one, two = worlds
    two.source = one.source
    discovery.put(*(Instance(f"s{n}", ip_address(f"10.2.0.{n}"), created=n) for n in (1, 2, 3)))
    for world in worlds:
        world.registry, world.places = registry, [MemoryRecordStore(board)]
        world.kinds = lambda wanted: Kind(lambda: discovery, LossRule(Share(percent=50.0), 5.0))
    one.put("services/web", {**WEB, "dns": {"name": "www"}})
    one.put("services/shop", SHOP)
    seen: list[object] = []

    def note(world: World, event: Event) -> None:
        seen.append((asyncio.get_running_loop().time(), world.settings.node.name, event))

    async with AsyncExitStack() as stack:
        for world in worlds:
            node = await stack.enter_async_context(world.node())
            node.journal.observers.append(partial(note, world))
        await until(lambda: all(len(world.announced) == 2 for world in worlds), within=20)
        for part in (one.source, registry, discovery):
            part.fail()
        one.dead.add("10.1.0.1")
        await asyncio.sleep(40)
        for part in (one.source, registry, discovery):
            part.heal()
        two.dead.update({"10.1.0.1", "10.1.0.2", "10.1.0.3"})
        await asyncio.sleep(40)
        assert VIP in one.announced and VIP not in two.announced
    return [*seen, *(change for world in worlds for change in world.writes)]


def test_a_story_is_a_function_of_its_seed(tmp_path: Path) -> None:
    runs = (("first", 1), ("again", 1), ("other", 2))
    stories = [virtual.run(everything_fails(tmp_path / name, seed)) for name, seed in runs]
    assert len(stories[0]) > 30
    assert stories[0] == stories[1]
    assert stories[0] != stories[2]


async def test_nothing_asks_the_machine_for_time_or_chance(tmp_path: Path) -> None:
    with watched() as asked:
        await everything_fails(tmp_path, 1)
    assert set(asked) == {"anycastlb.adapters.system.journal.emit: time"}, "only the log is dated by the machine"
