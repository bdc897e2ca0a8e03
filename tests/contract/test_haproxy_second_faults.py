"""HAProxy dies again while its first death is handled, or together with the daemon, at rest and amid a reload.

The whole daemon with the HAProxy of both Debian releases; the kernel and the router are in memory. Whenever the VIP is
announced, a request is sent to it and must be answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from anycastlb.adapters.drivers.haproxy import beside
from anycastlb.adapters.drivers.haproxy.beside import HaproxyBeside
from anycastlb.adapters.drivers.haproxy.driver import HaproxyDriver
from anycastlb.adapters.drivers.haproxy.installation import Installation
from anycastlb.adapters.drivers.haproxy.sockets import SocketRuntime
from anycastlb.core.model import Change, Failure
from tests.support import haproxy, world
from tests.support.haproxy import LOOPBACK, RELEASES, Haproxy
from tests.support.origin import Origin, Reply, get, origins
from tests.support.ports import free_port
from tests.support.waiting import PATIENCE, eventually

SHOP, NEW = "shop.example", "new.example"


class Held(SocketRuntime):
    """Waits once where it is told to, until it may go on."""

    def __init__(self, files: Installation) -> None:
        super().__init__(files.socket, files.master, files.program)
        self._place = ""
        self.reached, self.allowed = asyncio.Event(), asyncio.Event()

    def hold(self, place: str) -> None:
        self._place = place
        self.reached.clear()
        self.allowed.clear()

    async def _pass(self, place: str) -> None:
        if place == self._place:
            self._place = ""
            self.reached.set()
            await self.allowed.wait()

    async def ask(self, commands: Sequence[str]) -> list[str]:
        await self._pass("look")
        return await super().ask(commands)

    async def check(self, config: Path) -> str:
        await self._pass("check")
        return await super().check(config)

    async def reload(self) -> str:
        await self._pass("reload")
        return await super().reload()


class Mortal(HaproxyDriver):
    """Writes nothing once it is dead, as nobody does who was killed."""

    dead = False

    def _write(self) -> None:
        if not self.dead:
            super()._write()


class Router(world.MemoryAnnouncer):
    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port
        self.answers: list[str] = []
        """To a request at each announcement."""

    async def apply(self, changes: Sequence[Change]) -> Sequence[Failure]:
        for change in changes:
            if change.key == LOOPBACK and change.old is None:
                self.answers.append((await asked(self._port)).body)
        return await super().apply(changes)


async def asked(port: int, host: str = SHOP) -> Reply:
    """Raises ConnectionRefusedError: nobody listens. A worker that was replaced may reset."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await get(port, "/", host)
            except (ConnectionResetError, BrokenPipeError, asyncio.IncompleteReadError):
                continue


class World(world.World):
    """A node that serves one hostname by a real HAProxy."""

    def __init__(self, folder: Path, program: str, servers: dict[str, Origin]) -> None:
        self.files = haproxy.installation(folder, program)
        tables = f'[api]\nlisten = []\n[http]\ncertificate_dir = "{self.files.certificates}"\n'
        super().__init__(str(folder / "state"), tables, vip_ranges=["127.0.0.0/8"])
        self.port, self.servers, self.real = free_port(), servers, Haproxy(self.files)
        self.answering = Router(self.port)
        self.router = self.answering
        gateway = {"vip": str(LOOPBACK), "port": self.port, "protocol": "http", "announce": {"fail": "withdraw"}}
        self.put("gateways/web", gateway)
        self.serve(SHOP, "one")

    def serve(self, host: str, name: str) -> None:
        """Have a pool of its own for a hostname, which takes a reload."""
        backend = {"address": str(LOOPBACK), "port": self.servers[name].port}
        self.put(f"services/{name}", {"port": 80, "check": {"type": "none"}, "backends": {name: backend}})
        rule: dict[str, Any] = {"backendRefs": [{"name": name}]}
        self.put(f"routes/{name}", {"gateways": ["web"], "hostnames": [host], "rules": [rule]})

    def _http_driver(self, on_change: Callable[[], None], now: Callable[[], float]) -> HaproxyBeside:
        self.runtime = Held(self.files)
        self.driver = Mortal(self.files, self.runtime, on_change, now)
        return HaproxyBeside(self.driver, self.runtime, on_change)

    async def start(self) -> None:
        await eventually(self.files.config.exists)
        self.real.start()
        await self.real.started()

    async def serves(self) -> None:
        """Start HAProxy, and see its VIP announced and answering."""
        await self.start()
        await self.announces()

    async def announces(self) -> None:
        await eventually(lambda: LOOPBACK in self.announced)
        assert (await asked(self.port)).body == "one"

    async def withdraws(self) -> None:
        await eventually(lambda: LOOPBACK not in self.announced)

    async def answers(self, host: str, name: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while (await asked(self.port, host)).body != name:
                await asyncio.sleep(0.02)


@pytest.fixture(params=RELEASES)
async def node(
    request: pytest.FixtureRequest, require: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    monkeypatch.setattr(beside, "INTERVAL", 0.1)
    async with origins("one", "two") as servers:
        made = World(tmp_path, require(request.param), servers)
        try:
            yield made
        finally:
            made.runtime.close()
            made.real.stop()
    assert set(made.answering.answers) == {"one"}, "what is announced is served"


async def test_it_dies_again_while_what_it_is_to_start_with_is_checked(node: World) -> None:
    async with node.node():
        await node.serves()
        node.real.kill()
        await node.withdraws()
        node.runtime.hold("check")
        node.serve(NEW, "two")
        await node.runtime.reached.wait()
        await node.start()
        node.real.kill()
        node.runtime.allowed.set()
        await node.serves()
        await node.answers(NEW, "two")


async def test_it_dies_again_while_it_is_looked_at_for_the_first_time(node: World) -> None:
    async with node.node():
        await node.serves()
        node.real.kill()
        await node.withdraws()
        node.runtime.hold("look")
        await node.start()
        await node.runtime.reached.wait()
        node.real.kill()
        node.runtime.allowed.set()
        await node.serves()
        node.serve(NEW, "two")
        await node.answers(NEW, "two")


@pytest.mark.parametrize("back", [True, False], ids=["back", "away"])
async def test_it_dies_twice_amid_one_reload(node: World, back: bool) -> None:
    """Which the daemon waits for all the time. ``back``: it runs when that goes on."""
    async with node.node():
        await node.serves()
        node.runtime.hold("reload")
        node.serve(NEW, "two")
        await node.runtime.reached.wait()
        node.real.kill()
        await node.withdraws()
        await node.start()
        node.real.kill()
        if back:
            await node.start()
        node.runtime.allowed.set()
        if not back:
            await asyncio.sleep(0.1)
            await node.start()
        await node.announces()
        await node.answers(NEW, "two")


@pytest.mark.parametrize("amid", ["rest", "check", "reload"])
async def test_it_and_the_daemon_die_together_and_it_is_back_first(node: World, amid: str) -> None:
    """The routes stay for ``hold``, and the new daemon finds served what it finds announced."""
    await both_die(node, amid)
    await node.start()
    node.forget()
    async with node.node():
        await node.answers(NEW, "two")
        assert node.writes == []


@pytest.mark.parametrize("amid", ["rest", "check", "reload"])
async def test_it_and_the_daemon_die_together_and_the_daemon_is_back_first(node: World, amid: str) -> None:
    await both_die(node, amid)
    async with node.node():
        await node.withdraws()
        await node.serves()
        await node.answers(NEW, "two")


async def both_die(node: World, amid: str) -> None:
    async with node.node():
        await node.serves()
        if amid == "rest":
            node.serve(NEW, "two")
            await node.answers(NEW, "two")
        else:
            node.runtime.hold(amid)
            node.serve(NEW, "two")
            await node.runtime.reached.wait()
        node.real.kill()
        node.driver.dead = True
