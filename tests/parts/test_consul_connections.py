"""Hundreds of discovered services against a real Consul, which resets the connections beyond its limit."""

from __future__ import annotations

import asyncio
import json
import time

from anycastlb.adapters.discovery import Kind, LossRule
from anycastlb.adapters.discovery.consul import PAUSE, ConsulConnections, ConsulDiscovery
from anycastlb.adapters.discovery.watch import Watches
from anycastlb.adapters.sources.consul import ConsulSource
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.model import ConsulInstances, Discover, Share, Tree
from anycastlb.settings import ConsulSettings
from tests.lab import lateness
from tests.support.consul import Agent

SERVICES = 500


def registered(service: str, *ports: int) -> str:
    return json.dumps({"Name": service, "ID": f"{service}-{ports[0]}", "Port": ports[0], "Address": "10.1.0.1"})


def web(tree: Tree) -> str | None:
    entry = tree.entries.get("services/web")
    return entry and entry.value.decode()


async def test_five_hundred_discoveries_leave_the_catalog_its_connections(agent: Agent) -> None:
    settings = ConsulSettings(address=agent.address)
    connections, source = ConsulConnections(settings), ConsulSource(settings)

    def kind(wanted: Discover) -> Kind:
        assert isinstance(wanted, ConsulInstances)
        return Kind(lambda: ConsulDiscovery(wanted, connections), LossRule(Share(percent=50.0), 5.0))

    watches = Watches(kind, lambda: None, Journal())
    wanted = [ConsulInstances(f"service-{number}") for number in range(SERVICES)]
    watches.want(wanted)
    trees: list[Tree] = []

    async def follow() -> None:
        while True:  # an error fails the test
            trees.append(await source.read(trees[-1] if trees else None))

    async with asyncio.timeout(180), asyncio.TaskGroup() as group:
        tasks = [group.create_task(watches.run())]
        await watches.answered(60, afresh=True)
        tasks.append(group.create_task(follow()))
        latencies = []
        for number in range(5):
            begun = lateness.now()
            document = json.dumps({"number": number})
            await asyncio.to_thread(agent.put, "anycastlb/services/web", document)
            while not trees or web(trees[-1]) != document:
                await asyncio.sleep(0.01)
            lateness.kept(5, begun, "the change of the catalog was seen")
            latencies.append(time.monotonic() - begun)
            await asyncio.sleep(0.5)
        begun = lateness.now()
        for one in (wanted[0], wanted[-1]):
            await asyncio.to_thread(agent.call, "PUT", "/v1/agent/service/register", registered(one.service, 80))
        while {wanted[0], wanted[-1]} - {one for one, found in watches.instances.items() if found}:
            await asyncio.sleep(0.1)
        seen = time.monotonic() - begun
        failing = {problem for told in watches.problems.values() for problem in told if "no instance:" not in problem}
        assert not {problem for problem in failing if "not believed" not in problem}
        lateness.kept(3 * PAUSE, begun, "new instances were seen", until=begun + seen)
        print(f"the catalog is seen after {max(latencies):.3f} s at most, new instances after {seen:.1f} s")
        for task in tasks:
            task.cancel()
    await source.close()
