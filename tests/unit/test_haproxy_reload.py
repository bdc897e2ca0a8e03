"""A reload of HAProxy that takes its time: who answers meanwhile, and what is known of it by then.

The sockets here are those of a HAProxy that does what the real ones do when the machine is busy: its old worker goes on
accepting connections, the new one is slow to run, and the master cannot be reached while it starts itself anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from anycastlb.adapters.drivers.haproxy import answers, sockets
from anycastlb.adapters.drivers.haproxy.driver import HaproxyDriver
from anycastlb.adapters.drivers.haproxy.errors import Away, Unfinished
from anycastlb.adapters.drivers.haproxy.installation import Installation
from anycastlb.adapters.drivers.haproxy.memory import MemoryHaproxy
from anycastlb.adapters.drivers.haproxy.sockets import PROMPT, SocketRuntime
from anycastlb.core.model import ServiceKey
from tests.support.haproxy import LOOPBACK, config, gateway, section
from tests.support.haproxy_rows import Wanted, at, differences, host, look, server, settle, site

OLD, NEW = 11, 12
INFO = "Version: 2.6.12\nPid: {}\ndescription: \nStopping: {}"
PROCESSES = """\
#<PID>          <type>          <reloads>       <uptime>        <version>
10              master          {} [failed: {}]   0d00h00m05s     2.6.12-1+deb12u4
# workers
{}              worker          0               0d00h00m05s     2.6.12-1+deb12u4
# old workers
{}              worker          {}               0d00h00m05s     2.6.12-1+deb12u4
"""


@dataclass
class Sockets:
    """``workers`` says who accepts the next connections, and whether it is stopping; the last one accepts all others.

    A worker of pid 0 closes the connection. ``masters`` is the same for the master, which says nothing if it is empty.
    """

    folder: Path
    workers: list[tuple[int, int]] = field(default_factory=lambda: [(OLD, 0)])
    masters: list[str] = field(default_factory=lambda: [PROCESSES.format(0, 0, OLD, 9, 1)])
    asked: list[str] = field(default_factory=list)

    @property
    def runtime(self) -> SocketRuntime:
        return SocketRuntime(self.folder / "s", self.folder / "m", Path("haproxy"))

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[SocketRuntime]:
        worker = await asyncio.start_unix_server(self._worker, str(self.folder / "s"))
        master = await asyncio.start_unix_server(self._master, str(self.folder / "m"))
        runtime = self.runtime
        async with worker, master:
            yield runtime
            runtime.close()

    async def _worker(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pid, stopping = self.workers.pop(0) if len(self.workers) > 1 else self.workers[0]
        interactive = False
        while pid and (line := await reader.readline()):
            interactive = interactive or line == b"prompt\n"
            writer.write(INFO.format(pid, stopping).encode() if line == b"show info\n" else b"")
            writer.write(PROMPT if interactive else b"")
            if not interactive:
                break
        writer.close()

    async def _master(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        command = (await reader.read()).decode()
        self.asked.append(command)
        if command == "show proc\n":
            said = self.masters.pop(0) if len(self.masters) > 1 else self.masters[0]
            writer.write(said.encode())
        writer.close()


BEFORE, AFTER = PROCESSES.format(0, 0, OLD, 9, 1), PROCESSES.format(1, 0, NEW, OLD, 1)
STARTED_ANEW, FAILED = PROCESSES.format(0, 0, NEW, 9, 1), PROCESSES.format(1, 1, 9, OLD, 1)


@pytest.mark.parametrize(
    "workers",
    [
        [(OLD, 0), (OLD, 0), (OLD, 1), (NEW, 0)],
        [(OLD, 0), (OLD, 1), (OLD, 1), (OLD, 1), (NEW, 0)],
        [(OLD, 0), (0, 0), (0, 0), (NEW, 0)],
    ],
    ids=["before its signal", "stopping", "ending"],
)
async def test_a_reload_ends_with_the_new_worker_whoever_accepts_before_it(
    tmp_path: Path, workers: list[tuple[int, int]]
) -> None:
    haproxy = Sockets(tmp_path, workers, [BEFORE, "", AFTER])
    async with haproxy.serve() as runtime:
        await runtime.connect()
        assert await runtime.reload() == ""
        assert answers.info((await runtime.ask(["show info"]))[0]).pid == NEW
        assert haproxy.workers == [(NEW, 0)]


async def test_a_master_that_has_been_started_anew_has_reloaded(tmp_path: Path) -> None:
    async with Sockets(tmp_path, [(NEW, 0)], [BEFORE, STARTED_ANEW]).serve() as runtime:
        assert await runtime.reload() == ""


async def test_a_reload_that_failed_is_no_success(tmp_path: Path) -> None:
    async with Sockets(tmp_path, [(OLD, 0)], [BEFORE, FAILED]).serve() as runtime:
        assert "refused" in await runtime.reload()


async def test_a_reload_that_is_slow_is_neither(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "RELOAD", 0.1)
    haproxy = Sockets(tmp_path, [(NEW, 0)])
    async with haproxy.serve() as runtime:
        haproxy.masters = [BEFORE]
        with pytest.raises(Unfinished):
            await runtime.reload()
        haproxy.masters = [AFTER]
        haproxy.asked.clear()
        assert await runtime.reload() == ""
        assert "show proc\n" in haproxy.asked
        assert "reload\n" not in haproxy.asked, "one that is over by then is not repeated"


# ---------------------------------------------------------------- what the driver makes of it


class SlowHaproxy(MemoryHaproxy):
    """``slow``: it does not finish its reloads, until ``finish``."""

    slow = False
    stopping = 0
    """So many more questions are answered by a worker that stops."""
    outdated = ""
    """The next reload finds this in the place of its configuration."""
    closing = 0
    """So many more are not answered, because the worker that was connected to ends."""

    async def reload(self) -> str:
        if self.slow:
            raise Unfinished("HAProxy was asked to reload, and is not done after 15 s")
        text = self.files.config.read_text()
        self.files.config.write_text(self.outdated or text)
        said = await super().reload()
        self.files.config.write_text(text)
        self.outdated = ""
        return said

    async def ask(self, commands: Sequence[str]) -> list[str]:
        if self.closing:
            self.closing -= 1
            raise Away("HAProxy closed the connection")
        said = await super().ask(commands)
        if self.stopping and commands == ["show info"]:
            self.stopping -= 1
            return [said[0].replace("Stopping: 0", "Stopping: 1")]
        return said


class Scene:
    """A HAProxy that serves the hostname of one pool, and its driver, to which no time passes but what is added."""

    def __init__(self, folder: Path) -> None:
        (folder / "certificates").mkdir()
        self.haproxy = SlowHaproxy(Installation(folder / "run", folder / "certificates", folder / "s", folder / "m"))
        self.now, self.woken = 0.0, 0
        self.wanted = Wanted(
            config([gateway(80)], [section("shop")]),
            servers={at("shop", "one"): server(9)},
            sites={host(): site("v1", {"": "shop"})},
        )
        self.restart()

    def restart(self) -> None:
        """A daemon that knows nothing but the files."""
        self.driver = HaproxyDriver(self.haproxy.files, self.haproxy, self.wake, lambda: self.now)

    def wake(self) -> None:
        self.woken += 1

    async def pass_time(self, seconds: float) -> None:
        self.now += seconds
        await self.driver.tend()

    async def starts(self) -> None:
        await settle(self.driver, self.wanted)
        self.haproxy.start()
        await look(self.driver)
        assert await settle(self.driver, self.wanted) == []

    def with_a_new_pool(self) -> Wanted:
        more = config([gateway(80)], [section("shop"), section("new")])
        servers = {**self.wanted.servers, at("new", "one"): server(10)}
        sites = {**self.wanted.sites, host("new.example"): site("v2", {"": "new"})}
        return replace(self.wanted, config=more, digest="second", servers=servers, sites=sites)


@pytest.fixture
async def scene(tmp_path: Path) -> Scene:
    scene = Scene(tmp_path)
    await scene.starts()
    return scene


LISTENS = {ServiceKey("tcp", LOOPBACK, 80)}


async def test_a_slow_reload_is_waited_for_and_closes_no_gate(scene: Scene) -> None:
    scene.haproxy.slow = True
    wanted = scene.with_a_new_pool()
    for _ in range(3):
        failures = await settle(scene.driver, wanted)
        assert failures and all(failure.pending for failure in failures), "else what listens counts as refused"
        engine = (await look(scene.driver))["http_engine"]["config"]
        assert engine.digest == "first" and engine.listens == LISTENS
        woken = scene.woken
        await scene.pass_time(2.0)
        assert scene.woken > woken, "it is looked at again without a resync"


async def test_a_slow_reload_that_is_over_at_last_needs_no_other(scene: Scene) -> None:
    scene.haproxy.slow = True
    wanted = scene.with_a_new_pool()
    await settle(scene.driver, wanted)
    scene.haproxy.start()  # with the file that is there
    assert await settle(scene.driver, wanted) == []
    assert differences(await look(scene.driver), wanted) == []


async def test_a_reload_that_brought_the_configuration_before_is_repeated(scene: Scene) -> None:
    """The master read its file when that was not written yet: whatever needs the new one waits, and is not refused."""
    wanted = scene.with_a_new_pool()
    scene.haproxy.outdated = scene.haproxy.files.config.read_text()
    failures = await settle(scene.driver, wanted)
    assert failures and all(failure.pending for failure in failures), failures
    woken = scene.woken
    await scene.pass_time(2.0)
    assert scene.woken > woken
    assert await settle(scene.driver, wanted) == []
    assert differences(await look(scene.driver), wanted) == []


async def test_what_happens_while_a_reload_is_slow_is_not_lost(scene: Scene) -> None:
    """The file is brought to what HAProxy has meanwhile, whichever configuration that is."""
    scene.haproxy.slow = True
    wanted = scene.with_a_new_pool()
    await settle(scene.driver, wanted)
    wanted = replace(wanted, servers={**wanted.servers, at("shop", "one"): server(9, state="maint")})
    await settle(scene.driver, wanted)
    await scene.pass_time(1.0)
    scene.haproxy.slow = False
    scene.haproxy.start()
    assert (await look(scene.driver))["http_servers"][at("shop", "one")].state == "maint", "R15"
    await scene.pass_time(2.0)
    assert await settle(scene.driver, wanted) == []
    assert differences(await look(scene.driver), wanted) == []


async def test_a_daemon_that_starts_amid_a_reload_knows_the_configuration_before(scene: Scene) -> None:
    scene.haproxy.slow = True
    wanted = scene.with_a_new_pool()
    await settle(scene.driver, wanted)
    scene.restart()
    engine = (await look(scene.driver))["http_engine"]["config"]
    assert engine.digest == "first" and engine.listens == LISTENS
    await scene.pass_time(1.0)
    assert "anycastlb first " in scene.haproxy.files.config.read_text(), "with which HAProxy would start"
    scene.haproxy.slow = False
    assert await settle(scene.driver, wanted) == []
    assert differences(await look(scene.driver), wanted) == []


@pytest.mark.parametrize(("stopping", "closing"), [(3, 0), (0, 1)])
async def test_a_worker_that_ends_is_not_haproxy(scene: Scene, stopping: int, closing: int) -> None:
    scene.haproxy.stopping, scene.haproxy.closing = stopping, closing
    assert differences(await look(scene.driver), scene.wanted) == []


async def test_another_worker_is_looked_at_entry_by_entry(scene: Scene) -> None:
    """Its maps have as many entries as those of the worker before, and are not the same."""
    file = scene.haproxy.files.map("next")
    file.write_text(file.read_text().replace("v1", "v9"))
    scene.haproxy.start()
    assert [change.key for change in differences(await look(scene.driver), scene.wanted)] == [host()]
    assert await settle(scene.driver, scene.wanted) == []
    assert differences(await look(scene.driver), scene.wanted) == []
