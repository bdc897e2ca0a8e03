"""What nodes ask of Consul: ``python -m tests.bench.consul [--nodes 100] [--discoveries 500]``.

A real Consul with its own limits, and the real readers and writers of nodes, all in this process: of one node with many
discovered services, and of many nodes that publish statuses and follow those of the others and the catalog. Counted are
requests, blocking queries, bytes of answers and connections, in quiet and when something changes. It needs Consul; no
root, and no IPVS. Counts do not depend on how busy the machine is; the seconds do.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from anycastlb.adapters.cluster import Identity
from anycastlb.adapters.cluster.consul import ConsulRegistry
from anycastlb.adapters.cluster.members import Members
from anycastlb.adapters.consul.client import HTTPClient
from anycastlb.adapters.discovery import Kind, LossRule
from anycastlb.adapters.discovery.consul import ConsulConnections, ConsulDiscovery
from anycastlb.adapters.discovery.watch import Watches
from anycastlb.adapters.sources.consul import ConsulSource
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.model import NO_REASON, Cluster, ConsulInstances, Decision, Inputs, Policy, Share, Snapshot, Verdict
from anycastlb.settings import ConsulSettings
from tests.rig.require import require
from tests.support.consul import Agent

QUIET = 30.0
"""Seconds for which it is counted."""
LARGEST = 290_000
"""Bytes of the status of a node with 10,000 VIPs (docs/OPERATIONS.md, Size)."""


@dataclass
class Traffic:
    """What was asked of Consul since the last ``take``."""

    requests: int = 0
    blocking: int = 0
    waiting: int = 0
    """Blocking queries under way."""
    received: int = 0
    began: float = 0.0

    def take(self) -> str:
        passed = time.monotonic() - self.began
        text = (
            f"{self.requests} requests, {self.blocking} of them blocking ({self.waiting} under way), and "
            f"{self.received / 1000:.1f} kB received in {passed:.1f} s"
        )
        self.requests = self.blocking = self.received = 0
        self.began = time.monotonic()
        return text


TRAFFIC = Traffic()


def counted() -> None:
    """Count every request of every client in this process."""
    ask, read = HTTPClient._request, HTTPClient._body

    async def request(client: Any, callback: Any, method: str, path: str, params: Any, data: Any, headers: Any) -> Any:
        blocking = any(name == "index" for name, _ in params or ())
        TRAFFIC.requests += 1
        TRAFFIC.blocking += blocking
        TRAFFIC.waiting += blocking
        try:
            return await ask(client, callback, method, path, params, data, headers)
        finally:
            TRAFFIC.waiting -= blocking

    async def body(client: Any, response: Any) -> bytes:
        received = await read(client, response)
        TRAFFIC.received += len(received)
        return received

    HTTPClient._request, HTTPClient._body = request, body  # type: ignore[method-assign,assignment]


def connections(agent: Agent) -> int:
    """The connections of this process to the agent that are open."""
    port = f":{agent.port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[2].endswith(port) and row[3] == "01" for row in rows)


@asynccontextmanager
async def running(*work: Awaitable[Any]) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(one) for one in work]  # noqa: TID251
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(holds: Callable[[], object]) -> float:
    began = time.monotonic()
    while not holds():
        await asyncio.sleep(0.05)
    return time.monotonic() - began


async def follow(source: ConsulSource, trees: list[Any]) -> None:
    while True:
        tree = await source.read(trees[-1] if trees else None)
        trees[:] = [tree]


async def discoveries(agent: Agent, count: int) -> None:
    """One node with so many discovered services, beside its catalog and its status."""
    settings = ConsulSettings(address=agent.address)
    shared = ConsulConnections(settings)

    def kind(wanted: Any) -> Kind:
        return Kind(lambda: ConsulDiscovery(wanted, shared), LossRule(Share(percent=50.0), 5.0))

    for number in range(count):
        service = {"Name": f"service-{number}", "ID": f"service-{number}", "Port": 80, "Address": "10.1.0.1"}
        await asyncio.to_thread(agent.call, "PUT", "/v1/agent/service/register", json.dumps(service))
    watches, trees = Watches(kind, lambda: None, Journal()), list[Any]()
    TRAFFIC.take()
    watches.want([ConsulInstances(f"service-{number}") for number in range(count)])
    source, node = ConsulSource(settings), member(agent, 0, [])
    node.observe(snapshot(0, 10, 0))
    async with running(watches.run(), follow(source, trees), node.run()):
        took = await until(lambda: len([1 for found in watches.instances.values() if found]) == count)
        print(f"{count} discoveries: all known after {took:.1f} s, {TRAFFIC.take()}", flush=True)
        await asyncio.sleep(QUIET)
        print(f"  in quiet: {TRAFFIC.take()}, {connections(agent)} connections", flush=True)
    await source.close()


def snapshot(number: int, vips: int, turn: int) -> Snapshot:
    """Of a node that announces so many VIPs. ``turn``: the first of them is closed at every second."""
    addresses = [ip_address(0xC0000000 + n) for n in range(vips)]
    verdicts = {vip: Verdict(vip, bool(n or turn % 2), NO_REASON, 0.0) for n, vip in enumerate(addresses)}
    return Snapshot(
        Inputs(Policy(f"lb{number}")), decision=Decision(verdicts=verdicts), cycle=1 + turn, at=time.monotonic()
    )


def member(agent: Agent, number: int, seen: list[Cluster]) -> Members:
    registry = ConsulRegistry(ConsulSettings(address=agent.address))
    return Members(Identity(f"lb{number}", f"i{number}", ""), registry, seen.append, Journal())


async def nodes(agent: Agent, count: int, vips: int) -> None:
    """So many nodes, each with its status and the catalog."""
    seen: list[list[Cluster]] = [[] for _ in range(count)]
    members = [member(agent, number, seen[number]) for number in range(count)]
    sources = [ConsulSource(ConsulSettings(address=agent.address)) for _ in range(count)]
    for number, one in enumerate(members):
        one.observe(snapshot(number, vips, 0))
    TRAFFIC.take()
    async with running(*(one.run() for one in members), *(follow(source, []) for source in sources)):
        took = await until(lambda: all(s and len(s[-1].peers) == count - 1 for s in seen))
        print(f"{count} nodes of {vips} VIPs: all know of all after {took:.1f} s, {TRAFFIC.take()}", flush=True)
        await asyncio.sleep(QUIET)
        TRAFFIC.take()
        await asyncio.sleep(QUIET)
        print(f"  in quiet: {TRAFFIC.take()}, {connections(agent) / count:.1f} connections a node", flush=True)
        for number, one in enumerate(members):
            one.observe(snapshot(number, vips, 1))
        await asyncio.sleep(QUIET)
        print(f"  one VIP turns on every node: {TRAFFIC.take()}", flush=True)
    for source in sources:
        await source.close()


async def large(agent: Agent, count: int) -> None:
    """What it costs a node to read the statuses of so many nodes, each of the size of 10,000 VIPs."""
    for number in range(count):
        await asyncio.to_thread(agent.put, f"anycastlb/nodes/lb{number}", "x" * LARGEST)
    registry = ConsulRegistry(ConsulSettings(address=agent.address))
    TRAFFIC.take()
    spent = time.process_time()
    membership = await registry.read(None)
    spent = time.process_time() - spent
    print(
        f"{len(membership.entries)} statuses of {LARGEST / 1000:.0f} kB: {spent:.2f} s of the processor to read them, "
        f"{TRAFFIC.take()}",
        flush=True,
    )
    await registry.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.consul", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--vips", type=int, default=100, help="of each node (default 100)")
    parser.add_argument("--discoveries", type=int, default=500)
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    counted()
    steps: list[tuple[dict[str, Any], Callable[[Agent], Coroutine[Any, Any, None]]]] = [
        ({}, lambda agent: discoveries(agent, given.discoveries)),
        ({"limits": {"http_max_conns_per_client": 10_000}}, lambda agent: nodes(agent, given.nodes, given.vips)),
        ({}, lambda agent: large(agent, given.nodes)),
    ]
    for config, step in steps:
        with tempfile.TemporaryDirectory() as directory:
            agent = Agent(require("consul"), Path(directory), **config)
            agent.start()
            try:
                asyncio.run(step(agent))
            finally:
                agent.kill()


if __name__ == "__main__":
    main()
