"""Whole nodes that believe each other, or do not, in virtual time: each test is a story."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from anycastlb.adapters.cluster.memory import MemoryRegistry
from anycastlb.core.model import Share
from anycastlb.engine.node import Node
from anycastlb.settings import ClusterSettings
from tests.support.world import VIP, WEB, World, until

BACKENDS = {"10.1.0.1", "10.1.0.2", "10.1.0.3"}
FULL = dict.fromkeys(sorted(BACKENDS), 100)
SICK = "0/3 backends up; 2 of 2 peers reach these backends"
SETTLES = 1.5 + 3.0
"""The check's interval and time-out, and what news may take."""


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry()


def worlds(tmp_path: Path, registry: MemoryRegistry, limit: Share | None = None, **announce: Any) -> list[World]:
    """Three machines that read the same catalog."""
    found = [World(str(tmp_path / name), name=name, drain={"settle": "0s"}) for name in ("lb1", "lb2", "lb3")]
    for world in found:
        world.source, world.registry = found[0].source, registry
        world.settings = world.settings.model_copy(update={"cluster": ClusterSettings(max_withdrawals=limit)})
    found[0].put("services/web", {**WEB, "announce": announce})
    return found


async def together(stack: AsyncExitStack, company: list[World]) -> list[Node]:
    """All of them run, announce, and know that the others do."""
    nodes = [await stack.enter_async_context(world.node()) for world in company]
    await until(lambda: all(world.weights() == FULL and VIP in world.announced for world in company), within=10)
    await until(lambda: all(announcers(node) == len(company) - 1 for node in nodes), within=10)
    return nodes


def announcers(node: Node) -> int:
    peers = node.snapshot.inputs.cluster.peers.values()
    return sum(bool(peer.alive and peer.status and peer.status.vips[VIP].announced) for peer in peers)


def reason(node: Node) -> str:
    return node.snapshot.decision.verdicts[VIP].reason.text


def holders(company: list[World]) -> list[int]:
    return [number for number, world in enumerate(company, 1) if VIP in world.announced]


def kept(node: Node) -> list[tuple[str, str]]:
    events = [record.event for record in node.journal.records()]
    return [(event.after, event.level) for event in events if event.kind == "kept"]


async def test_the_sick_one_steps_aside_and_returns_with_its_peers_table(
    tmp_path: Path, registry: MemoryRegistry
) -> None:
    company = worlds(tmp_path, registry)
    async with AsyncExitStack() as stack:
        first, *_ = await together(stack, company)
        sick = company[0]
        sick.dead |= BACKENDS
        await until(lambda: VIP not in sick.announced, within=4)
        await until(lambda: reason(first) == SICK and sick.weights() == FULL, within=SETTLES + 1)
        for other in company[1:]:
            other.forget()
        sick.forget()
        await asyncio.sleep(60)
        assert reason(first) == SICK and not sick.writes, "it is quiet"
        sick.dead.clear()
        await until(lambda: VIP in sick.announced, within=8)
        assert sick.weights() == FULL
        assert [change.table for change in sick.writes] == ["routes"], "its table never moved"
        assert not any(other.writes for other in company[1:])


@pytest.mark.parametrize("down_interval", [None, "5m"])
async def test_it_does_not_wait_for_ever_for_backends_that_only_peers_reach(
    tmp_path: Path, registry: MemoryRegistry, down_interval: str | None
) -> None:
    company = worlds(tmp_path, registry)
    if down_interval:
        company[0].put("services/web", {**WEB, "check": {**WEB["check"], "down_interval": down_interval}})
    async with AsyncExitStack() as stack:
        first, *_ = await together(stack, company)
        sick = company[0]
        sick.dead |= BACKENDS
        await until(lambda: VIP not in sick.announced and reason(first) == SICK, within=6)
        await asyncio.sleep(600 if down_interval else 0)
        sick.dead = {"10.1.0.3"}
        await until(lambda: "not up here yet" in reason(first), within=310)
        took = await until(lambda: VIP in sick.announced, within=8)
        assert took > 1
        assert sick.weights() == {**FULL, "10.1.0.3": 0}


@pytest.mark.parametrize("fail", ["withdraw", "keep"])
async def test_backends_that_are_dead_for_everybody(tmp_path: Path, registry: MemoryRegistry, fail: str) -> None:
    """Withdrawn by all; or kept by all. Nobody closes, or raises a weight, on what a peer said a moment before."""
    company = worlds(tmp_path, registry, fail=fail)
    async with AsyncExitStack() as stack:
        await together(stack, company)
        for world in company:
            world.forget()
        for world in company:
            world.dead |= BACKENDS
            await asyncio.sleep(0.3)
        if fail == "withdraw":
            await until(lambda: holders(company) == [], within=4)
            await asyncio.sleep(20)
            for world in company:
                lowered = [change for change in world.writes if change.table == "destinations"]
                assert [change.new.weight for change in lowered] == [0, 0, 0]
            return
        for _ in range(300):
            await asyncio.sleep(0.1)
            assert holders(company) == [1, 2, 3]
        assert all(world.weights() == FULL for world in company)


async def test_a_node_that_would_keep_its_route_closes_when_peers_reach_what_it_does_not(
    tmp_path: Path, registry: MemoryRegistry
) -> None:
    company = worlds(tmp_path, registry, fail="keep")
    async with AsyncExitStack() as stack:
        first, *_ = await together(stack, company)
        company[0].dead |= BACKENDS
        await until(lambda: "until the peers can have seen the same" in reason(first), within=4)
        assert holders(company) == [1, 2, 3]
        await until(lambda: holders(company) == [2, 3], within=SETTLES + 1)
        assert reason(first) == SICK
        assert company[0].weights() == FULL
        registry.fail()  # nothing is known of the others any more: its own health, and its own policy
        await until(lambda: holders(company) == [1, 2, 3], within=10)
        registry.heal()
        await until(lambda: holders(company) == [2, 3], within=20)


async def test_one_keeps_the_last_route_and_gives_it_back(tmp_path: Path, registry: MemoryRegistry) -> None:
    company = worlds(tmp_path, registry, last="keep")
    async with AsyncExitStack() as stack:
        nodes = await together(stack, company)
        for world in company:
            world.dead |= BACKENDS
        while holders(company) != [1]:
            assert holders(company)
            await asyncio.sleep(0.05)
        await until(lambda: company[0].weights() == FULL, within=1)
        await asyncio.sleep(30)
        assert kept(nodes[0]) == [("asks", "info"), ("last", "warning")]
        assert holders(company) == [1]
        company[0].put("drain/lb1", "")  # not by health: another takes over
        await until(lambda: holders(company) == [2], within=5)
        company[2].dead.clear()
        await until(lambda: holders(company) == [3], within=10)
        assert kept(nodes[1])[-1] == ("", "info")


async def test_alone_the_last_route_stays(tmp_path: Path, registry: MemoryRegistry) -> None:
    """Nothing is known of other nodes, as with the file source; before it was ever up there is nothing to keep."""
    company = worlds(tmp_path, registry, last="keep")[:1]
    company[0].registry = None
    company[0].dead |= BACKENDS
    async with company[0].node() as node:
        await asyncio.sleep(20)
        assert holders(company) == []
        company[0].dead.clear()
        await until(lambda: company[0].weights() == FULL and holders(company) == [1], within=5)
        company[0].dead |= BACKENDS
        await asyncio.sleep(20)
        assert holders(company) == [1] and company[0].weights() == FULL
        assert "nothing is known of other nodes" in reason(node)
    async with company[0].node() as node:
        await asyncio.sleep(20)
        assert holders(company) == [1], "nor does a restart take it"


def vips(number: int) -> list[str]:
    return [f"192.0.2.{10 + n}" for n in range(number)]


async def test_the_limit_gives_a_second_look(tmp_path: Path, registry: MemoryRegistry) -> None:
    """A check that is wrong everywhere takes two of six VIPs a minute; when it is mended, all return."""
    company = worlds(tmp_path, registry, limit=Share(2))
    for number, vip in enumerate(vips(6)):
        company[0].put(f"services/{'web' if not number else f'web{number}'}", {**WEB, "vip": vip})
    async with AsyncExitStack() as stack:
        nodes = await together(stack, company)
        await until(lambda: all(len(world.announced) == 6 for world in company), within=10)
        await asyncio.sleep(5)
        for world in company:
            world.dead |= BACKENDS
        served = lambda: {vip for world in company for vip in world.announced}  # noqa: E731
        for _ in range(500):
            await asyncio.sleep(0.1)
            assert len(served()) >= 4
        assert len(served()) == 4
        waiting = nodes[0].snapshot.decision.verdicts[ip_address("192.0.2.15")]
        assert waiting.reason.text == (
            "0/3 backends up, needs 1; its withdrawal waits: 2 VIPs were withdrawn by health within a minute, and "
            "cluster.max_withdrawals allows 2"
        )
        assert {level for after, level in kept(nodes[0]) if after == "limit"} == {"error"}
        rows = company[0].kernel.rows["destinations"]
        assert all(row.weight for key, row in rows.items() if key.service.address == waiting.vip)
        await until(lambda: len(served()) == 2, within=20)
        for world in company:
            world.dead.clear()
        await until(lambda: all(len(world.announced) == 6 for world in company), within=10)
        assert not any(item.kept for node in nodes for item in node.snapshot.decision.verdicts.values())


async def test_the_limit_never_holds_a_drain_a_removal_or_a_sick_node(tmp_path: Path, registry: MemoryRegistry) -> None:
    company = worlds(tmp_path, registry, limit=Share(1))
    for number, vip in enumerate(vips(6)):
        company[0].put(f"services/{'web' if not number else f'web{number}'}", {**WEB, "vip": vip})
    async with AsyncExitStack() as stack:
        await together(stack, company)
        await until(lambda: all(len(world.announced) == 6 for world in company), within=10)
        await asyncio.sleep(5)
        company[0].dead |= BACKENDS
        await until(lambda: company[0].announced == set(), within=4 + SETTLES)
        company[0].put("drain/lb2", "")
        await until(lambda: company[1].announced == set(), within=2)
        company[0].source.delete("services/web5")
        await until(lambda: len(company[2].announced) == 5, within=2)


async def test_the_news_of_peers_wakes_only_whom_it_concerns(tmp_path: Path, registry: MemoryRegistry) -> None:
    company = worlds(tmp_path, registry)
    async with AsyncExitStack() as stack:
        first, *_ = await together(stack, company)
        told = json.loads(registry.entries["lb2"].value)
        told["status"]["node"] = "lb9"  # nobody else writes this one
        session = await registry.begin("lb9")

        def peer() -> Any:
            return first.inbox.inputs.cluster.peers.get("lb9")

        def publish(**changes: Any) -> None:
            told["status"].update(changes)
            registry.put("lb9", json.dumps(told).encode(), session)

        publish()
        await until(lambda: peer() is not None, within=2)
        await asyncio.sleep(2)
        version = first.inbox.version
        publish(digests={"web": "f" * 16}, version="99", sessions=[])
        await until(lambda: peer().status.version == "99", within=2)
        assert first.inbox.version == version
        publish(drained=True)
        await until(lambda: first.inbox.version > version, within=2)


async def test_a_status_of_an_older_node_counts_as_far_as_it_goes(tmp_path: Path, registry: MemoryRegistry) -> None:
    company = worlds(tmp_path, registry)[:1]
    async with company[0].node() as node:
        await until(lambda: VIP in company[0].announced and "lb1" in registry.entries, within=10)
        await asyncio.sleep(3)
        told = json.loads(registry.entries["lb1"].value)
        told["status"].update(node="lb0", withdrawn={})
        del told["status"]["vips"][str(VIP)]["own"], told["status"]["services"]["web"][str(VIP)]["dead"]
        registry.put("lb0", json.dumps(told).encode(), await registry.begin("lb0"))
        company[0].dead |= BACKENDS
        await until(lambda: reason(node) == "0/3 backends up; 1 of 1 peers reach these backends", within=6)
        assert replace(node.snapshot.inputs.cluster.peers["lb0"].status.vips[VIP], reason="").own == ""
