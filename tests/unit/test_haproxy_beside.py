"""HAProxy's driver beside the reconciler: who waits for what, and what is known of a HAProxy that does not answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from anycastlb.adapters.drivers.haproxy import answers, beside, sockets
from anycastlb.adapters.drivers.haproxy.beside import FALL, WAIT, HaproxyBeside
from anycastlb.adapters.drivers.haproxy.driver import AWAY_REASON, HaproxyDriver
from anycastlb.adapters.drivers.haproxy.errors import Away
from anycastlb.adapters.drivers.haproxy.installation import Installation
from anycastlb.adapters.drivers.haproxy.memory import MemoryHaproxy
from anycastlb.adapters.drivers.haproxy.sockets import SocketRuntime
from anycastlb.core.model import Change, Failure, HttpEngine, Reason, Rows, Table
from tests.support.haproxy import write_empty_maps
from tests.support.waiting import PATIENCE, eventually

CREATE = Change("http_engine", "config", None, HttpEngine("wanted"))
LATER = Change("http_engine", "config", None, HttpEngine("other"))
REFUSED = Reason("haproxy_refused", "HAProxy does not take the configuration: nonsense")
ROWS: Mapping[Table, Rows] = {"http_engine": {"config": HttpEngine("first")}}


class Probed(MemoryHaproxy):
    """Counts the questions whether it lives."""

    probes = 0

    async def probe(self) -> int:
        self.probes += 1
        return await super().probe()


class SlowDriver(HaproxyDriver):
    """Its work is done when it is allowed to be."""

    reloading = False
    away = True
    returns = False
    """The next look finds it there."""

    def __init__(self, haproxy: MemoryHaproxy) -> None:
        super().__init__(haproxy.files, haproxy)
        self.allowed = asyncio.Event()
        self.allowed.set()
        self.outcome: Sequence[Failure] | Exception = ()
        self.looks = 0

    async def observe(self) -> Mapping[Table, Rows]:
        self.looks += 1
        await self.allowed.wait()
        self.away = self.away and not self.returns
        return ROWS

    async def apply(self, changes: Sequence[Change]) -> Sequence[Failure]:
        await self.allowed.wait()
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


class Scene:
    def __init__(self, folder: Path) -> None:
        self.haproxy = Probed(Installation(folder, folder, folder / "s", folder / "m"))
        self.driver = SlowDriver(self.haproxy)
        self.woken = asyncio.Event()
        self.beside = HaproxyBeside(self.driver, self.haproxy, self.woken.set)

    async def is_changed(self) -> None:
        """From now on a change is under way, which lasts until the driver is allowed to end it."""
        assert await self.beside.observe() == ROWS
        await self.haproxy.connect()
        self.driver.allowed.clear()
        await self.beside.apply([CREATE])

    async def probed(self, times: int) -> None:
        """Until it has been asked so often from now on."""
        probes = self.haproxy.probes
        await eventually(lambda: self.haproxy.probes > probes + times)

    async def looked_at(self) -> None:
        """The driver itself has looked at the worker that runs, so that nothing wakes the reconciler any more."""
        await HaproxyDriver.observe(self.driver)
        await self.probed(1)
        self.woken.clear()

    async def __aenter__(self) -> Scene:
        self._running = asyncio.ensure_future(self.beside.run())  # noqa: TID251
        return self

    async def __aexit__(self, *_: object) -> None:
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


async def test_what_takes_long_is_under_way_and_wakes_the_reconciler(scene: Scene) -> None:
    async with scene:
        assert await scene.beside.observe() == ROWS
        scene.driver.away = False
        scene.driver.allowed.clear()
        assert [(one.pending, one.reason.code) for one in await scene.beside.apply([CREATE])] == [
            (True, "haproxy_under_way")
        ]
        assert await scene.beside.observe() == ROWS and scene.driver.looks == 1, "what was seen last"
        assert [one.pending for one in await scene.beside.apply([CREATE])] == [True], "nothing is begun beside it"
        scene.driver.allowed.set()
        await scene.woken.wait()
        assert await scene.beside.apply([CREATE]) == ()


async def test_what_failed_before_has_failed_until_it_is_known_to_have_worked(scene: Scene) -> None:
    async with scene:
        scene.driver.outcome = (Failure(CREATE, REFUSED),)
        assert await scene.beside.apply([CREATE]) == (Failure(CREATE, REFUSED),)
        scene.driver.allowed.clear()
        assert await scene.beside.apply([CREATE]) == [Failure(CREATE, REFUSED)], "its gates do not open meanwhile"
        scene.driver.outcome = ()
        scene.driver.allowed.set()
        await scene.woken.wait()
        assert await scene.beside.apply([CREATE]) == ()


async def test_that_another_change_has_failed_says_nothing_of_this_one(scene: Scene) -> None:
    """As the first configuration does, which fails because HAProxy does not run yet, when a later one takes long."""
    async with scene:
        scene.driver.outcome = (Failure(CREATE, REFUSED),)
        await scene.beside.apply([CREATE])
        scene.driver.allowed.clear()
        scene.driver.away = False
        (under_way,) = await scene.beside.apply([LATER])
        assert under_way.pending and under_way.reason.code == "haproxy_under_way"
        scene.driver.away = True
        assert await scene.beside.apply([LATER]) == [Failure(LATER, REFUSED)]


async def test_what_failed_for_the_absence_of_haproxy_is_forgotten_once_it_is_back(scene: Scene) -> None:
    async with scene:
        await scene.beside.observe()
        scene.driver.outcome = (Failure(CREATE, REFUSED),)
        await scene.beside.apply([CREATE])
        scene.driver.returns = True
        await scene.beside.observe()
        scene.driver.allowed.clear()
        assert [one.pending for one in await scene.beside.apply([CREATE])] == [True]


async def test_one_that_is_away_is_away_while_its_files_are_written(scene: Scene) -> None:
    """Were it under way, each cycle would decide once more that it is not there."""
    async with scene:
        await scene.beside.observe()
        scene.driver.allowed.clear()
        for _ in range(2):
            assert await scene.beside.apply([CREATE]) == [Failure(CREATE, AWAY_REASON)]


async def test_a_long_look_is_used_once_it_is_over(scene: Scene) -> None:
    async with scene:
        await scene.beside.observe()
        scene.driver.allowed.clear()
        await scene.beside.observe()
        scene.driver.allowed.set()
        await scene.woken.wait()
        looks = scene.driver.looks
        await scene.beside.observe()
        assert scene.driver.looks == looks, "else a look that takes long would be followed by another for ever"
        await scene.beside.observe()
        assert scene.driver.looks == looks + 1


async def test_a_fault_of_ours_about_haproxy_is_a_failure_of_its_changes(scene: Scene) -> None:
    async with scene:
        scene.driver.outcome = ZeroDivisionError("oops")
        (failure,) = await scene.beside.apply([CREATE])
        assert failure.reason.code == "internal_error" and not failure.pending


@pytest.fixture
def started(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """HAProxy runs, and is asked often whether it does."""
    monkeypatch.setattr(beside, "INTERVAL", 0.005)
    monkeypatch.setattr(beside, "AGAIN", 0.005)
    write_empty_maps(scene.haproxy.files)
    scene.haproxy.files.config.write_text("")
    scene.haproxy.start()
    return scene


async def test_silence_amid_a_reload_is_no_absence(started: Scene) -> None:
    async with started as scene:
        await scene.beside.observe()
        scene.driver.reloading, scene.haproxy.stopped = True, True
        await scene.probed(2 * FALL)
        assert any((await scene.beside.observe()).values())
        scene.driver.reloading = False
        await scene.probed(2 * FALL)
        assert not any((await scene.beside.observe()).values())


async def test_a_socket_that_refuses_amid_a_reload_is_one(started: Scene) -> None:
    async with started as scene:
        await scene.beside.observe()
        scene.driver.reloading, scene.haproxy.worker = True, None
        await scene.probed(2 * FALL)
        assert not any((await scene.beside.observe()).values())


async def test_one_that_is_gone_is_not_waited_for_whatever_is_under_way(
    started: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R20: its end is known from its connection, and neither it nor its master is asked a second time."""
    monkeypatch.setattr(beside, "INTERVAL", PATIENCE)
    monkeypatch.setattr(beside, "AGAIN", PATIENCE)
    async with started as scene:
        await scene.is_changed()
        scene.woken.clear()
        scene.haproxy.kill()
        async with asyncio.timeout(PATIENCE):
            while any((await scene.beside.observe()).values()):
                await scene.woken.wait()
                scene.woken.clear()
                await asyncio.sleep(0)
        assert scene.beside.absence() == AWAY_REASON
        assert scene.haproxy.probes == 1


async def test_one_that_is_back_amid_what_is_under_way_is_not_taken_for_what_it_was(started: Scene) -> None:
    """Its connection is not there yet, so that a second death would be noticed late. And it may be another one."""
    async with started as scene:
        await scene.is_changed()
        scene.haproxy.kill()
        await scene.probed(1)
        assert not any((await scene.beside.observe()).values())
        scene.haproxy.start()
        await scene.probed(1)
        assert not any((await scene.beside.observe()).values()), "nobody has looked at it"
        scene.driver.allowed.set()
        async with asyncio.timeout(PATIENCE):
            while await scene.beside.observe() != ROWS:
                await asyncio.sleep(0)


async def test_a_worker_that_nobody_has_looked_at_yet_wakes_the_reconciler(started: Scene) -> None:
    """Somebody else has reloaded HAProxy, while the connection to the worker before it still stands."""
    async with started as scene:
        await scene.woken.wait()
        await scene.looked_at()
        await scene.probed(FALL)
        assert not scene.woken.is_set(), "it is looked at once"
        scene.haproxy.start()
        await scene.woken.wait()


async def test_a_look_that_hung_in_a_stopped_haproxy_and_ends_well_is_an_answer(started: Scene) -> None:
    """Else what it has would be created once more, by a reload, until it is asked the next time."""
    async with started as scene:
        await scene.beside.observe()
        scene.driver.allowed.clear()
        assert await scene.beside.observe() == ROWS, "the look hangs"
        scene.haproxy.stopped = True
        await scene.probed(FALL + 1)
        assert not any((await scene.beside.observe()).values()) and scene.beside.absence() is not None
        scene.woken.clear()
        scene.driver.returns = True
        scene.driver.allowed.set()
        await scene.woken.wait()
        assert await scene.beside.observe() == ROWS and scene.beside.absence() is None
        scene.driver.away = True
        await scene.probed(1)
        assert not any((await scene.beside.observe()).values()), "it still does not answer"


async def test_a_silent_haproxy_is_asked_for_nothing(started: Scene) -> None:
    async with started as scene:
        await scene.beside.observe()
        await scene.looked_at()
        scene.haproxy.stopped = True
        await scene.woken.wait()
        looks = scene.driver.looks
        assert not any((await scene.beside.observe()).values()) and scene.driver.looks == looks
        scene.woken.clear()
        scene.haproxy.stopped = False
        await scene.woken.wait()
        assert await scene.beside.observe() == ROWS


def test_the_reconciler_waits_no_longer_than_for_a_kernel() -> None:
    assert WAIT < 0.5


NOTICE = "[NOTICE]   (5663) : haproxy version is 2.6.12-1+deb12u3\n"
ARGUMENTS = """\
[ALERT]    (5663) : config : multiple argument resolution errors:
\tparsing [h.cfg:23]: error in regex '(' in arg 1 of conversion keyword 'regsub'
\tparsing [h.cfg:28]: error in regex '[' in arg 1 of conversion keyword 'regsub'
"""
FOUND = "[ALERT]    (5663) : config : Error(s) found in configuration file : h.cfg\n"
OTHER = "[ALERT]    (5663) : config : parsing [h.cfg:9] : unknown keyword 'nonsense'\n"


@pytest.mark.parametrize(
    ("output", "told"),
    [
        (NOTICE + OTHER + FOUND, "config : parsing [h.cfg:9] : unknown keyword 'nonsense'"),
        (
            NOTICE + ARGUMENTS + OTHER + FOUND,
            "config : multiple argument resolution errors: "
            "parsing [h.cfg:23]: error in regex '(' in arg 1 of conversion keyword 'regsub' "
            "parsing [h.cfg:28]: error in regex '[' in arg 1 of conversion keyword 'regsub'; "
            "config : parsing [h.cfg:9] : unknown keyword 'nonsense'",
        ),
        (FOUND, "config : Error(s) found in configuration file : h.cfg"),
        ("Killed", "Killed"),
    ],
)
def test_what_haproxy_has_against_its_configuration_is_told_whole(output: str, told: str) -> None:
    """The heading of several errors alone says nothing."""
    assert answers.alerts(output) == told


async def test_who_lives_answers_over_a_new_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "LIFE", 60.0)
    path = tmp_path / "s"
    runtime = SocketRuntime(path, tmp_path / "m", Path("haproxy"))
    with pytest.raises(Away) as gone:
        await runtime.probe()
    assert not gone.value.silent, "nobody is there"
    speaks, asked = True, asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        if speaks:
            writer.write(b"Version: 2.6.12\nPid: 7\n")
        else:
            await asked.wait()
        writer.close()

    async with await asyncio.start_unix_server(serve, str(path)):
        assert await runtime.probe() == 7
        speaks = False
        monkeypatch.setattr(sockets, "LIFE", 0.2)
        with pytest.raises(Away) as stopped:
            await runtime.probe()
        asked.set()
        assert stopped.value.silent
        path.unlink()
        with pytest.raises(Away) as removed:
            await runtime.probe()
        assert not removed.value.silent, "its socket was taken away, though it runs"


async def test_an_answer_that_lay_there_while_this_node_did_not_run_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "LIFE", 0.2)
    path = tmp_path / "s"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        time.sleep(2 * sockets.LIFE)
        writer.write(b"Version: 2.6.12\nPid: 7\n")
        writer.close()

    async with await asyncio.start_unix_server(serve, str(path)):
        assert await SocketRuntime(path, tmp_path / "m", Path("haproxy")).probe() == 7
