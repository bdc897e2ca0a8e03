"""Nodes in memory, in real time, whose pages a browser on this machine can open, and which commands can ask.

The nodes, their decisions, their API and the page are the product's own. The catalog, the kernel, the router and the
backends are in memory (``tests.support.world``). They run in a thread of their own: a test drives the browser, and asks
and changes them from outside.
"""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

from anycastlb.adapters.checks import TYPES, CheckType, Found, parameters
from anycastlb.adapters.cluster.memory import MemoryRegistry
from anycastlb.core.model import Check, DestinationKey, ProbePath, ServiceKey, Session, TrafficCounters
from anycastlb.engine.node import Node
from anycastlb.serving.api.http.context import Context
from anycastlb.serving.api.server import Api
from anycastlb.serving.history import History, sample
from anycastlb.serving.metrics import Meters, Metrics, Sources
from tests.lab.process import until
from tests.lab.topology import own
from tests.support.waiting import eventually
from tests.support.world import World

T = TypeVar("T")
NAMES = ("lb1", "lb2")
VIP = ip_address("192.0.2.10")
BOLD = """
[catalog]
max_shrink = "100%"
confirm = "300ms"
"""
"""A service that is deleted may be the only one."""
SAMPLE = 0.2
"""Seconds between two samples of the history."""
BUSY = 40
"""Connections a second that the kernel counts of everything, on average."""


class Place:
    """The nodes. What is asked of them is asked in their thread."""

    def __init__(self, folder: Path, names: Sequence[str] = NAMES, **node: Any) -> None:
        self.worlds = tuple(World(str(folder / name), BOLD, name=name, **node) for name in names)
        self.lb1, self.lb2 = self.worlds[:2]
        self.nodes: list[Node] = []
        registry, self.ports = MemoryRegistry(), dict.fromkeys(names, 0)
        for world in self.worlds:
            world.source = self.lb1.source
            world.registry = registry
            world.types["http"] = CheckType(TYPES["http"].params, answered(world))
            world.router.sessions = (Session("10.8.1.1", "up", 0.0), Session("fd00:8:1::1", "up", 0.0))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over = asyncio.Event()

    @property
    def url(self) -> str:
        """Where the page of lb1 is."""
        return f"http://127.0.0.1:{self.ports['lb1']}"

    # ------------------------------------------------------------ for the test's thread

    def ask(self, question: Callable[[], T]) -> T:
        """The answer, found in the nodes' thread."""

        async def answer() -> T:
            return question()

        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(answer(), self._loop).result(60)

    def until(self, holds: Callable[[], Any], what: str) -> None:
        until(lambda: self.ask(holds), what)

    def put(self, key: str, document: Any) -> None:
        self.ask(lambda: self.lb1.put(key, document))

    def kill(self, backend: str) -> None:
        for world in self.worlds:
            world.dead.add(own(backend))

    def revive(self, backend: str) -> None:
        for world in self.worlds:
            world.dead.discard(own(backend))

    def holds(self, catalog: Mapping[str, Any]) -> None:
        """Let the catalog be this, and wait until every node serves it."""

        def change() -> None:
            for key in set(self.lb1.source._entries) - set(catalog):
                self.lb1.source.delete(key)
            for key, document in catalog.items():
                self.lb1.put(key, document)

        self.ask(change)
        self.follows()

    def follows(self) -> None:
        """Wait until every node has decided by the documents that the catalog has now, all of which are good."""

        def followed() -> bool:
            entries = {key: entry for key, entry in self.lb1.source._entries.items() if not key.startswith("locks/")}
            return all(node.snapshot.inputs.catalog.good == entries for node in self.nodes)

        self.until(followed, "every node has the catalog")

    def stored(self, key: str) -> Any:
        """The document in the catalog; None if there is none."""
        entry = self.ask(lambda: self.lb1.source._entries.get(key))
        return None if entry is None else json.loads(entry.value or b"null")

    def has(self, key: str) -> bool:
        return self.ask(lambda: key in self.lb1.source._entries)

    def rows(self, vip: Any = VIP) -> dict[str, int]:
        """What the kernel of lb2 has for a VIP: a write through the page of lb1 is the cluster's."""
        service = ServiceKey("tcp", vip, 80)
        rows = self.ask(lambda: dict(self.lb2.kernel.rows["destinations"]))
        return {f"{key.address}:{key.port}": row.weight for key, row in rows.items() if key.service == service}

    def announced(self) -> set[str]:
        """The nodes that announce the VIP."""
        return self.ask(lambda: {world.settings.node.name for world in self.worlds if VIP in world.announced})

    def settle(self) -> None:
        """Wait until both announce the VIP, and every destination on both has a weight."""
        until(lambda: self.announced() == set(NAMES), "both announce the VIP")
        self.until(lambda: all(row.weight for w in self.worlds for row in w.kernel.rows["destinations"].values()), "up")

    # ------------------------------------------------------------ in the thread of the nodes

    def run(self, up: threading.Event) -> None:
        try:
            asyncio.run(self._run(up))
        finally:
            up.set()

    async def _run(self, up: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            self.nodes = [await stack.enter_async_context(world.node()) for world in self.worlds]
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            running = []
            for world, node in zip(self.worlds, self.nodes, strict=True):
                history, counters = History(), counted(world)
                api = served(world, node, history, counters)
                works = (api.run(), sample(history, lambda node=node: node.snapshot, counters, pause=SAMPLE))  # type: ignore[misc]
                running += [tasks.create_task(work) for work in works]
                await eventually(lambda api=api: api.address)  # type: ignore[misc]
                assert api.address is not None
                self.ports[world.settings.node.name] = api.address[1]
            up.set()
            await self._over.wait()
            for task in running:
                task.cancel()

    def end(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._over.set)


def answered(world: World) -> Any:
    """The check ``http`` of a backend that lives."""

    async def probe(check: Check, probe_path: ProbePath | None) -> Found:
        await world.probe(check, probe_path)
        return Found("HTTP 200")

    return probe


def counted(world: World) -> Any:
    """What the kernel counts of each service and each destination: ``BUSY`` connections a second, up and down."""

    async def counters() -> Mapping[ServiceKey | DestinationKey, TrafficCounters]:
        tables, now = world.kernel.rows, time.monotonic()
        count = TrafficCounters(connections=int(BUSY * (now + math.sin(now))))
        return dict.fromkeys([*tables["services"], *tables["destinations"]], count)

    return counters


def served(world: World, node: Node, history: History, counters: Any) -> Api:
    """The node's API, as the daemon makes it."""
    meters = Meters()
    context = Context(
        snapshot=lambda: node.snapshot,
        journal=node.journal,
        confirm=node.follower.confirm,
        scrape=Metrics(node, meters, node.journal, Sources(counters)).scrape,
        settings=world.settings,
        store=world.source,
        check_types=parameters(TYPES),
        alive_at=lambda: node.alive_at,
        source="consul http://10.1.0.100:8500 anycastlb/",
        statistics=counters,
        history=history,
    )
    return Api(context, (("127.0.0.1", 0),), outer=(meters.requests.middleware,))


@contextmanager
def place(folder: Path, names: Sequence[str] = NAMES, **node: Any) -> Iterator[Place]:
    """All nodes running, with ``node`` under ``[node]``, without a service."""
    made, up = Place(folder, names, **node), threading.Event()
    thread = threading.Thread(target=made.run, args=(up,), name="the nodes")
    thread.start()
    try:
        up.wait()
        yield made
    finally:
        made.end()
        thread.join()
