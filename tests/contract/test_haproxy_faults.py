"""What befalls HAProxy, also amid a reload: on the HAProxy of both Debian releases.

``ANYCASTLB_EXAMPLES`` says how many reloads R15 is tried with; ``make laws`` tries 200.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from anycastlb.adapters.certificates import fingerprint
from anycastlb.adapters.drivers.haproxy import answers, beside, sockets
from anycastlb.adapters.drivers.haproxy.beside import FALL, HaproxyBeside
from anycastlb.adapters.drivers.haproxy.driver import AWAY_REASON, HaproxyDriver
from anycastlb.adapters.drivers.haproxy.errors import Away, HaproxyError
from anycastlb.adapters.drivers.haproxy.sockets import SocketRuntime
from anycastlb.core.model import HttpCertificate, HttpLimits, ServiceKey, Tls
from tests.support import haproxy
from tests.support.authority import Authority
from tests.support.examples import EXAMPLES
from tests.support.haproxy import LOOPBACK, RELEASES, Haproxy, config, gateway, section
from tests.support.haproxy_rows import Wanted, at, differences, host, look, server, site
from tests.support.haproxy_world import World, serving
from tests.support.origin import Client, Origin, get
from tests.support.ports import free_port
from tests.support.waiting import PATIENCE, begun, eventually

RELOADS = EXAMPLES or 5
Web = tuple[World, Haproxy, dict[str, Origin], Wanted]


@pytest.fixture(params=RELEASES)
async def web(request: pytest.FixtureRequest, require: Callable[[str], str], tmp_path: Path) -> AsyncIterator[Web]:
    async with serving(haproxy.installation(tmp_path, require(request.param))) as scene:
        yield scene


def with_a_new_pool(world: World, wanted: Wanted) -> Wanted:
    """What takes a reload: a pool, and a hostname that leads to it."""
    return replace(
        wanted,
        config=config([gateway(world.port)], [section("shop"), section("blog"), section("new")]),
        digest="second",
        servers={**wanted.servers, at("new", "blog"): wanted.servers[at("blog", "blog")]},
        sites={**wanted.sites, host("new.example"): site("v2", {"": "new"})},
    )


async def settled(world: World, wanted: Wanted) -> None:
    """Cycles of a reconciler, until nothing differs. HAProxy serves all the time, so nothing ever counts as lost."""
    async with asyncio.timeout(PATIENCE):
        while True:
            rows = await look(world.driver)
            assert rows["http_engine"], "HAProxy is away"
            engine = rows["http_engine"]["config"]
            assert ServiceKey("tcp", LOOPBACK, world.port) in engine.listens, engine
            if not differences(rows, wanted):
                return
            failures = await world.settle(wanted)
            assert all(one.pending or one.reason.code == "haproxy_master_away" for one in failures), failures
            await world.pass_time()


class Held(SocketRuntime):
    """Waits before a reload until it is allowed to go on; counts the questions that HAProxy did not answer."""

    def __init__(self, world: World) -> None:
        files = world.files
        super().__init__(files.socket, files.master, files.program, world.wake)
        self.missed = 0
        self.asked, self.allowed = asyncio.Event(), asyncio.Event()

    async def probe(self) -> int:
        try:
            return await super().probe()
        except HaproxyError:
            self.missed += 1
            raise

    async def reload(self) -> str:
        self.asked.set()
        await self.allowed.wait()
        return await super().reload()


async def serves_the_new_pool(world: World) -> None:
    """Wait for it: a worker that was replaced answers, or resets, until it has closed its sockets."""
    body = ""
    async with asyncio.timeout(PATIENCE):
        while body != "blog":
            with contextlib.suppress(ConnectionError):
                body = (await world.get(host="new.example")).body


async def test_a_worker_that_is_slow_amid_a_reload_is_no_absence(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """It neither answers, for longer than HAProxy may be silent, nor hands over its sockets."""
    world, _, _, wanted = web
    for constant in ("INTERVAL", "AGAIN"):
        monkeypatch.setattr(beside, constant, 0.02)
    monkeypatch.setattr(sockets, "LIFE", 0.05)
    worker, runtime, woken = await world.worker(), Held(world), asyncio.Event()
    driver = HaproxyBeside(HaproxyDriver(world.files, runtime, woken.set), runtime, woken.set)
    wanted = with_a_new_pool(world, wanted)
    async with begun(driver.run()):
        changes = differences(await look(driver), wanted)
        assert all(failure.pending for failure in await driver.apply(changes))
        await runtime.asked.wait()
        os.kill(worker, signal.SIGSTOP)
        missed = runtime.missed
        await eventually(lambda: runtime.missed > missed + 2 * FALL)
        assert any((await look(driver)).values()), "the VIPs of gateways would be withdrawn"
        monkeypatch.setattr(sockets, "LIFE", PATIENCE)
        runtime.allowed.set()
        async with asyncio.timeout(PATIENCE):
            while woken.clear() or differences(await look(driver), wanted):
                await woken.wait()  # no resync is needed
        os.kill(worker, signal.SIGCONT)
        await serves_the_new_pool(world)
    runtime.close()


async def test_one_that_is_killed_amid_a_reload_is_gone_at_once(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """R20: nobody waits for the reload of one that is dead; what was wanted is there when it is back."""
    world, real, _, wanted = web
    monkeypatch.setattr(beside, "AGAIN", PATIENCE)
    runtime, woken = Held(world), asyncio.Event()
    driver = HaproxyBeside(HaproxyDriver(world.files, runtime, woken.set), runtime, woken.set)
    wanted = with_a_new_pool(world, wanted)
    async with begun(driver.run()), asyncio.timeout(PATIENCE):
        assert all(failure.pending for failure in await driver.apply(differences(await look(driver), wanted)))
        await runtime.asked.wait()
        real.kill()
        while woken.clear() or any((await look(driver)).values()):
            await woken.wait()
        assert not runtime.allowed.is_set() and driver.absence() == AWAY_REASON
        real.start()
        runtime.allowed.set()
        while left := differences(await look(driver), wanted):
            await driver.apply(left)
            await asyncio.sleep(0.02)
        await serves_the_new_pool(world)
    runtime.close()


async def test_a_reload_that_takes_longer_than_it_is_waited_for_is_done_once(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, _, _, wanted = web
    monkeypatch.setattr(sockets, "RELOAD", 0.001)
    wanted = with_a_new_pool(world, wanted)
    failures = await world.settle(wanted)
    assert failures and {failure.reason.code for failure in failures if failure.pending} == {"haproxy_reload_waits"}
    monkeypatch.undo()
    await settled(world, wanted)
    await serves_the_new_pool(world)


async def test_after_many_reloads_no_server_that_is_down_has_got_a_request(web: Web) -> None:
    """R15, counted at the origin, under requests that never pause."""
    world, _, servers, wanted = web
    down = {
        at("shop", "two"): server(servers["two"].port, 7, "maint"),
        at("shop", "blog"): server(servers["blog"].port, 9, "drain"),
    }
    wanted = replace(wanted, servers={**wanted.servers, **down})
    assert await world.settle(wanted) == []
    pids = {await world.worker()}
    async with begun(asking(world)):
        for number in range(RELOADS):
            before = servers["one"].requests
            await eventually(lambda before=before: servers["one"].requests > before + 3)
            world.skipped += 3.0
            wanted = replace(wanted, digest=f"again-{number}")
            await settled(world, wanted)
            pids.add(await world.worker())
    assert len(pids) > RELOADS
    assert servers["two"].requests == servers["blog"].requests == 0


async def asking(world: World) -> None:
    """Requests, each over a connection of its own."""
    while True:
        assert (await world.get()).body == "one"


@pytest.mark.parametrize("reached", ["files", "reload"])
async def test_a_daemon_that_is_killed_amid_a_reload_leaves_nothing_half_done(web: Web, reached: str) -> None:
    world, _, servers, wanted = web
    wanted = with_a_new_pool(world, wanted)
    wanted = replace(wanted, servers={**wanted.servers, at("shop", "two"): server(servers["two"].port, 10, "maint")})
    runtime = Held(world)
    killed = HaproxyDriver(world.files, runtime, world.wake, world.now)
    dying = asyncio.ensure_future(apply(killed, wanted))  # noqa: TID251
    await runtime.asked.wait()
    if reached == "reload":
        runtime.allowed.set()
        await asyncio.sleep(0.02)  # it is asked for, or is not, or is over: any of it is right
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    runtime.close()
    world.restart_daemon()
    await settled(world, wanted)
    assert {(await world.get()).body for _ in range(4)} == {"one"}
    await serves_the_new_pool(world)


async def apply(driver: HaproxyDriver, wanted: Wanted) -> Sequence[object]:
    return await driver.apply(differences(await look(driver), wanted))


async def test_one_that_takes_no_more_connections_is_not_dead(web: Web) -> None:
    """R20: a node that withdraws because of its load hands the load to the next one."""
    world, _, _, wanted = web
    full = replace(gateway(world.port), limits=HttpLimits(maxconn=1))
    wanted = replace(wanted, config=config([full], [section("shop"), section("blog")]), digest="full")
    await settled(world, wanted)
    held = Client(world.port)
    assert (await held.get()).status == 200
    waiting = asyncio.ensure_future(get(world.port))  # noqa: TID251
    for _ in range(FALL):
        assert await world.another_runtime().probe() == await world.worker()
    assert differences(await look(world.driver), wanted) == []
    assert not waiting.done(), "it is full"
    held.close()
    assert (await waiting).status == 200


async def test_one_without_descriptors_is(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """It accepts nothing, and nobody is served; the connection that the driver has tells nothing of that."""
    world, _, _, wanted = web
    monkeypatch.setattr(sockets, "LIFE", 0.2)
    worker = await world.worker()
    limits = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    gone = None
    async with asyncio.timeout(PATIENCE):
        while gone is None:  # it may close a connection of before in this moment
            used = {int(file.name) for file in Path(f"/proc/{worker}/fd").iterdir()}
            free = next(number for number in count() if number not in used)
            resource.prlimit(worker, resource.RLIMIT_NOFILE, (free, limits[1]))
            try:
                await world.another_runtime().probe()
            except Away as exc:
                gone = exc
    assert gone.silent
    assert differences(await look(world.driver), wanted) == []
    monkeypatch.undo()
    resource.prlimit(worker, resource.RLIMIT_NOFILE, limits)
    assert await world.another_runtime().probe() == worker


async def test_one_whose_socket_was_removed_can_be_told_nothing(web: Web) -> None:
    world, _, _, wanted = web
    aside = world.files.socket.with_name("aside")
    world.files.socket.rename(aside)
    with pytest.raises(Away) as gone:
        await world.another_runtime().probe()
    assert not gone.value.silent
    world.runtime.close()
    assert not any((await look(world.driver)).values())
    aside.rename(world.files.socket)
    assert differences(await look(world.driver), wanted) == []


async def test_the_other_release_takes_its_place(web: Web, require: Callable[[str], str]) -> None:
    """R20: an upgrade, or the way back, under the same sockets and files."""
    world, real, servers, wanted = web
    other = next(name for name in map(require, RELEASES) if name != str(world.files.program))
    before = answers.info((await world.runtime.ask(["show info"]))[0]).version
    wanted = replace(wanted, servers={**wanted.servers, at("shop", "two"): server(servers["two"].port, 7, "maint")})
    await settled(world, wanted)
    await world.pass_time()
    real.kill()
    assert not any((await look(world.driver)).values())
    real.files = replace(real.files, program=Path(other))
    real.start()
    await world.returned()
    assert answers.info((await world.runtime.ask(["show info"]))[0]).version != before
    assert differences(await look(world.driver), wanted) == [], "it starts with the files that are there"
    assert {(await world.get()).body for _ in range(4)} == {"one"}
    wanted = with_a_new_pool(world, wanted)
    wanted = replace(wanted, servers={key: row for key, row in wanted.servers.items() if key != at("shop", "two")})
    world.skipped += 3.0
    await settled(world, wanted)
    await serves_the_new_pool(world)


def with_a_certificate(world: World, wanted: Wanted) -> tuple[Wanted, Path]:
    """One more gateway, which needs a certificate; and the file of that."""
    name = world.files.certificate("first")
    Authority(world.files.certificates).issue("first.example").rename(name)
    tls = replace(gateway(free_port(), "tls"), tls=Tls(("first",)))
    assert wanted.config
    config = replace(wanted.config, gateways=(tls, *wanted.config.gateways))
    rows = {"first": HttpCertificate(fingerprint(name.read_text()), ("tls",))}
    return replace(wanted, config=config, digest="tls", certificates=rows), name


async def test_a_certificate_that_vanishes_amid_a_change_takes_nothing_with_it(web: Web) -> None:
    world, _, _, wanted = web
    wanted, name = with_a_certificate(world, wanted)
    assert wanted.config
    assert await world.settle(wanted) == []
    aside = name.rename(name.with_suffix(".aside"))
    world.skipped += 3.0
    changed = replace(with_a_new_pool(world, wanted), certificates=wanted.certificates)
    assert changed.config
    changed = replace(changed, config=replace(changed.config, gateways=wanted.config.gateways))
    failures = await world.settle(changed)
    assert [failure.reason.code for failure in failures if failure.change.table == "http_engine"] == ["haproxy_refused"]
    assert "first.pem" in failures[0].reason.text
    assert (await world.get()).status == 200
    assert differences(await look(world.driver), wanted) == [], "it goes on as it was"
    aside.rename(name)
    world.skipped += 31.0
    assert await world.settle(changed) == []
    assert differences(await look(world.driver), changed) == []
    await serves_the_new_pool(world)


async def test_a_certificate_that_is_gone_keeps_no_other_gateway_from_starting(web: Web) -> None:
    world, real, _, wanted = web
    wanted, name = with_a_certificate(world, wanted)
    wanted = replace(wanted, sites={**wanted.sites, host(gateway="tls"): wanted.sites[host()]})
    await settled(world, wanted)
    real.kill()
    aside = name.rename(name.with_suffix(".aside"))
    await world.settle(wanted)
    real.start()
    await world.returned()
    engine = (await look(world.driver))["http_engine"]["config"]
    assert engine.listens == {ServiceKey("tcp", LOOPBACK, world.port)}, "the gates of the other gateway are closed"
    assert {(await world.get()).body for _ in range(4)} == {"one", "two"}
    aside.rename(name)
    world.skipped += 31.0
    assert await world.settle(wanted) == []
    assert differences(await look(world.driver), wanted) == []
