"""Every discovery keeps the same promises: the one in memory, a real Consul, and a real name server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol

import pytest

from anycastlb.adapters.discovery import Discovery, DiscoveryAnswer, ordered
from anycastlb.adapters.discovery.consul import ConsulConnections, ConsulDiscovery
from anycastlb.adapters.discovery.dns import DnsDiscovery
from anycastlb.adapters.discovery.memory import MemoryDiscovery
from anycastlb.core.model import ConsulInstances, DnsInstances, Instance, SourceError
from anycastlb.settings import ConsulSettings
from tests.support.consul import Agent, Registry
from tests.support.nsd import NameServer

PATIENCE = 180.0
"""Seconds until a test gives up; no discovery needs them."""
QUIET = 1.2
"""Seconds in which a discovery that has nothing to tell must stay silent."""


class World(Protocol):
    """A discovery, and the hand that changes what it finds."""

    discovery: Discovery

    async def put(self, *numbers: int) -> None:
        """From now on the instances are those at 10.1.0.<number>, and no others."""
        ...

    async def breaks(self) -> None: ...
    async def heals(self) -> None: ...


class MemoryWorld:
    def __init__(self) -> None:
        self.discovery = MemoryDiscovery()

    async def put(self, *numbers: int) -> None:
        self.discovery.put(*(Instance(f"web{number}", ip_address(f"10.1.0.{number}")) for number in numbers))

    async def breaks(self) -> None:
        self.discovery.fail()

    async def heals(self) -> None:
        self.discovery.heal()


class ConsulWorld:
    def __init__(self, agent: Agent) -> None:
        self.registry = Registry(agent)
        self.numbers: set[int] = set()
        self.discovery = ConsulDiscovery(
            ConsulInstances("web"), ConsulConnections(ConsulSettings(address=agent.address, wait="2s"))
        )

    async def put(self, *numbers: int) -> None:
        for number in sorted(set(numbers) - self.numbers):
            await asyncio.to_thread(self.registry.register, number)
        if gone := self.numbers - set(numbers):
            await asyncio.to_thread(self.registry.deregister, *gone)
        self.numbers = set(numbers)

    async def breaks(self) -> None:
        await asyncio.to_thread(self.registry.agent.kill)

    async def heals(self) -> None:
        await asyncio.to_thread(self.registry.agent.start)


class DnsWorld:
    def __init__(self, server: NameServer) -> None:
        self.server = server
        wanted = DnsInstances("web.example.org", "A", ip_address("127.0.0.1"))
        self.discovery = DnsDiscovery(wanted, port=server.port, shortest=0.1)

    async def put(self, *numbers: int) -> None:
        await asyncio.to_thread(self.server.put, [f"web 0 A 10.1.0.{number}" for number in numbers])

    async def breaks(self) -> None:
        await asyncio.to_thread(self.server.kill)

    async def heals(self) -> None:
        await asyncio.to_thread(self.server.start)


@pytest.fixture(scope="module")
def name_server(require: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[NameServer]:
    server = NameServer(require("nsd"), tmp_path_factory.mktemp("nsd"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(params=["memory", "consul", "dns"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    made: World
    if request.param == "memory":
        made = MemoryWorld()
    elif request.param == "consul":
        made = ConsulWorld(request.getfixturevalue("agent"))
    else:
        made = DnsWorld(request.getfixturevalue("name_server"))
        await made.put()
    yield made
    await made.put()
    await made.discovery.close()


async def reading(discovery: Discovery, after: DiscoveryAnswer | None) -> DiscoveryAnswer:
    async with asyncio.timeout(PATIENCE):
        return await discovery.read(after)


async def silent(discovery: Discovery, after: DiscoveryAnswer) -> bool:
    """Whether the discovery has nothing to tell."""
    try:
        async with asyncio.timeout(QUIET):
            await discovery.read(after)
    except TimeoutError:
        return True
    return False


def found(answer: DiscoveryAnswer) -> list[int]:
    """The last octets of the instances, in their order."""
    return [int(str(instance.address).rpartition(".")[2]) for instance in answer.instances]


async def test_a_first_read_is_the_whole_answer(world: World) -> None:
    await world.put(1, 2, 3)
    answer = await reading(world.discovery, None)
    assert found(answer) == [1, 2, 3] and answer.instances == ordered(answer.instances)
    assert len({instance.name for instance in answer.instances}) == 3


async def test_nothing_is_an_answer(world: World) -> None:
    assert found(await reading(world.discovery, None)) == []


async def test_it_waits_until_the_answer_differs(world: World) -> None:
    await world.put(1)
    answer = await reading(world.discovery, None)
    assert await silent(world.discovery, answer)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(reading(world.discovery, answer))
        await asyncio.sleep(0.1)
        await world.put(1, 2)
    assert found(waiting.result()) == [1, 2]


async def test_all_of_them_leave_and_return(world: World) -> None:
    await world.put(1, 2)
    answer = await reading(world.discovery, None)
    await world.put()
    answer = await reading(world.discovery, answer)
    while found(answer):
        answer = await reading(world.discovery, answer)
    assert await silent(world.discovery, answer)
    await world.put(2, 3)
    while found(answer) != [2, 3]:
        answer = await reading(world.discovery, answer)


async def test_a_change_between_two_reads_is_not_missed(world: World) -> None:
    await world.put(1)
    answer = await reading(world.discovery, None)
    await world.put(1, 2)
    assert found(await reading(world.discovery, answer)) == [1, 2]


async def test_a_read_that_was_broken_off_can_be_repeated(world: World) -> None:
    await world.put(1)
    answer = await reading(world.discovery, None)
    for number in range(2, 4):
        assert await silent(world.discovery, answer)
        await world.put(*range(1, number + 1))
        answer = await reading(world.discovery, answer)
        assert found(answer) == list(range(1, number + 1))


async def test_every_change_is_seen_in_the_end(world: World) -> None:
    answer = await reading(world.discovery, None)
    async with asyncio.TaskGroup() as group:

        async def change() -> None:
            for number in range(1, 20):
                await world.put(number, number + 1)

        group.create_task(change())
        while sorted(found(answer)) != [19, 20]:
            answer = await reading(world.discovery, answer)
    assert await silent(world.discovery, answer)


async def test_names_outlast_a_change(world: World) -> None:
    await world.put(1, 2)
    before = await reading(world.discovery, None)
    await world.put(2, 3)
    names = {instance.name for instance in (await reading(world.discovery, None)).instances}
    assert before.instances[1].name in names and before.instances[0].name not in names


async def test_it_says_when_nobody_answers_and_answers_again_after_that(world: World) -> None:
    await world.put(1)
    answer = await reading(world.discovery, None)
    async with asyncio.TaskGroup() as group:

        async def fails() -> None:
            with pytest.raises(SourceError):
                await reading(world.discovery, answer)

        group.create_task(fails())
        await asyncio.sleep(0.1)
        await world.breaks()
    with pytest.raises(SourceError):
        await reading(world.discovery, None)
    await world.heals()
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                if found(await reading(world.discovery, None)) == [1]:
                    break
            except SourceError:
                await asyncio.sleep(0.05)


async def test_closed_twice_and_read_again(world: World) -> None:
    await world.put(1)
    answer = await reading(world.discovery, None)
    assert await silent(world.discovery, answer)
    await world.discovery.close()
    await world.discovery.close()
    assert (await reading(world.discovery, None)).same(answer)


async def test_many_reads_leave_nothing_open(world: World) -> None:
    def open_files() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    await world.put(1)
    for _ in range(5):
        await world.discovery.read(None)
    before = open_files()
    for _ in range(200):
        await world.discovery.read(None)
    assert open_files() <= before + 1
