"""A HAProxy that may run or not, its driver, and the time that the driver has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from anycastlb.adapters.drivers.haproxy import answers
from anycastlb.adapters.drivers.haproxy.driver import HaproxyDriver
from anycastlb.adapters.drivers.haproxy.installation import MAPS, Installation
from anycastlb.adapters.drivers.haproxy.memory import MemoryHaproxy
from anycastlb.adapters.drivers.haproxy.sockets import Runtime, SocketRuntime
from anycastlb.core.http.request import host_of, hosts_of
from anycastlb.core.model import Failure, MapEntry
from tests.support.haproxy import Haproxy, config, gateway, section
from tests.support.haproxy_rows import Wanted, at, differences, host, look, server, settle, site
from tests.support.http_machine import Machine, WireRequest
from tests.support.origin import Origin, Reply, get, origins
from tests.support.ports import free_port
from tests.support.waiting import PATIENCE


class Recorder:
    """Notes every command that is not a question."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.sent: list[str] = []
        self.connect, self.check, self.close = runtime.connect, runtime.check, runtime.close

    async def ask(self, commands: Sequence[str]) -> list[str]:
        self.sent += [command for command in commands if not command.startswith("show ")]
        return await self._runtime.ask(commands)

    async def reload(self) -> str:
        self.sent.append("reload")
        return await self._runtime.reload()


@dataclass
class World:
    """One of them. ``served`` are the servers that a HAProxy in memory sends requests to, by their ports."""

    haproxy: Haproxy | MemoryHaproxy
    files: Installation
    port: int
    served: dict[int, Origin] = field(default_factory=dict)
    skipped: float = 0.0
    woken: int = 0
    runtime: Recorder = field(init=False)
    driver: HaproxyDriver = field(init=False)

    def __post_init__(self) -> None:
        self.restart_daemon()

    def wake(self) -> None:
        self.woken += 1

    def now(self) -> float:
        """No time passes but what is skipped, however slow the machine is."""
        return self.skipped

    def restart_daemon(self, clock: Callable[[], float] | None = None) -> None:
        """A new driver, which knows nothing."""
        self.runtime = Recorder(self.another_runtime())
        self.driver = HaproxyDriver(self.files, self.runtime, self.wake, clock or self.now)

    def another_runtime(self) -> Runtime:
        if isinstance(self.haproxy, Haproxy):
            return SocketRuntime(self.files.socket, self.files.master, self.files.program, self.wake)
        self.haproxy.on_end = self.wake
        return self.haproxy

    async def pass_time(self, seconds: float = 2.0) -> None:
        """Let what can wait be done, whatever time that takes."""
        self.skipped += seconds
        await self.driver.tend()

    async def settle(self, wanted: Wanted) -> list[Failure]:
        return await settle(self.driver, wanted)

    async def start(self, wanted: Wanted) -> None:
        """From nothing: the driver writes the files, HAProxy is started with them."""
        failures = await self.settle(wanted)
        assert {failure.reason.code for failure in failures} == {"haproxy_away"}, failures
        self.haproxy.start()
        await self.returned()
        assert differences(await look(self.driver), wanted) == []

    async def returned(self) -> None:
        if isinstance(self.haproxy, Haproxy):
            await self.haproxy.started()
        async with asyncio.timeout(PATIENCE):
            while not (await look(self.driver))["http_engine"]:
                await asyncio.sleep(0.02)

    async def worker(self) -> int:
        return answers.info((await self.runtime.ask(["show info"]))[0]).pid

    async def get(self, path: str = "/", host: str = "shop.example") -> Reply:
        """What a client gets, over a connection of its own."""
        if isinstance(self.haproxy, Haproxy):
            return await get(self.port, path, host)
        if self.haproxy.worker is None:
            raise ConnectionRefusedError
        return self._served_from_memory(self.haproxy.worker.maps, path, host)

    def _served_from_memory(self, maps: Mapping[str, Sequence[tuple[str, str]]], path: str, host: str) -> Reply:
        assert isinstance(self.haproxy, MemoryHaproxy) and self.haproxy.worker
        sites = dict(maps[str(self.files.map("site"))])
        root = next((sites[f"web|{one}"] for one in hosts_of(host_of(host)) if f"web|{one}" in sites), None)
        if root is None:
            return Reply(404, "", "")
        entries = [MapEntry(name, *entry) for name in MAPS for entry in maps[str(self.files.map(name))]]
        outcome = Machine(entries).run(root, WireRequest("GET", path))
        ready = [
            self.served[row.port]
            for key, row in self.haproxy.worker.servers.items()
            if key.section == outcome.section and row.state == "ready" and row.weight
        ]
        if not ready:
            return Reply(503, "", "")
        chosen = min(ready, key=lambda origin: origin.requests)
        chosen.heads.append(path)
        return Reply(200, "", chosen.name)


def first_wanted(world: World, servers: Mapping[str, Origin]) -> Wanted:
    """A pool of the servers ``one`` and ``two`` behind one hostname, and a pool ``blog`` that nobody is led to yet."""
    return Wanted(
        config([gateway(world.port)], [section("shop"), section("blog")]),
        servers={at("shop", name): server(servers[name].port) for name in ("one", "two")}
        | {at("blog", "blog"): server(servers["blog"].port)},
        sites={host(): site("v1", {"": "shop"})},
    )


@asynccontextmanager
async def serving(files: Installation) -> AsyncIterator[tuple[World, Haproxy, dict[str, Origin], Wanted]]:
    """A real HAProxy with ``first_wanted``, and the servers behind it."""
    real = Haproxy(files)
    world = World(real, files, free_port())
    async with origins("one", "two", "blog") as servers:
        wanted = first_wanted(world, servers)
        try:
            await world.start(wanted)
            yield world, real, servers, wanted
        finally:
            world.runtime.close()
            real.stop()
