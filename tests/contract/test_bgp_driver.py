"""The ``routes`` table: one suite for the fake and for the real driver (with a bridge that is a dict), and the
promises that only the real one makes: adoption, silence, and what happens while no bridge is there."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from anycastlb.adapters.drivers import Driver, bgp, bridge_server
from anycastlb.adapters.drivers.bgp import BgpDriver
from anycastlb.adapters.drivers.bridge_server import BridgeServer
from anycastlb.adapters.drivers.last_bridge import LastBridge
from anycastlb.adapters.drivers.memory import MemoryDriver
from anycastlb.adapters.drivers.under_way import STALL
from anycastlb.adapters.system.unix_listener import is_bridge
from anycastlb.bridge.protocol import Heartbeat, Report, RouteSet, decode_order, encode
from anycastlb.core.decision import plan
from anycastlb.core.events import Event
from anycastlb.core.model import Address, Change, DriverError, Route, Session, State

RANGES = (ip_network("192.0.2.0/24"), ip_network("2001:db8::/64"))
ONE, TWO, SIX = ip_address("192.0.2.1"), ip_address("192.0.2.2"), ip_address("2001:db8::1")
BAD = ip_address("192.0.2.66")
HOLD = 5.0
PLAIN = Route()
UP = Session("10.99.1.1", "up", 1.0)


def create(vip: Address, route: Route = PLAIN) -> Change:
    return Change("routes", vip, None, route)


class FakeBridge:
    """Does what it is told at once, but for ``BAD``, which it rejects."""

    def __init__(self, path: Path, announced: Mapping[Address, Route] | None = None) -> None:
        self.path = path
        self.orders: list[RouteSet | Heartbeat] = []
        self.report = Report(ready=True, version="5.0.15", announced=announced or {}, sessions=(UP,))
        self.deaf = False
        """Reads and does nothing."""

    async def run(self) -> None:
        reader, self.writer = await asyncio.open_unix_connection(str(self.path))
        try:
            self.say(self.report)
            while line := await reader.readline():
                order = decode_order(line)
                self.orders.append(order)
                if isinstance(order, RouteSet) and not self.deaf:
                    self.obey(order)
        finally:
            self.writer.close()

    def obey(self, order: RouteSet) -> None:
        announced = {vip: route for vip, route in order.routes.items() if vip != BAD}
        rejected = {BAD: "ExaBGP refused it"} if BAD in order.routes else {}
        self.say(Report(order.serial, True, "5.0.15", announced, rejected, (UP,)))

    def say(self, report: Report) -> None:
        self.report = report
        self.writer.write(encode(report))

    def progress(self, announced: Mapping[Address, Route]) -> Report:
        """No set was dealt with entirely since the last report, but this is announced now."""
        return replace(self.report, announced=announced)

    @property
    def heartbeats(self) -> int:
        return sum(isinstance(order, Heartbeat) for order in self.orders)

    @property
    def sets(self) -> list[Mapping[Address, Route]]:
        return [order.routes for order in self.orders if isinstance(order, RouteSet)]


class Stage:
    """A driver that serves, its bridges, and its clock."""

    def __init__(self, path: Path, tasks: asyncio.TaskGroup) -> None:
        self.path, self._tasks, self._work = path, tasks, list[asyncio.Task[None]]()
        self.now = 0.0
        self.changes = 0
        self.events: list[Event] = []
        server = BridgeServer(str(path), emit=self.events.append)
        self.driver = BgpDriver(server, HOLD, RANGES, self._changed, self.events.append, clock=lambda: self.now)
        self.work(self.driver.run())

    def _changed(self) -> None:
        self.changes += 1

    async def bridge(self, announced: Mapping[Address, Route] | None = None) -> FakeBridge:
        bridge = FakeBridge(self.path, announced)
        await until(self.path.exists)
        self.work(bridge.run())
        await until(lambda: self.driver.speaker().connected)
        return bridge

    def work(self, what: Coroutine[Any, Any, None]) -> None:
        self._work.append(self._tasks.create_task(what))

    async def leave(self, bridge: FakeBridge) -> None:
        bridge.writer.close()
        await until(lambda: not self.driver.speaker().connected)

    def stop(self) -> None:
        for task in self._work:
            task.cancel()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.002)


@asynccontextmanager
async def staged(path: Path) -> AsyncIterator[Stage]:
    async with asyncio.TaskGroup() as tasks:
        stage = Stage(path, tasks)
        try:
            yield stage
        finally:
            stage.stop()


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(bgp, "FIRST_LOOK", 0.1)
    monkeypatch.setattr(bgp, "ACKNOWLEDGE_WAIT", 1.0)
    return tmp_path / "run" / "bgp.sock"


# ---------------------------------------------------------------- both drivers


@asynccontextmanager
async def memory(path: Path) -> AsyncIterator[Driver]:
    yield MemoryDriver(("routes",), lambda change: "ExaBGP refused it" if change.key == BAD else None)


@asynccontextmanager
async def real(path: Path) -> AsyncIterator[Driver]:
    async with staged(path) as stage:
        await stage.bridge()
        yield stage.driver


@pytest.fixture(params=[memory, real], ids=["memory", "bgp"])
def driven(request: pytest.FixtureRequest, path: Path) -> AbstractAsyncContextManager[Driver]:
    context: AbstractAsyncContextManager[Driver] = request.param(path)
    return context


async def test_what_was_written_is_observed(driven: AbstractAsyncContextManager[Driver]) -> None:
    async with driven as driver:
        assert driver.tables == ("routes",)
        assert await driver.observe() == {"routes": {}}
        route = Route(("65001:1",), ("1:2:3",), med=0, local_preference=7, as_path_prepend=2)
        assert await driver.apply([create(ONE), create(SIX, route)]) == []
        assert await driver.observe() == {"routes": {ONE: Route(), SIX: route}}
        assert await driver.apply([Change("routes", ONE, Route(), route), Change("routes", SIX, route, None)]) == []
        assert await driver.observe() == {"routes": {ONE: route}}


async def test_a_refused_route_fails_alone_and_leaves_nothing(driven: AbstractAsyncContextManager[Driver]) -> None:
    async with driven as driver:
        await driver.observe()
        failures = await driver.apply([create(ONE), create(BAD), create(TWO)])
        assert [(failure.change.key, failure.reason.text) for failure in failures] == [(BAD, "ExaBGP refused it")]
        assert (await driver.observe())["routes"] == {ONE: Route(), TWO: Route()}


async def test_nothing_to_do_is_done(driven: AbstractAsyncContextManager[Driver]) -> None:
    async with driven as driver:
        await driver.observe()
        assert await driver.apply([]) == []
        assert await driver.observe() == {"routes": {}}


# ---------------------------------------------------------------- what may leave


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (create(ip_address("203.0.113.1")), "outside vip_ranges"),
        (create(ip_address("2001:db8:1::1")), "outside vip_ranges"),
        (create(TWO, Route(("shutdown now",))), "communities"),
        (create(TWO, Route(med=2**32)), "med"),
    ],
)
async def test_what_may_not_leave_is_never_sent(path: Path, change: Change, reason: str) -> None:
    async with staged(path) as stage:
        bridge = await stage.bridge()
        failures = await stage.driver.apply([change, create(ONE)])
        assert [failure.change for failure in failures] == [change]
        assert reason in failures[0].reason.text
        assert bridge.sets == [{ONE: Route()}]
        assert reason in stage.driver.speaker().rejected[change.key]


# ---------------------------------------------------------------- a daemon that starts


async def test_a_fresh_daemon_says_nothing_before_it_has_looked_and_decided(path: Path) -> None:
    async with staged(path) as stage:
        bridge = await stage.bridge({ONE: Route(med=1), TWO: Route()})
        assert (await stage.driver.observe())["routes"] == {ONE: Route(med=1), TWO: Route()}
        await asyncio.sleep(0.05)
        assert bridge.orders == []
        stage.driver.beat()  # a cycle has ended that found all well
        await until(lambda: bool(bridge.orders))
        assert bridge.sets == [{ONE: Route(med=1), TWO: Route()}]


async def test_a_fresh_daemon_changes_only_what_it_decided_to(path: Path) -> None:
    async with staged(path) as stage:
        bridge = await stage.bridge({ONE: Route(), TWO: Route()})
        assert await stage.driver.apply([Change("routes", TWO, Route(), None)]) == []
        assert bridge.sets == [{ONE: Route()}]


async def test_the_first_look_waits_for_the_bridge(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bgp, "FIRST_LOOK", 5.0)
    async with staged(path) as stage, asyncio.TaskGroup() as tasks:
        look = tasks.create_task(stage.driver.observe())
        await asyncio.sleep(0.05)
        assert not look.done()
        await stage.bridge({ONE: Route()})
        assert (await look)["routes"] == {ONE: Route()}


async def test_without_a_bridge_everything_fails_with_the_reason(path: Path) -> None:
    async with staged(path) as stage:
        assert await stage.driver.observe() == {"routes": {}}
        (failure,) = await stage.driver.apply([create(ONE)])
        assert "not connected: is exabgp running" in failure.reason.text
        stage.driver.beat()
        bridge = await stage.bridge({ONE: Route(), TWO: Route()})
        await asyncio.sleep(0.05)
        assert bridge.orders == [], "nothing was decided about what this bridge announces"
        assert stage.changes == 1, "the reconciler was woken to look at it"


# ---------------------------------------------------------------- a bridge that leaves and returns


async def test_without_a_bridge_a_slow_cycle_is_no_reason_to_look_again_for_ever(path: Path) -> None:
    woken: list[float] = []
    now = 0.0
    driver = BgpDriver(BridgeServer(str(path)), 15.0, [], lambda: woken.append(now), clock=lambda: now)
    await cycle(driver, {})
    now = 30.0  # longer than ``hold``, as the first cycle of a large table may take
    for _ in range(3):
        driver.beat()
    assert not woken


async def test_what_failed_while_the_bridge_was_away_is_not_announced_later(path: Path) -> None:
    async with staged(path) as stage:
        first = await stage.bridge()
        await stage.driver.apply([create(ONE), create(TWO)])
        await stage.leave(first)
        failures = await stage.driver.apply([create(SIX), Change("routes", TWO, Route(), None)])
        assert len(failures) == 2 and all("not connected" in failure.reason.text for failure in failures)
        second = await stage.bridge({ONE: Route(), TWO: Route()})
        await until(lambda: bool(second.sets))
        assert second.sets == [{ONE: Route()}], "the withdrawal holds, the announcement does not"


async def test_the_last_known_routes_count_until_they_must_be_gone(path: Path) -> None:
    async with staged(path) as stage:
        bridge = await stage.bridge()
        await stage.driver.apply([create(ONE)])
        await stage.leave(bridge)
        assert [session.state for session in stage.driver.speaker().sessions] == ["unknown"]
        stage.now = HOLD + 0.9
        assert (await stage.driver.observe())["routes"] == {ONE: Route()}
        stage.now = HOLD + 1.1
        assert (await stage.driver.observe())["routes"] == {}
        back = await stage.bridge({TWO: Route()})
        assert (await stage.driver.observe())["routes"] == {TWO: Route()}, "looked at anew, as at the start"
        await asyncio.sleep(0.05)
        assert back.orders == []


async def test_lost_routes_and_sessions_wake_the_reconciler_and_own_changes_do_not(path: Path) -> None:
    async with staged(path) as stage:
        bridge = await stage.bridge()
        before = stage.changes
        await stage.driver.apply([create(ONE)])
        assert stage.changes == before
        bridge.say(Report(1, True, "5.0.15", {}, {}, (UP,)))
        await until(lambda: stage.changes == before + 1)
        bridge.say(Report(1, True, "5.0.15", {}, {}, (Session("10.99.1.1", "down", 2.0, "hold timer expired"),)))
        await until(lambda: stage.changes == before + 2)
        assert [session.state for session in stage.driver.speaker().sessions] == ["down"]
        assert any(event.subject == "10.99.1.1" and event.reason == "hold timer expired" for event in stage.events)
        await stage.leave(bridge)
        assert stage.changes == before + 3


# ---------------------------------------------------------------- a set that takes long

MANY = {ip_address("192.0.2.0") + n: Route() for n in range(200)}
CREATE_MANY = [create(vip) for vip in MANY]


async def shown(driver: BgpDriver, count: int) -> None:
    """Wait until a look shows so many routes."""
    async with asyncio.timeout(60):
        while len((await driver.observe())["routes"]) != count:
            await asyncio.sleep(0.002)


async def cycle(driver: BgpDriver, desired: Mapping[Address, Route]) -> tuple[list[Change], list[Change]]:
    """One of the reconciler's: what is under way after it, and what was refused."""
    rows = (await driver.observe())["routes"]
    outcomes = await driver.apply(plan.diff(State(routes=rows), State(routes=desired)))
    driver.beat()
    pending, refused = ([o.change for o in outcomes if o.pending is asked] for asked in (True, False))
    return pending, refused


async def test_what_was_acknowledged_counts_whatever_else_is_outstanding(path: Path) -> None:
    """Turned round: a set that took too long was taken back whole, and begun anew, for ever."""
    async with staged(path) as stage:
        bridge = await stage.bridge()
        bridge.deaf = True
        assert await cycle(stage.driver, MANY) == (CREATE_MANY, [])
        await until(lambda: bridge.sets == [MANY])
        for done in (50, 120, 199):
            bridge.say(bridge.progress(dict(list(MANY.items())[:done])))
            await shown(stage.driver, done)
            assert await cycle(stage.driver, MANY) == (CREATE_MANY[done:], [])
            stage.now += STALL - 1
        assert bridge.sets == [MANY], "it is sent once, and nothing is taken back"
        changes = stage.changes
        bridge.say(Report(1, True, "5.0.15", MANY, {}, (UP,)))
        await until(lambda: stage.changes == changes + 1)
        assert await cycle(stage.driver, MANY) == ([], [])


async def test_no_route_is_tried_while_exabgp_does_not_answer_its_bridge(path: Path) -> None:
    async with staged(path) as stage:
        bridge = FakeBridge(path)
        bridge.report = Report()
        await until(path.exists)
        stage.work(bridge.run())
        await until(lambda: "is connected but ExaBGP does not answer" in str(stage.driver.absence()))
        changes = stage.changes
        bridge.say(Report(ready=True, version="5.0.15", sessions=(UP,)))
        await until(lambda: stage.driver.absence() is None)
        assert stage.changes > changes, "it decides anew"


async def test_many_changes_give_other_tasks_their_turn_in_between(path: Path) -> None:
    async with staged(path) as stage, asyncio.TaskGroup() as tasks:
        bridge = await stage.bridge()
        bridge.deaf = True
        await stage.driver.observe()
        work, turns = tasks.create_task(stage.driver.apply(CREATE_MANY)), 0
        while not work.done():
            turns += 1
            await asyncio.sleep(0)
        assert [outcome.change for outcome in await work] == CREATE_MANY
        assert turns == 3, "they are judged, sent and told of in a turn each"


async def test_heartbeats_go_on_while_a_set_is_under_way(path: Path) -> None:
    async with staged(path) as stage:
        bridge = await stage.bridge()
        bridge.deaf = True
        await cycle(stage.driver, MANY)
        for _ in range(3):
            stage.driver.beat()
        await until(lambda: bridge.orders[1:] == [Heartbeat(1)] * 4)


async def test_a_withdrawal_does_not_wait_for_a_set_that_is_under_way(path: Path) -> None:
    async with staged(path) as stage, asyncio.TaskGroup() as tasks:
        bridge = await stage.bridge({TWO: Route(med=1)})
        bridge.deaf = True
        wanted = {**MANY, TWO: Route(med=1)}
        await cycle(stage.driver, wanted)
        await until(lambda: bridge.sets == [wanted])
        work = tasks.create_task(cycle(stage.driver, {vip: r for vip, r in wanted.items() if vip != TWO}))
        await until(lambda: len(bridge.sets) == 2)
        assert TWO not in bridge.sets[1] and len(bridge.sets[1]) == 199
        changes = stage.changes
        bridge.say(bridge.progress({}))
        pending, refused = await work  # it ends with the acknowledgement, not with that of the whole set
        assert len(pending) == 199 and not refused
        assert stage.changes == changes


async def test_the_reconciler_is_woken_when_all_withdrawals_are_done(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bgp, "ACKNOWLEDGE_WAIT", 0.0)
    async with staged(path) as stage:
        bridge = await stage.bridge({ONE: Route()})
        bridge.deaf = True
        pending, _ = await cycle(stage.driver, {})
        assert pending == [Change("routes", ONE, Route(), None)]
        changes = stage.changes
        bridge.say(bridge.progress({}))
        await until(lambda: stage.changes == changes + 1)


async def test_a_bridge_without_progress_is_a_failure_and_nothing_is_undone(path: Path) -> None:
    async with staged(path) as stage:
        bridge = await stage.bridge()
        bridge.deaf = True
        pending, refused = await cycle(stage.driver, {ONE: Route()})
        assert pending == [create(ONE)] and not refused
        stage.now += STALL
        changes = stage.changes
        await until(lambda: stage.changes > changes)
        assert await cycle(stage.driver, {ONE: Route()}) == ([], [create(ONE)])
        assert "no progress" in stage.driver.speaker().rejected[ONE]
        heartbeats = bridge.heartbeats
        stage.driver.beat()
        await until(lambda: bridge.heartbeats > heartbeats)  # whatever was sent before has arrived
        assert all(routes == {ONE: Route()} for routes in bridge.sets)
        bridge.say(Report(len(bridge.sets), True, "5.0.15", {ONE: Route()}, {}, (UP,)))
        await shown(stage.driver, 1)
        assert await cycle(stage.driver, {ONE: Route()}) == ([], [])


async def test_what_is_no_longer_asked_for_is_taken_back(path: Path) -> None:
    async with staged(path) as stage:
        bridge = await stage.bridge({TWO: Route()})
        bridge.deaf = True
        await cycle(stage.driver, {ONE: Route()})
        await until(lambda: bridge.sets == [{ONE: Route()}])
        assert await cycle(stage.driver, {TWO: Route()}) == ([], [])  # ONE is not to come, and TWO is not to go
        await until(lambda: len(bridge.sets) == 2)
        assert bridge.sets[1] == {TWO: Route()}
        await cycle(stage.driver, {ONE: Route(), TWO: Route()})
        await until(lambda: len(bridge.sets) == 3)
        assert bridge.sets[2] == {ONE: Route(), TWO: Route()}, "and may be asked for again"


async def test_a_route_that_exabgp_refuses_fails_when_the_rest_is_done(path: Path) -> None:
    async with staged(path) as stage:
        bridge = await stage.bridge()
        pending, refused = await cycle(stage.driver, {**MANY, BAD: Route()})
        await until(lambda: stage.driver.speaker().rejected.get(BAD) is not None)
        pending, refused = await cycle(stage.driver, {**MANY, BAD: Route()})
        assert (pending, refused) == ([], [create(BAD)])
        await until(lambda: BAD not in bridge.sets[-1])


# ---------------------------------------------------------------- a daemon that was frozen


async def test_after_a_freeze_nothing_is_proven_before_a_cycle_has_ended(path: Path) -> None:
    """Turned round: the first act after a thaw was a heartbeat for the routes of before."""
    async with staged(path) as stage:
        bridge = await stage.bridge()
        await cycle(stage.driver, {ONE: Route(), TWO: Route()})
        await until(lambda: len(bridge.orders) == 2)
        stage.now += HOLD
        changes = stage.changes
        stage.driver.beat()
        await asyncio.sleep(0.05)
        assert len(bridge.orders) == 2 and stage.changes == changes + 1
        await cycle(stage.driver, {TWO: Route()})
        await until(lambda: len(bridge.sets) > 1)
        assert bridge.sets[1:] == [{TWO: Route()}] * (len(bridge.sets) - 1)


# ---------------------------------------------------------------- proof of life


async def test_a_beat_is_sent_for_every_beat_and_never_otherwise(path: Path) -> None:
    async with staged(path) as stage:
        bridge = await stage.bridge()
        await stage.driver.apply([create(ONE)])
        await asyncio.sleep(0.05)
        assert len(bridge.orders) == 1
        for _ in range(3):
            stage.driver.beat()
        await until(lambda: len(bridge.orders) == 4)
        assert bridge.orders[1:] == [Heartbeat(1)] * 3


async def test_a_silent_bridge_is_dropped(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge_server, "WATCH_PERIOD", 0.02)
    async with staged(path) as stage:
        await stage.bridge()
        await until(lambda: not stage.driver.speaker().connected)
        assert any("says nothing" in event.reason for event in stage.events)


# ---------------------------------------------------------------- the socket


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff\xfe\n",
        b"hello\n",
        b'{"set": {"serial": 1, "hold": 1, "routes": {}}}\n',
        json.dumps({"report": {"serial": 1}}).encode() + b"\n",
        b"[" * 200_000 + b"\n",
    ],
)
async def test_garbage_is_dropped_and_harms_nobody(path: Path, garbage: bytes) -> None:
    async with staged(path) as stage:
        bridge = await stage.bridge()
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(garbage)
        assert await reader.read() == b""
        writer.close()
        assert any("is no bridge" in event.reason for event in stage.events)
        assert await stage.driver.apply([create(ONE)]) == []
        assert bridge.sets == [{ONE: Route()}]


async def test_garbage_from_the_bridge_itself_ends_its_connection_only(path: Path) -> None:
    async with staged(path) as stage:
        bridge = await stage.bridge()
        await stage.driver.apply([create(ONE)])
        bridge.writer.write(b"nonsense\n")
        await until(lambda: not stage.driver.speaker().connected)
        again = await stage.bridge({ONE: Route()})
        await until(lambda: again.sets == [{ONE: Route()}])


async def test_a_second_bridge_is_refused(path: Path) -> None:
    async with staged(path) as stage:
        await stage.bridge()
        second = FakeBridge(path)
        await second.run()  # ends, because the connection is closed
        assert second.orders == []
        assert any("running twice" in event.reason for event in stage.events)
        assert stage.driver.speaker().connected


@asynccontextmanager
async def looks_like_a_bridge() -> AsyncIterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "anycastlb-bridge"])
    try:
        await until(lambda: is_bridge(process.pid))
        yield process
    finally:
        process.kill()
        process.wait()


async def test_a_bridge_that_hung_before_the_daemon_started_is_ended(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge_server, "WATCH_PERIOD", 0.02)
    path.parent.mkdir()
    async with looks_like_a_bridge() as hung, looks_like_a_bridge() as other:
        LastBridge(path).keep(hung.pid)
        async with staged(path) as stage:
            await until(lambda: hung.poll() is not None)
            assert [event.reason for event in stage.events] == [
                f"the bridge (process {hung.pid}) does not connect although it runs: killing it"
            ]
        assert hung.returncode == -signal.SIGKILL and other.poll() is None


async def test_no_other_process_is_taken_for_the_last_bridge(path: Path) -> None:
    path.parent.mkdir()
    last = LastBridge(path)
    assert last.pid() == 0
    async with looks_like_a_bridge() as hung:
        last.keep(hung.pid)
        assert last.pid() == hung.pid
        memory = path.with_name("bgp.sock.bridge")
        memory.write_text(f"{hung.pid} 1")  # one of this number that was started at another time
        assert last.pid() == 0
        memory.write_text("a bridge")
        assert last.pid() == 0
        last.keep(hung.pid)
    assert last.pid() == 0


async def test_the_socket_is_for_owner_and_group_and_is_removed(path: Path) -> None:
    async with staged(path):
        await until(path.exists)
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert not path.exists()


async def test_a_second_daemon_is_an_error_and_harms_the_first_not(path: Path) -> None:
    async with staged(path) as stage:
        await until(path.exists)
        with pytest.raises(DriverError, match="another daemon listens"):
            await BgpDriver(BridgeServer(str(path)), HOLD, RANGES).run()
        await stage.bridge()


async def test_the_socket_of_a_dead_daemon_is_replaced(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with staged(path) as stage:
        await stage.bridge()


async def test_a_file_in_the_way_is_an_error_and_stays(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("precious")
    with pytest.raises(DriverError, match="no socket"):
        await BgpDriver(BridgeServer(str(path)), HOLD, RANGES).run()
    assert path.read_text() == "precious"


async def test_an_unknown_group_is_an_error(path: Path) -> None:
    with pytest.raises(DriverError, match="no-such-group"):
        await BgpDriver(BridgeServer(str(path), "no-such-group"), HOLD, RANGES).run()


async def test_a_directory_out_of_reach_is_an_error() -> None:
    with pytest.raises(DriverError, match="cannot listen"):
        await BgpDriver(BridgeServer("/proc/bgp.sock"), HOLD, RANGES).run()
