"""Servers that fail the requests of clients: what both HAProxies count of them, and how soon they get no more.

The real driver writes what the real decision makes of the real counters. Time passes where the test says so, once for
each question to HAProxy: what is out after one question is out within ``INTERVAL`` of the failures.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from anycastlb.adapters.drivers.haproxy.sockets import SocketRuntime
from anycastlb.adapters.drivers.haproxy.tries import HaproxyTries
from anycastlb.core.decision.http.passive import NOTHING_KNOWN, PassiveRecord, take
from anycastlb.core.decision.http.pools import NEW, decide_pool
from anycastlb.core.model import Backend, CheckState, PoolMemory, Retry, Service
from tests.support import haproxy
from tests.support.haproxy import LOOPBACK, RELEASES, Haproxy, config, gateway, section
from tests.support.haproxy_rows import Wanted, at, host, server, site
from tests.support.haproxy_world import World
from tests.support.origin import Origin, get, origins
from tests.support.passive import CHECK, THREE, pool
from tests.support.ports import free_port

NAMES = ("one", "two", "three")
SECTIONS = ("shop", "shop_ronce")
"""Requests are repeated in the first one, and never in the other."""


@dataclass
class Shop:
    """A pool of three servers, whose checks pass whatever they answer."""

    world: World
    servers: dict[str, Origin]
    wanted: Wanted
    tries: HaproxyTries
    now: float = 0.0
    record: PassiveRecord = NOTHING_KNOWN
    memory: PoolMemory = NEW

    @property
    def pool(self) -> Service:
        checks = {name: replace(CHECK, address=LOOPBACK, port=one.port) for name, one in self.servers.items()}
        backends = [Backend(name, LOOPBACK, one.port, passive=THREE, check=checks[name], weight=10)
                    for name, one in self.servers.items()]  # fmt: skip
        return pool(backends=tuple(backends))

    async def ask(self, seconds: float = 1.0) -> set[str]:
        """One question to HAProxy, and what follows from it; returns the servers that are out."""
        self.now += seconds
        counted = await self.tries.read([*SECTIONS, "gone"])
        assert counted is not None and set(counted) == {"shop"}
        self.record = take(self.pool, self.record, counted["shop"], self.now)
        states = {backend.check: CheckState(True) for backend in self.pool.backends}
        made = decide_pool(self.pool, states, self.record.failures, self.memory, {}, self.now)
        self.memory = made.memory
        self.wanted = replace(
            self.wanted, servers={at(name, key): row for name in SECTIONS for key, row in made.rows.items()}
        )
        assert await self.world.settle(self.wanted) == []
        return {name for name, row in made.rows.items() if row.state != "ready"}

    async def get(self, times: int, path: str = "/", method: str = "GET") -> list[int]:
        """The status of each answer. A lost request raises what it raises."""
        return [(await get(self.world.port, path, "shop.example", method)).status for _ in range(times)]

    async def break_off(self, method: str, *lines: str) -> None:
        """Send a request that is handed to a server, and go before its answer is there."""
        before = sum(server.requests for server in self.servers.values())
        _, writer = await asyncio.open_connection("127.0.0.1", self.world.port)
        head = "\r\n".join([f"{method} /slow HTTP/1.1", "Host: shop.example", *lines])
        writer.write(f"{head}\r\n\r\n".encode())
        while sum(server.requests for server in self.servers.values()) == before:
            await asyncio.sleep(0.01)
        writer.transport.abort()


@pytest.fixture(params=RELEASES)
async def shop(request: pytest.FixtureRequest, require: Callable[[str], str], tmp_path: Path) -> AsyncIterator[Shop]:
    files = haproxy.installation(tmp_path, require(request.param))
    real = Haproxy(files)
    world = World(real, files, free_port())
    never = replace(section("shop_ronce", retry=Retry(0)), pool="shop")
    async with origins(*NAMES) as servers:
        wanted = Wanted(
            config([gateway(world.port)], [section("shop"), never]),
            servers={at(name, one): server(servers[one].port) for name in SECTIONS for one in NAMES},
            sites={host(): site("v0", {"": "shop", "/once": "shop_ronce"})},
        )
        try:
            await world.start(wanted)
            runtime = SocketRuntime(files.socket, files.master, files.program)
            made = Shop(world, servers, wanted, HaproxyTries(runtime))
            assert await made.ask() == set()
            yield made
        finally:
            world.runtime.close()
            real.stop()


async def test_a_server_that_answers_500_is_out_at_the_next_question_and_no_get_fails(shop: Shop) -> None:
    """R21."""
    worker = await shop.world.worker()
    assert await shop.get(12) == [200] * 12
    assert await shop.ask() == set()
    good = shop.servers["two"].requests
    shop.servers["two"].status = "500 Internal Server Error"
    assert await shop.get(12) == [200] * 12
    assert await shop.ask() == {"two"}
    (failure,) = shop.record.failures.values()
    before = shop.servers["two"].requests
    assert failure.what.startswith(f"{before - good} of {before} requests failed")
    assert await shop.get(12) == [200] * 12 and shop.servers["two"].requests == before
    assert await shop.ask(THREE.fail_timeout - 0.5) == {"two"}
    shop.servers["two"].status = "200 OK"
    assert await shop.ask(0.5) == set()
    assert await shop.get(12) == [200] * 12 and shop.servers["two"].requests > before
    assert await shop.ask() == set() and await shop.world.worker() == worker, "no reload"


@pytest.mark.parametrize(("path", "method"), [("/", "POST"), ("/once", "GET")])
async def test_answers_that_are_not_repeated_count_too(shop: Shop, path: str, method: str) -> None:
    shop.servers["two"].status = "503 Service Unavailable"
    assert sorted(await shop.get(9, path, method)) == [200] * 6 + [503] * 3
    assert await shop.ask() == {"two"}


async def test_a_server_that_refuses_or_never_answers_is_out(shop: Shop) -> None:
    port = shop.servers["two"].port
    shop.servers["two"].crash()
    assert await shop.get(9) == [200] * 9
    assert await shop.ask() == {"two"}
    await shop.ask(THREE.fail_timeout)

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", port):
        assert await shop.get(9) == [200] * 9
        assert await shop.ask() == {"two"}
        await shop.ask(THREE.fail_timeout)
        assert sorted(await shop.get(9, method="POST")) == [200] * 6 + [502] * 3
        assert await shop.ask() == {"two"}


async def test_what_clients_do_is_no_evidence(shop: Shop) -> None:
    for one in shop.servers.values():
        one.status = "404 Not Found"
    assert await shop.get(12) == [404] * 12
    assert await shop.ask() == set()
    for one in shop.servers.values():
        one.status, one.hold = "200 OK", asyncio.Event()
    for method, *lines in (("GET",), ("POST", "Content-Length: 0"), ("GET", "Connection: close")) * 4:
        await shop.break_off(method, *lines)
    assert await shop.ask() == set()
    for one in shop.servers.values():
        assert one.hold is not None
        one.hold.set()
        one.hold = None
    assert await shop.get(12) == [200] * 12
    assert await shop.ask() == set()
    for one in shop.servers.values():  # a request that no server can answer is the client's fault, or the application's
        one.status = "500 Internal Server Error"
    assert await shop.get(12) == [500] * 12
    assert await shop.ask() == set() and not shop.record.failures


async def test_the_last_server_stays(shop: Shop) -> None:
    shop.servers["one"].status = shop.servers["two"].status = "500 Internal Server Error"
    assert await shop.get(12) == [200] * 12
    assert len(await shop.ask()) == 1, "not more than half of the pool"
    assert len(shop.record.failures) == 2
    assert await shop.get(12) == [200] * 12
    shop.servers["three"].status = "500 Internal Server Error"
    assert await shop.get(4) == [500] * 4
    assert len(await shop.ask()) == 1


async def test_counters_that_begin_anew_with_a_reload_or_a_restart_are_no_evidence(shop: Shop) -> None:
    shop.servers["two"].status = "500 Internal Server Error"
    while shop.servers["two"].requests < 2:
        assert await shop.get(1) == [200]
    assert await shop.ask() == set()
    shop.wanted = replace(
        shop.wanted, digest="second", config=replace(shop.wanted.config, subjects=("h.x-new", "p"))
    )  # fmt: skip
    shop.world.skipped += 10
    assert await shop.world.settle(shop.wanted) == []
    assert shop.world.runtime.sent.count("reload") == 1
    while shop.servers["two"].requests < 3:
        assert await shop.get(1) == [200]
    assert await shop.ask(0.5) == set(), "nobody knows what the new worker has counted since the last question"
    while shop.servers["two"].requests < 4:
        assert await shop.get(1) == [200]
    assert await shop.ask(0.5) == {"two"}, "2 failures before the reload, and 1 since it counts from there"
    shop.world.haproxy.kill()
    assert await shop.tries.read(SECTIONS) is None
    shop.world.haproxy.start()
    await shop.world.returned()
    assert await shop.ask(THREE.fail_timeout) == set()
