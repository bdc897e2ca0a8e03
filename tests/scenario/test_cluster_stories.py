"""Two whole nodes and the place where they know of each other, in virtual time: each test is a story."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random
from typing import Any

import pytest

from anycastlb.adapters.cluster import status_bytes
from anycastlb.adapters.cluster.memory import MemoryRegistry
from anycastlb.core.model import Status, VipSummary
from anycastlb.engine.node import Node
from anycastlb.serving.views.cluster import announcers, nodes_view
from tests.support.world import SEED, VIP, WEB, World, until


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry()


def worlds(tmp_path: Path, registry: MemoryRegistry, seed: int = SEED) -> tuple[World, World]:
    """Two machines that read the same catalog."""
    one, two = (World(str(tmp_path / name), name=name, seed=seed) for name in ("lb1", "lb2"))
    two.source = one.source
    for world in (one, two):
        world.registry = registry
        world.put("services/web", WEB)
    return one, two


def alive(node: Node) -> set[str]:
    return {name for name, peer in node.snapshot.inputs.cluster.peers.items() if peer.alive}


def view(node: Node) -> dict[str, Any]:
    return nodes_view(node.snapshot, asyncio.get_running_loop().time())


def peer_events(node: Node) -> list[tuple[str, str]]:
    records = node.journal.records()
    return [(record.event.subject, record.event.after) for record in records if record.event.kind == "peer"]


async def test_two_nodes_meet_and_one_dies(tmp_path: Path, registry: MemoryRegistry) -> None:
    one, two = worlds(tmp_path, registry)
    async with one.node() as first:
        async with two.node() as second:
            await until(lambda: alive(first) == {"lb2"} and alive(second) == {"lb1"}, within=10)
            await until(lambda: announcers(first.snapshot)[VIP] == ["lb1", "lb2"], within=5)
            assert first.snapshot.inputs.cluster.tables == {}
            cycles = first.snapshot.cycle
            await asyncio.sleep(0.5)
            assert first.snapshot.cycle <= cycles + 1, "a peer's status woke the reconciler"
        took = await until(lambda: not alive(first), within=21)
        assert took >= 9
        assert first.snapshot.inputs.cluster.peers["lb2"].status is not None
        assert peer_events(first) == [("lb2", "alive"), ("lb2", "gone")]
        await asyncio.sleep(590)
        assert len(view(first)["nodes"]) == 2, "a node that died is remembered for ten minutes"
        await asyncio.sleep(15)
        assert len(view(first)["nodes"]) == 1
        assert first.snapshot.inputs.cluster.peers == {}


async def test_a_quiet_day_writes_nothing(tmp_path: Path, registry: MemoryRegistry) -> None:
    one, two = worlds(tmp_path, registry)
    async with one.node() as first, two.node() as second:
        await until(lambda: alive(first) == {"lb2"} and alive(second) == {"lb1"}, within=10)
        await asyncio.sleep(10)
        writes = registry.writes
        await asyncio.sleep(3600)
        assert registry.writes == writes
        assert alive(first) == {"lb2"} and alive(second) == {"lb1"}


async def test_a_node_that_stops_is_seen_to_stop_and_takes_its_status_away(
    tmp_path: Path, registry: MemoryRegistry
) -> None:
    one, two = worlds(tmp_path, registry)
    async with one.node() as first, two.node() as second:
        await until(lambda: alive(first) == {"lb2"} and VIP in two.announced, within=10)
        second.stop()
        await until(lambda: view(first)["nodes"][1]["stopping"], within=3)
        await until(lambda: not alive(first), within=12)
        assert set(registry.entries) == {"lb1"}
        events = [record.event for record in first.journal.records() if record.event.after == "gone"]
        assert [(event.reason, event.level) for event in events] == [("it had stopped", "info")]


async def test_a_restart_shows_no_gap_and_no_vip_that_is_not_announced(
    tmp_path: Path, registry: MemoryRegistry
) -> None:
    one, two = worlds(tmp_path, registry)
    async with one.node() as first:
        async with two.node():
            await until(lambda: announcers(first.snapshot).get(VIP) == ["lb1", "lb2"], within=10)
            session = registry.entries["lb2"].session
        await asyncio.sleep(5)
        two.started_wall += 100
        async with two.node() as second:
            until_published = asyncio.get_running_loop().time() + 10
            while asyncio.get_running_loop().time() < until_published:
                assert announcers(first.snapshot)[VIP] == ["lb1", "lb2"]
                await asyncio.sleep(0.05)
            assert alive(second) == {"lb1"}
            posted = registry.entries["lb2"]
            assert posted.session == session
            assert status_bytes.decode(posted.value, "lb2").started == view(second)["nodes"][0]["started"]
        assert peer_events(first) == [("lb2", "alive")]


async def test_without_the_registry_everything_goes_on(tmp_path: Path, registry: MemoryRegistry) -> None:
    one, two = worlds(tmp_path, registry)
    async with one.node() as first, two.node() as second:
        await until(lambda: alive(first) == {"lb2"} and alive(second) == {"lb1"}, within=10)
        for world in (one, two):
            await until(
                lambda world=world: VIP in world.announced and [*world.weights().values()] == [100] * 3,
                within=5,
            )
        two.forget()
        registry.fail()
        await asyncio.sleep(15)  # shorter than Consul lets sessions live on without a renewal
        told = view(first)
        assert (told["connected"], told["error"]) == (False, "the registry is down")
        assert alive(first) == {"lb2"}
        one.dead.add("10.1.0.1")
        await until(lambda: one.weights()["10.1.0.1"] == 0, within=10)
        one.dead.clear()
        registry.heal()
        await until(lambda: view(first)["connected"], within=6)
        await until(lambda: alive(first) == {"lb2"} and alive(second) == {"lb1"}, within=10)
        assert not two.writes


@pytest.mark.parametrize("seed", range(20))
async def test_nodes_that_all_lost_their_sessions_meet_again(
    tmp_path: Path, registry: MemoryRegistry, seed: int
) -> None:
    """Both publish anew in the same moment, so that one reads the other's status while it renews its own session."""
    one, two = worlds(tmp_path, registry)
    one.chance, two.chance = Random(seed), Random(seed)
    async with one.node() as first, two.node() as second:
        await until(lambda: alive(first) == {"lb2"} and alive(second) == {"lb1"}, within=10)
        registry.fail()
        await asyncio.sleep(5)
        registry.expire()
        registry.heal()
        await asyncio.sleep(15)
        assert (alive(first), alive(second)) == ({"lb2"}, {"lb1"})


@pytest.mark.parametrize("offset", [0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 1.5, 2.0])
async def test_after_all_sessions_were_lost_living_nodes_know_each_other(tmp_path: Path, offset: float) -> None:
    """Consul was restored: every key and session is gone at once, and a read shows changes of a quarter of a second."""
    registry = MemoryRegistry(distance=0.25)
    one, two = worlds(tmp_path, registry)
    async with one.node() as first:
        await asyncio.sleep(offset)
        async with two.node() as second:
            await until(lambda: alive(first) == {"lb2"} and alive(second) == {"lb1"}, within=10)
            registry.wipe()
            await asyncio.sleep(15)
            assert (alive(first), alive(second)) == ({"lb2"}, {"lb1"})


async def test_what_a_peer_publishes_while_this_node_renews_its_session_is_seen(tmp_path: Path) -> None:
    """This node's session is ended at every tenth of a second between two renewals, and a peer publishes just after."""
    registry = MemoryRegistry(distance=0.25)
    one, _ = worlds(tmp_path, registry)
    announced = True
    async with one.node() as first:
        await until(lambda: "lb1" in registry.entries and VIP in one.announced, within=10)
        for tenth in range(36):
            await asyncio.sleep(tenth / 10)
            await registry.end(registry.entries["lb1"].session)
            await asyncio.sleep(0.1)
            announced = not announced
            peer = Status(
                "lb2", ready=True, services={}, digests={}, vips={VIP: VipSummary(announced, announced, own="well")}
            )
            registry.put("lb2", status_bytes.encode(peer), "held for ever")
            await asyncio.sleep(5)
            assert announcers(first.snapshot)[VIP] == ["lb1", "lb2"][: 1 + announced], tenth


async def test_a_node_that_may_not_publish_goes_on_and_names_what_is_missing(
    tmp_path: Path, registry: MemoryRegistry
) -> None:
    one, _ = worlds(tmp_path, registry)
    registry.denied = "403; expected a policy"
    async with one.node() as first:
        await until(lambda: VIP in one.announced, within=10)
        await asyncio.sleep(300)
        reasons = [record.event.reason for record in first.journal.records() if record.event.kind == "cluster"]
        assert reasons == ["403; expected a policy"], "told once"
        (problem,) = first.snapshot.inputs.cluster.problems
        assert problem.key == "nodes/lb1"
        registry.denied = ""
        await until(lambda: set(registry.entries) == {"lb1"}, within=31)
        assert not first.snapshot.inputs.cluster.problems


async def test_a_status_that_is_not_whole_or_refused_as_too_large_is_a_problem_with_a_name(
    tmp_path: Path, registry: MemoryRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = worlds(tmp_path, registry)
    monkeypatch.setattr(status_bytes, "PLAIN", 100)
    monkeypatch.setattr(status_bytes.fit, "__defaults__", (400,))
    async with one.node() as first:
        await until(lambda: VIP in one.announced, within=10)
        await until(lambda: bool(first.snapshot.inputs.cluster.problems), within=10)
        (problem,) = first.snapshot.inputs.cluster.problems
        assert problem.key == "nodes/lb1" and "vips.reason, digests" in problem.expected
        assert first.snapshot.inputs.cluster.published
        registry.limit = 100
        one.dead.add("10.1.0.1")
        await until(lambda: not first.snapshot.inputs.cluster.published, within=60)
        assert "is too large; expected at most 100" in first.snapshot.inputs.cluster.problems[0].expected
        reasons = [record.event.reason for record in first.journal.records() if record.event.kind == "cluster"]
        assert len(reasons) == 2, "each is told once"


async def test_two_machines_with_one_name(tmp_path: Path, registry: MemoryRegistry) -> None:
    """The second says so once it is sure, serves all the same, and takes the name when it is free."""
    one, _ = worlds(tmp_path, registry)
    twin = World(str(tmp_path / "twin"), name="lb1")
    twin.source, twin.registry = one.source, registry
    async with twin.node() as second, one.node() as first:
        await until(lambda: bool(registry.entries), within=10)
        await until(lambda: first.snapshot.inputs.cluster.problems, within=40)
        assert "set another [node] name" in first.snapshot.inputs.cluster.problems[0].expected
        assert VIP in one.announced and VIP in twin.announced
        assert status_bytes.decode(registry.entries["lb1"].value, "lb1").instance == twin.settings.node.state_dir
        assert not second.snapshot.inputs.cluster.problems
        second.stop()
        await until(lambda: first.snapshot.inputs.cluster.published, within=60)
        assert not first.snapshot.inputs.cluster.problems
        assert status_bytes.decode(registry.entries["lb1"].value, "lb1").instance == one.settings.node.state_dir


async def test_a_table_that_differs_is_told_once_it_lasts(tmp_path: Path, registry: MemoryRegistry) -> None:
    one, two = worlds(tmp_path, registry)
    async with one.node() as first, two.node() as second:
        await until(lambda: announcers(first.snapshot).get(VIP) == ["lb1", "lb2"], within=10)
        await asyncio.sleep(3)
        assert first.snapshot.inputs.cluster.tables == {}
        two.dead.add("10.1.0.2")
        await until(lambda: "web" in first.snapshot.inputs.cluster.tables, within=10)
        assert view(first)["differs"] == []
        await until(lambda: view(first)["differs"], within=6)
        (told,) = view(first)["differs"]
        assert sorted(told["nodes"].values()) == [["lb1"], ["lb2"]]
        two.dead.clear()
        await until(lambda: not view(first)["differs"] and not view(second)["differs"], within=10)


async def test_a_changed_catalog_makes_no_lasting_difference(tmp_path: Path, registry: MemoryRegistry) -> None:
    one, two = worlds(tmp_path, registry)
    async with one.node() as first, two.node() as second:
        await until(lambda: alive(first) == {"lb2"} and alive(second) == {"lb1"}, within=10)
        for seconds in (2, 10, 30):
            one.put("services/web", {**WEB, "backends": {"web1": {"address": "10.1.0.1"}}, "drain": "0s"})
            await asyncio.sleep(0.3)
            one.put("services/web", {**WEB, "slow_start": f"{seconds}s"})
            for _ in range(100):
                assert not view(first)["differs"] and not view(first)["catalogs_differ"]
                await asyncio.sleep(0.1)
        assert not first.snapshot.inputs.catalog.problems
        hashes = {node["catalog"]["hash"] for node in view(first)["nodes"]}
        assert len(hashes) == 1 and "" not in hashes


async def test_which_catalog_a_node_has_is_published_now_and_then_and_what_it_decides_at_once(
    tmp_path: Path, registry: MemoryRegistry
) -> None:
    one, two = worlds(tmp_path, registry)
    async with one.node() as node, two.node() as other:
        await until(lambda: announcers(node.snapshot).get(VIP) == ["lb1", "lb2"], within=20)
        await asyncio.sleep(10)
        writes = registry.writes
        for number in range(8):  # within four seconds
            one.put("services/web", {**WEB, "drain": f"{20 + number}s"})
            await asyncio.sleep(0.5)
        assert registry.writes - writes <= 4, "of each node the first and one more"
        one.dead |= {"10.1.0.1", "10.1.0.2", "10.1.0.3"}
        await until(lambda: VIP not in one.announced, within=10)
        await until(lambda: announcers(other.snapshot)[VIP] == ["lb2"], within=3)
