"""Every registry keeps the same promises, and members of a cluster find each other through any: the one in memory, and
a real Consul."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest

from anycastlb.adapters.cluster import Denied, Identity, Membership, Registry
from anycastlb.adapters.cluster.consul import ConsulRegistry
from anycastlb.adapters.cluster.members import Members
from anycastlb.adapters.cluster.memory import MemoryRegistry
from anycastlb.adapters.cluster.status_document import moment
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.model import Cluster, Policy, Snapshot, SourceError
from anycastlb.settings import ConsulSettings
from tests.support import scene
from tests.support.consul import ROOT_TOKEN, Agent
from tests.support.waiting import eventually

PATIENCE = 180.0
"""Seconds until a test gives up; no registry needs them."""
ROUNDS = int(os.environ.get("ANYCASTLB_ROUNDS", "2"))
"""How often all sessions are lost; ``ANYCASTLB_ROUNDS=8`` by hand."""
QUIET = 1.2
"""Seconds in which a registry that has nothing to tell must stay silent."""


class World(Protocol):
    """Where registries meet, and the hand that meddles with it."""

    def registry(self) -> Registry: ...
    async def put(self, node: str, value: bytes) -> None: ...
    async def delete(self, node: str) -> None: ...
    async def expire(self) -> None:
        """Every session ends."""
        ...

    async def wipe(self) -> None:
        """All data is lost."""
        ...

    async def breaks(self) -> None: ...
    async def heals(self) -> None: ...


class MemoryWorld:
    def __init__(self) -> None:
        self.shared = MemoryRegistry()

    def registry(self) -> Registry:
        return self.shared

    async def put(self, node: str, value: bytes) -> None:
        self.shared.put(node, value)

    async def delete(self, node: str) -> None:
        self.shared.delete(node)

    async def expire(self) -> None:
        self.shared.expire()

    async def wipe(self) -> None:
        self.shared.wipe()

    async def breaks(self) -> None:
        self.shared.fail()

    async def heals(self) -> None:
        self.shared.heal()


class ConsulWorld:
    def __init__(self, agent: Agent) -> None:
        self.agent = agent

    def registry(self) -> Registry:
        return ConsulRegistry(ConsulSettings(address=self.agent.address, wait="2s"))

    async def put(self, node: str, value: bytes) -> None:
        await asyncio.to_thread(self.agent.put, f"anycastlb/nodes/{node}", value)

    async def delete(self, node: str) -> None:
        await asyncio.to_thread(self.agent.delete, f"anycastlb/nodes/{node}")

    def end_sessions(self) -> None:
        for session in json.loads(self.agent.call("GET", "/v1/session/list")):
            self.agent.call("PUT", f"/v1/session/destroy/{session['ID']}")

    async def expire(self) -> None:
        await asyncio.to_thread(self.end_sessions)

    async def wipe(self) -> None:
        await asyncio.to_thread(self.agent.kill)
        await asyncio.to_thread(self.agent.start, empty=True)

    async def breaks(self) -> None:
        await asyncio.to_thread(self.agent.kill)

    async def heals(self) -> None:
        await asyncio.to_thread(self.agent.start)


@pytest.fixture(params=["memory", "consul"])
async def world(request: pytest.FixtureRequest) -> World:
    if request.param == "memory":
        return MemoryWorld()
    made = ConsulWorld(request.getfixturevalue("agent"))
    made.end_sessions()
    made.agent.delete("anycastlb/", below=True)
    return made


@pytest.fixture
async def registry(world: World) -> AsyncIterator[Registry]:
    registry = world.registry()
    yield registry
    await registry.close()


async def reading(registry: Registry, after: Membership | None) -> Membership:
    async with asyncio.timeout(PATIENCE):
        return await registry.read(after)


def values(roll: Membership) -> dict[str, bytes]:
    return {name: posted.value for name, posted in roll.entries.items()}


# ---------------------------------------------------------------- the registry


async def test_what_is_written_is_read_under_its_session(registry: Registry) -> None:
    assert not (await reading(registry, None)).entries
    session = await registry.begin("lb1")
    assert await registry.write("lb1", b"1", session)
    (posted,) = (await reading(registry, None)).entries.values()
    assert (posted.value, posted.session) == (b"1", session)


async def test_a_reader_is_told_of_writes_and_ends(world: World, registry: Registry) -> None:
    other = world.registry()
    session = await registry.begin("lb1")
    before = await reading(other, None)
    assert await registry.write("lb1", b"1", session)
    assert values(before := await reading(other, before)) == {"lb1": b"1"}
    assert await registry.write("lb1", b"2", session)
    assert values(before := await reading(other, before)) == {"lb1": b"2"}
    await registry.end(session)
    assert values(before := await reading(other, before)) == {}
    await other.close()


async def test_the_same_again_is_no_news(world: World, registry: Registry) -> None:
    session = await registry.begin("lb1")
    assert await registry.write("lb1", b"1", session)
    before = await reading(registry, None)
    assert await registry.write("lb1", b"1", session)
    assert await registry.renew(session)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(QUIET):
            await registry.read(before)


async def test_a_name_belongs_to_one_session_and_is_free_at_once_when_it_ends(registry: Registry) -> None:
    first, second = await registry.begin("lb1"), await registry.begin("lb1")
    assert await registry.write("lb1", b"first", first)
    assert not await registry.write("lb1", b"second", second)
    assert values(await reading(registry, None)) == {"lb1": b"first"}
    await registry.end(first)
    assert await registry.write("lb1", b"second", second), "a lock-delay keeps the next process from its key"


async def test_a_session_that_has_ended_is_told_apart(world: World, registry: Registry) -> None:
    session = await registry.begin("lb1")
    assert await registry.renew(session)
    await world.expire()
    assert not await registry.renew(session)
    with pytest.raises(SourceError):
        await registry.write("lb1", b"1", session)
    await registry.end(session)


async def test_sessions_outlive_a_registry_that_was_away(world: World, registry: Registry) -> None:
    session = await registry.begin("lb1")
    assert await registry.write("lb1", b"1", session)
    before = await reading(registry, None)
    await world.breaks()
    with pytest.raises(SourceError):
        await reading(registry, before)
    with pytest.raises(SourceError):
        await registry.renew(session)
    await world.heals()
    assert await registry.renew(session)
    assert values(await reading(registry, None)) == {"lb1": b"1"}


async def test_what_is_too_large_is_refused_by_name(registry: Registry) -> None:
    session = await registry.begin("lb1")
    assert await registry.write("lb1", b"x" * (512 * 1024 - 1), session)
    with pytest.raises(Denied, match=r"of 600000 bytes .*too large"):
        await registry.write("lb1", b"x" * 600_000, session)
    assert len(values(await reading(registry, None))["lb1"]) == 512 * 1024 - 1


# ---------------------------------------------------------------- members


class Member:
    """One node as the cluster sees it."""

    def __init__(
        self,
        world: World,
        name: str,
        snapshot: Snapshot | None = None,
        started_wall: float = 0.0,
    ) -> None:
        self.journal = Journal()
        self.cluster = Cluster()
        self.seen: list[Cluster] = []
        snapshot = snapshot or scene.calm()
        self.snapshot = replace(snapshot, inputs=replace(snapshot.inputs, policy=Policy(name)))
        identity = Identity(name, f"on {name}", moment(started_wall or time.time()))
        self.members = Members(identity, world.registry(), self._publish, self.journal)
        self.members.observe(self.snapshot)

    def _publish(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.seen.append(cluster)

    def alive(self) -> set[str]:
        return {name for name, peer in self.cluster.peers.items() if peer.alive}

    def lost_sessions(self) -> list[str]:
        return [reason for reason in self.reasons("warning") if "its session was ended" in reason]

    def reasons(self, level: str) -> list[str]:
        return [record.event.reason for record in self.journal.records() if record.event.level == level]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Member]:
        """At the end of the block it dies as by kill -9."""
        task = asyncio.ensure_future(self.members.run())  # noqa: TID251
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def long(holds: Callable[[], bool]) -> None:
    """Wait until that holds; fail after ``PATIENCE``."""
    async with asyncio.timeout(PATIENCE):
        while not holds():
            await asyncio.sleep(0.02)


async def test_members_find_each_other_and_one_leaves(world: World) -> None:
    async with Member(world, "lb1").running() as one, Member(world, "lb2").running() as two:
        await long(lambda: one.alive() == {"lb2"} and two.alive() == {"lb1"})
        status = one.cluster.peers["lb2"].status
        assert status is not None and status.node == "lb2"
        assert status.vips[scene.WEB4].announced
        assert status.services["web"][scene.WEB4].down == ("web3",)
        assert one.cluster.connected and one.cluster.published
        assert not one.cluster.tables and one.cluster.catalogs is None
        await two.members.leave()
        await eventually(lambda: not one.alive())
        assert one.cluster.peers["lb2"].status == status, "what it said last is still known"


async def test_a_change_is_published_and_a_quiet_node_writes_nothing(world: World) -> None:
    async with Member(world, "lb1").running() as one, Member(world, "lb2").running() as two:
        await long(lambda: one.alive() == {"lb2"} and two.alive() == {"lb1"})
        peer = one.cluster.peers["lb2"]
        for cycle in range(100, 108):
            two.members.observe(replace(two.snapshot, cycle=cycle, at=two.snapshot.at + cycle))
            await asyncio.sleep(0.3)
        assert one.cluster.peers["lb2"] is peer, "it wrote although it had nothing new to say"
        two.members.observe(replace(two.snapshot, inputs=replace(two.snapshot.inputs, stopping=True)))
        await long(lambda: bool((status := one.cluster.peers["lb2"].status) and status.stopping))


async def test_a_member_whose_session_was_ended_publishes_anew(world: World) -> None:
    async with Member(world, "lb1").running() as one, Member(world, "lb2").running() as two:
        await long(lambda: one.alive() == {"lb2"} and two.alive() == {"lb1"})
        await world.expire()
        await long(lambda: not two.cluster.peers["lb1"].alive or not one.cluster.peers["lb2"].alive)
        await long(lambda: one.alive() == {"lb2"} and two.alive() == {"lb1"})
        assert any("session was ended" in reason for reason in one.reasons("warning"))


async def test_every_view_equals_the_truth_however_often_all_sessions_are_lost(world: World) -> None:
    """Four members publish anew in the same moments, and each must see what every other has published last."""
    members = [Member(world, f"lb{number}") for number in range(1, 5)]
    names = {member.snapshot.inputs.node for member in members}
    registry = world.registry()

    def views() -> list[set[str]]:
        return [member.alive() | {member.snapshot.inputs.node} for member in members]

    async with AsyncExitStack() as stack:
        for member in members:
            await stack.enter_async_context(member.running())
        await long(lambda: views() == [names] * 4)
        for lost in range(1, ROUNDS + 1):
            await world.expire()
            await long(lambda lost=lost: all(len(m.lost_sessions()) >= lost for m in members))  # type: ignore[misc]
            async with asyncio.timeout(PATIENCE):
                while (await registry.read(None)).entries.keys() != names:
                    await asyncio.sleep(0.05)
            await eventually(lambda: views() == [names] * 4)
    await registry.close()


async def test_all_data_is_lost_and_the_members_publish_anew(world: World) -> None:
    async with Member(world, "lb1").running() as one, Member(world, "lb2").running() as two:
        await long(lambda: one.alive() == {"lb2"} and two.alive() == {"lb1"})
        await world.wipe()
        await long(lambda: one.cluster.connected and one.alive() == {"lb2"} and two.alive() == {"lb1"})
        registry = world.registry()
        await_names = {"lb1", "lb2"}
        async with asyncio.timeout(PATIENCE):
            while set((await registry.read(None)).entries) != await_names:
                await asyncio.sleep(0.1)
        await registry.close()


async def test_while_the_registry_is_away_the_last_view_stays(world: World) -> None:
    async with Member(world, "lb1").running() as one, Member(world, "lb2").running() as two:
        await long(lambda: one.alive() == {"lb2"} and two.alive() == {"lb1"})
        await world.breaks()
        await long(lambda: not one.cluster.connected)
        assert one.cluster.error and one.alive() == {"lb2"}
        del one.seen[:]
        await asyncio.sleep(1.0)
        await world.heals()
        await long(lambda: one.cluster.connected and two.cluster.connected)
        await asyncio.sleep(0.5)
        assert all(cluster.peers["lb2"].alive for cluster in one.seen), "it flapped"


async def test_the_next_process_of_a_node_takes_its_key_over_without_a_gap(world: World) -> None:
    registry = world.registry()
    async with Member(world, "lb1").running() as one:
        async with Member(world, "lb2", started_wall=1000.0).running() as two:
            await long(lambda: one.alive() == {"lb2"} and two.alive() == {"lb1"})
        (before,) = [p for name, p in (await registry.read(None)).entries.items() if name == "lb2"]
        del one.seen[:]
        async with Member(world, "lb2", started_wall=2000.0).running() as two:
            await long(lambda: one.cluster.peers["lb2"].status.started > "1970-01-01T00:30")  # type: ignore[union-attr]
            assert all(cluster.peers["lb2"].alive for cluster in one.seen), "its key was gone meanwhile"
            (after,) = [p for name, p in (await registry.read(None)).entries.items() if name == "lb2"]
            assert after.session == before.session and after.value != before.value
    await registry.close()


async def test_an_older_process_yields_to_a_newer_one(world: World) -> None:
    async with Member(world, "lb1", started_wall=1000.0).running() as old:
        await long(lambda: old.cluster.published)
        async with Member(world, "lb1", started_wall=2000.0).running() as new:
            await long(lambda: new.cluster.published and not old.cluster.published)
            assert "newer process" in old.reasons("error")[0]


async def test_garbage_of_a_peer_is_named_and_hurts_nobody(world: World) -> None:
    async with Member(world, "lb1").running() as one:
        await long(lambda: one.cluster.published)
        await world.put("lb7", b"\x00\xff not json")
        await world.put("lb8", b'{"format": 99, "status": []}')
        await long(lambda: len(one.cluster.peers) == 2)
        assert "expected a node's status" in one.cluster.peers["lb7"].error
        assert "format 99" in one.cluster.peers["lb8"].error
        assert not one.alive()
        await world.delete("lb7")
        await long(lambda: one.cluster.connected and one.cluster.published)


@pytest.mark.parametrize("meddle", ["put", "delete"])
async def test_what_somebody_does_to_our_key_is_put_right(world: World, meddle: str) -> None:
    registry = world.registry()
    async with Member(world, "lb1").running() as one:
        await long(lambda: one.cluster.published)
        good = (await registry.read(None)).entries["lb1"]
        await (world.put("lb1", b"junk") if meddle == "put" else world.delete("lb1"))
        async with asyncio.timeout(PATIENCE):
            while (await registry.read(None)).entries.get("lb1") != good:
                await asyncio.sleep(0.1)
    await registry.close()


# ---------------------------------------------------------------- only in Consul


class Guarded:
    """A Consul with ACLs, and the token file of one node."""

    def __init__(self, agent: Agent, token: Path) -> None:
        self.agent, self.token = agent, token

    def registry(self) -> Registry:
        return ConsulRegistry(ConsulSettings(address=self.agent.address, wait="2s", token_file=str(self.token)))

    def allow(self, rules: str) -> None:
        """From now on the node's token is one with these rules."""
        name = f"rules-{time.monotonic_ns()}"
        self.agent.call("PUT", "/v1/acl/policy", json.dumps({"Name": name, "Rules": rules}))
        made = self.agent.call("PUT", "/v1/acl/token", json.dumps({"Policies": [{"Name": name}]}))
        self.token.write_text(json.loads(made)["SecretID"])


READ = 'key_prefix "anycastlb/" { policy = "read" }'
PUBLISH = READ + ' session_prefix "" { policy = "write" } key_prefix "anycastlb/nodes/" { policy = "write" }'


@pytest.fixture
def guarded(require: Callable[[str], str], tmp_path: Path) -> Iterator[Guarded]:
    acl = {"enabled": True, "default_policy": "deny", "tokens": {"master": ROOT_TOKEN}}
    agent = Agent(require("consul"), tmp_path, acl=acl, primary_datacenter="dc1")
    agent.token = ROOT_TOKEN
    agent.start()
    yield Guarded(agent, tmp_path / "token")
    agent.kill()


@pytest.mark.parametrize("rules", [READ, READ + ' session_prefix "" { policy = "write" }'], ids=["read", "session"])
async def test_a_token_that_may_not_publish_is_told_what_is_missing(guarded: Guarded, rules: str) -> None:
    guarded.allow(rules)
    async with Member(guarded, "lb1").running() as one:  # type: ignore[arg-type]
        await long(lambda: bool(one.cluster.problems))
        (problem,) = one.cluster.problems
        assert 'session_prefix "" { policy = "write" }' in problem.expected
        assert 'key_prefix "anycastlb/nodes/" { policy = "write" }' in problem.expected
        assert one.reasons("error") == [problem.expected]
        assert one.cluster.connected, "it still sees the others"
        assert not one.cluster.published


async def test_the_policy_that_is_named_is_enough(guarded: Guarded) -> None:
    guarded.allow(PUBLISH)
    async with Member(guarded, "lb1").running() as one:  # type: ignore[arg-type]
        await long(lambda: one.cluster.published)
        await asyncio.sleep(4)  # a renewal
        assert not one.cluster.problems
        await one.members.leave()
        registry = guarded.registry()
        assert "lb1" not in (await registry.read(None)).entries
        await registry.close()


async def test_a_session_that_is_not_renewed_ends(agent: Agent) -> None:
    """Consul itself lets a dead node's status go, within twice the time to live."""
    registry = ConsulRegistry(ConsulSettings(address=agent.address, wait="2s"))
    session = await registry.begin("lb5")
    assert await registry.write("lb5", b"1", session)
    start = time.monotonic()
    roll = await reading(registry, None)
    async with asyncio.timeout(2 * registry.ttl + 10):
        while "lb5" in roll.entries:
            roll = await registry.read(roll)
    assert time.monotonic() - start >= registry.ttl - 1
    await registry.close()


async def test_nobody_waits_for_the_catalog_because_of_a_status(agent: Agent) -> None:
    """What the nodes publish lies below the catalog's prefix, and is no part of any catalog."""
    from anycastlb.adapters.sources.consul import ConsulSource

    source = ConsulSource(ConsulSettings(address=agent.address, wait="2s"))
    async with Member(ConsulWorld(agent), "lb1").running() as one:
        await long(lambda: one.cluster.published)
        tree = await source.read(None)
        assert not [key for key in tree.entries if key.startswith("nodes/")]
    await source.close()
