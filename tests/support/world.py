"""A whole node on fakes: the real daemon wiring around a catalog, a machine, a router and backends in memory."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from random import Random
from typing import Any

from anycastlb import settings
from anycastlb.adapters.checks import CheckType, Down, Found, none, tcp
from anycastlb.adapters.cluster import Registry
from anycastlb.adapters.discovery.memory import nowhere
from anycastlb.adapters.discovery.watch import Kinds
from anycastlb.adapters.drivers import Driver
from anycastlb.adapters.drivers.haproxy.beside import HaproxyBeside
from anycastlb.adapters.drivers.haproxy.driver import HaproxyDriver
from anycastlb.adapters.drivers.haproxy.memory import MemoryHaproxy
from anycastlb.adapters.drivers.memory import MemoryDriver
from anycastlb.adapters.drivers.names.background import RecordDriver
from anycastlb.adapters.drivers.names.memory import MemoryRecordStore
from anycastlb.adapters.gate_memory import GateFile
from anycastlb.adapters.sources.memory import MemorySource
from anycastlb.adapters.system.clock import Clock
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.model import (
    HTTP_TABLES,
    NAMES,
    Address,
    Catalog,
    Change,
    Check,
    ProbePath,
    Reason,
    Rows,
    ServiceKey,
    Session,
    Speaker,
    Table,
    TrafficCounters,
)
from anycastlb.engine.inbox import Inbox
from anycastlb.engine.machine import Machine, Pulse
from anycastlb.engine.node import Node, Parts
from anycastlb.engine.parts import first_inputs
from anycastlb.engine.passive import CountTries

SEED = int(os.environ.get("ANYCASTLB_SEED", "0"))
VIP = ip_address("192.0.2.10")
ANY = ip_address("0.0.0.0")
INTERVAL, TIMEOUT, FALL = 1.0, 0.5, 3
WEB: dict[str, Any] = {
    "vip": "192.0.2.10",
    "port": 80,
    "check": {"interval": f"{INTERVAL:g}s", "timeout": f"{TIMEOUT:g}s", "rise": 2, "fall": FALL},
    "backends": {"web1": {"address": "10.1.0.1"}, "web2": {"address": "10.1.0.2"}, "web3": {"address": "10.1.0.3"}},
    "drain": "10s",
}


NODE: dict[str, Any] = {"vip_ranges": ["192.0.2.0/24"], "resync": "5s", "name": "lb1"}
AT_ONCE = {"graceful": "0s"}
"""Most stories are not about how a node leaves."""


class MemoryAnnouncer(MemoryDriver):
    """The routes of a router in memory, with its dead man's switch."""

    def __init__(self) -> None:
        super().__init__(("routes",))
        self.connected = True
        self.away: Reason | None = None
        """Why nothing can be announced now."""
        self.sessions: tuple[Session, ...] = ()
        self.heartbeats: list[float] = []

    def speaker(self) -> Speaker:
        return Speaker(connected=self.connected, sessions=self.sessions)

    def absence(self) -> Reason | None:
        return self.away

    def beat(self) -> None:
        self.heartbeats.append(asyncio.get_running_loop().time())


class World:
    """What surrounds a node, and outlives it: stop the node, start another, and the kernel is as it was.

    Chance is drawn from ``seed``, so that what happens in a world is a function of it. The stories hold for every seed:
    ``ANYCASTLB_SEED=7 pytest tests/scenario`` tells them with another.
    """

    def __init__(
        self, state_dir: str, tables: str = "", drain: dict[str, Any] | None = None, seed: int = SEED, **node: Any
    ) -> None:
        self.chance = Random(f"{seed} {node.get('name')}")
        self.source = MemorySource()
        self.kernel = MemoryDriver(("addresses", "services", "destinations"))
        self.router = MemoryAnnouncer()
        self.dead: set[str] = set()
        self.types = {"tcp": CheckType(tcp.Params, self.probe), "none": CheckType(none.Params, none.probe)}
        """How backends are checked."""
        self.kinds: Kinds = nowhere
        self.probes: dict[str, int] = {}
        self.more_drivers: tuple[Driver, ...] = ()
        self.haproxy: MemoryHaproxy | None = None
        """The node's HAProxy, where it has one."""
        self.count_tries: CountTries | None = None
        """How requests to pools have ended."""
        self.kernel_settings: dict[str, Any] = {}
        """What ``first_inputs`` gets beside the settings."""
        self.originals: Callable[[], Mapping[Table, Rows]] = dict
        """What the kernel's settings were before ``more_drivers`` changed them."""
        self.on_catalog: Callable[[Catalog], None] = lambda catalog: None
        """Is called with each new catalog."""
        self.registry: Registry | None = None
        """Where nodes know of each other; one for several worlds."""
        self.places: list[MemoryRecordStore] = []
        """Where names are written, by ``tables``: more of node.toml."""
        self.started_wall = 1_800_000_000.0
        self.complaints: list[str] = []
        """Of the file that remembers the gates."""
        values = "\n".join(f"{key} = {json.dumps(value)}" for key, value in {**NODE, **node}.items())
        self.counted = TrafficCounters()
        """What the kernel counts of the first service, packets of which come when a test says so."""
        leave = "\n".join(f"{key} = {json.dumps(value)}" for key, value in {**AT_ONCE, **(drain or {})}.items())
        text = f'[node]\nstate_dir = "{state_dir}"\n{values}\n[drain]\n{leave}\n{tables}'
        self.settings = settings.parse(text)

    def put(self, key: str, document: Any) -> None:
        self.source.put(key, document if isinstance(document, (str, bytes)) else json.dumps(document))

    @asynccontextmanager
    async def node(self) -> AsyncIterator[Node]:
        """A running node; at the end of the block it dies as by kill -9."""

        async def in_place(function: Callable[..., Any], /, *args: Any) -> Any:
            return function(*args)

        now, journal = asyncio.get_running_loop().time, Journal()
        clock = Clock(now, lambda: self.started_wall + now(), self.chance.random, in_place)
        inbox = Inbox(first_inputs(self.settings, **self.kernel_settings, originals=self.originals()))
        pulse = Pulse(clock=now)
        records = [
            RecordDriver(place, journal.emit, partial(inbox.wake, NAMES), lambda: pulse.at, clock=clock)
            for place in self.places
        ]
        http = self._http_driver(partial(inbox.wake, HTTP_TABLES), now)
        machine = Machine(
            (self.kernel, *self.more_drivers, *([http] if http else [])),
            self.router,
            records,
            unused=self.kernel.unused,
            counters=self._counters,
            originals=self.originals,
            gate_memory=GateFile(self.settings.node.state_dir, lambda what, remedy: self.complaints.append(what)),
            pulse=pulse,
            haproxy=http,
        )
        parts = Parts(
            inbox,
            self.source,
            machine,
            self.types,
            self.kinds,
            probe_path=lambda via, mark: ProbePath(mark, ip_address("10.1.0.254")),
            on_catalog=lambda catalog: self.on_catalog(catalog),
            count_tries=self.count_tries,
            registry=self.registry,
            instance=self.settings.node.state_dir,
            started_wall=self.started_wall,
        )
        node = Node(self.settings, parts, journal, clock=clock)
        running = asyncio.ensure_future(node.run())  # noqa: TID251
        try:
            yield node
        finally:
            if not running.done():
                running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            self.source.closed = False
            if running.done() and not running.cancelled() and (error := running.exception()):
                raise error

    def _http_driver(self, on_change: Callable[[], None], now: Callable[[], float]) -> HaproxyBeside | None:
        if self.haproxy is None:
            return None
        self.haproxy.on_end = on_change
        return HaproxyBeside(HaproxyDriver(self.haproxy.files, self.haproxy, on_change, now), self.haproxy, on_change)

    async def probe(self, check: Check, probe_path: ProbePath | None) -> Found:
        name = str(check.address) if probe_path is None else self._by_mark(probe_path.mark)
        self.probes[name] = self.probes.get(name, 0) + 1
        if name in self.dead:
            raise Down("connection refused")
        return Found("connected")

    async def _counters(self) -> dict[Any, TrafficCounters]:
        return dict.fromkeys(list(self.kernel.rows["services"])[:1], self.counted)

    def _by_mark(self, mark: int) -> str:
        """Where the kernel sends a packet with this mark."""
        (key,) = [key for key in self.kernel.rows["destinations"] if key.service == ServiceKey("fwmark", ANY, mark)]
        return str(key.address)

    def marks(self) -> dict[str, int]:
        """The firewall marks of the kernel's rows, by backend."""
        rows = self.kernel.rows["destinations"]
        return {str(key.address): key.service.port for key in rows if key.service.protocol == "fwmark"}

    def saved(self) -> list[Path]:
        """The files of ``state_dir``."""
        return list(Path(self.settings.node.state_dir).iterdir())

    @property
    def announced(self) -> set[Address]:
        return set(self.router.rows["routes"])

    def weights(self) -> dict[str, int]:
        rows = self.kernel.rows["destinations"]
        return {str(key.address): row.weight for key, row in rows.items() if key.service.protocol != "fwmark"}

    def forget(self) -> None:
        """Forget the writes so far: what is written from now on is counted."""
        self.kernel.writes.clear()
        self.router.writes.clear()

    @property
    def writes(self) -> list[Change]:
        return self.kernel.writes + self.router.writes


async def until(condition: Callable[[], object], within: float) -> float:
    """Virtual seconds until the condition holds. Fails the test if it does not."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    while not condition():
        assert loop.time() - started <= within, f"not within {within} s"
        await asyncio.sleep(0.01)
    return loop.time() - started
