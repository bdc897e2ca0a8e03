"""What a node does when nothing happens: it makes the next change cheap."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address
from pathlib import Path

from anycastlb.engine.decider import LARGE, QUIET, REPEATS
from tests.support.world import World, until

SERVICES = LARGE + 20


def fill(world: World) -> None:
    for number in range(SERVICES):
        address = str(IPv4Address("10.1.0.1") + number)
        document = {"vip": str(IPv4Address("192.0.2.1") + number), "port": 80, "check": {"type": "none"}}
        world.put(f"services/s{number}", {**document, "backends": {"b": {"address": address}}})


async def test_a_large_decision_is_repeated_until_it_stands(tmp_path: Path) -> None:
    world = World(str(tmp_path), resync="60s")
    fill(world)
    async with world.node() as node:
        await until(lambda: len(world.announced) == SERVICES, within=10)
        await asyncio.sleep((REPEATS + 1) * QUIET)
        made, cycle = node.reconciler.decider.made, node.snapshot.cycle
        assert made is not None
        world.put("services/s7", {"vip": "192.0.2.8", "port": 80, "check": {"type": "none"}})
        await until(lambda: node.snapshot.cycle > cycle, within=2)
        verdicts = node.snapshot.decision.verdicts
        anew = [vip for vip, verdict in verdicts.items() if verdict is not made.decision.verdicts[vip]]
        assert anew == [IPv4Address("192.0.2.8")]
        await asyncio.sleep(10)
        at_rest = node.reconciler.decider.made
        await asyncio.sleep(10)
        assert node.reconciler.decider.made is at_rest, "it is not repeated for ever"
