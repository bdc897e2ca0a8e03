"""ExaBGP, the bridge and BIRD, all real: what leaves the node, and above all that it leaves in time.

The daemon is a ``BgpDriver`` and a reconciler of six lines (``keep``), in this process where it need not die, and as
a program of its own (``python -m tests.parts.test_bridge SOCKET HOLD VIP...``) where it must.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from anycastlb.adapters.drivers.bgp import BgpDriver
from anycastlb.adapters.drivers.bridge_server import BridgeServer
from anycastlb.core.events import Event
from anycastlb.core.model import Address, Change, Failure, Route
from tests.lab import lateness
from tests.lab.namespaces import Namespace, address, connect, delete
from tests.lab.process import GIVE_UP, Process, answers, freeze, until

ROOT = Path(__file__).parents[2]
HOLD = 2.0
PATIENT = 60.0
"""A hold that no start of a program outlasts."""
CONNECTED = "the bridge has connected"
RELOADING = "performing reload"
"""What ExaBGP logs whenever it reads its configuration."""
WIDE = (ip_network("0.0.0.0/0"), ip_network("::/0"))
ONE, TWO, SIX = ip_address("192.0.2.1"), ip_address("192.0.2.2"), ip_address("2001:db8::1")
OUTSIDE = ip_address("203.0.113.1")
PLAIN = {ONE: Route(), SIX: Route()}

BIRD = """
router id 10.99.1.1;
log stderr all;
protocol device {{ }}
protocol direct {{ ipv4; ipv6; }}
template bgp lb {{
    local as 65000; hold time 9; connect delay time 1; connect retry time 1; error wait time 1, 2;
    graceful restart off; long lived graceful restart off;
}}
protocol bgp lb4 from lb {{
    local 10.99.1.1; neighbor 10.99.1.2 as 65001; ipv4 {{ import all; export none; }};
}}
protocol bgp lb6 from lb {{
    local fd00:99:1::1; neighbor fd00:99:1::2 as 65001; ipv6 {{ import all; export none; }};
}}
"""
NODE = """
[node]
name = "lb"
vip_ranges = ["192.0.2.0/24", "2001:db8::/64"]
[bgp]
socket = "{socket}"
hold = "{hold}s"
"""
PLACES = {
    "198.51.100.1 ": "10.99.1.1 ",
    "198.51.100.2": "10.99.1.2",
    "2001:db8:ffff::1": "fd00:99:1::1",
    "2001:db8:ffff::2": "fd00:99:1::2",
}
ENV = {
    "exabgp_api_cli": "false",
    "exabgp_daemon_user": "root",
    "exabgp_log_destination": "stdout",
    "PYTHONPATH": str(ROOT),
}


class Router:
    """BIRD, asked through its own socket."""

    def __init__(self, program: str, namespace: Namespace, directory: Path) -> None:
        self._socket = directory / "bird.ctl"
        config = directory / "bird.conf"
        config.write_text(BIRD.format())
        argv = [program, "-f", "-c", str(config), "-s", str(self._socket), "-P", str(directory / "bird.pid")]
        self.process = Process("bird", namespace, argv, directory / "bird.log")

    def start(self) -> None:
        self._socket.unlink(missing_ok=True)
        self.process.start()
        self.process.until(lambda: answers(self._socket), "BIRD can be asked")

    def ask(self, question: str) -> str:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(60)
            link.connect(str(self._socket))
            link.sendall(question.encode() + b"\n")
            text = b""
            while not re.search(rb"(?m)^(?!0001)[089]\d{3} ", text):
                piece = link.recv(65536)
                assert piece, f"BIRD does not answer {question!r} to the end: {text.decode()}"
                text += piece
            return text.decode()

    def routes(self) -> set[Address]:
        found = self.ask("show route where source = RTS_BGP")
        return {ip_address(prefix) for prefix in re.findall(r"([0-9a-f.:]+)/(?:32|128)\b", found)}

    def attributes(self, vip: Address) -> dict[str, str]:
        found = self.ask(f"show route for {vip} all")
        return dict(re.findall(r"BGP\.(\w+): (.*)", found))

    def sessions(self) -> int:
        return self.ask("show protocols").count("Established")

    def counts(self) -> tuple[int, int]:
        """(import updates, import withdraws) ever received over both sessions."""
        text = self.ask("show protocols all lb4") + self.ask("show protocols all lb6")
        updates, withdraws = (
            sum(map(int, re.findall(rf"Import {word}:\s+(\d+)", text))) for word in ("updates", "withdraws")
        )
        return updates, withdraws


class Bench:
    """A router and a load balancer without a daemon."""

    def __init__(self, bird: str, directory: Path) -> None:
        number = os.getpid()
        self.tor, self.lb = Namespace(f"t{number}"), Namespace(f"l{number}")
        self.directory, self.socket = directory, directory / "bgp.sock"
        self.node = directory / "node.toml"
        self.node.write_text(NODE.format(socket=self.socket, hold=HOLD))
        self.router = Router(bird, self.tor, directory)
        self.config = directory / "exabgp.conf"
        self.config.write_text(self._config())
        argv = [str(Path(sys.executable).parent / "exabgp"), "server", str(self.config)]
        self.exabgp = Process("exabgp", self.lb, argv, directory / "exabgp.log", ENV)

    def _config(self) -> str:
        """The template that operators copy, with this bench's values."""
        text = (ROOT / "exabgp" / "exabgp.conf").read_text()
        for documented, ours in PLACES.items():
            text = text.replace(documented, ours)
        run = f"run {sys.executable} -m anycastlb.bridge --config {self.node};"
        return re.sub(r"(?m)^    run .*;$", f"    {run}", text)

    def create(self) -> None:
        for namespace in (self.tor, self.lb):
            namespace.create()
        connect(self.tor, "lb", self.lb, "tor")
        address(self.tor, "lb", "10.99.1.1/24", "fd00:99:1::1/64")
        address(self.lb, "tor", "10.99.1.2/24", "fd00:99:1::2/64")
        self.router.start()

    def delete(self) -> None:
        self.exabgp.end()
        self.router.process.end()
        delete((self.tor, self.lb))

    def sound(self) -> None:
        """Router, ExaBGP, bridge and both sessions are up."""
        if not self.router.process.running:
            self.router.start()
        if not self.exabgp.running:
            self.exabgp.start()
        until(lambda: self.router.sessions() == 2, "both BGP sessions are up")
        until(self.bridges, "the bridge runs")

    def reload(self, config: str) -> None:
        """Have ExaBGP read this, as ``systemctl reload exabgp`` does; return when it has begun to.

        ExaBGP forgets a signal that comes while it sends updates, so it is asked again.
        """
        before = self.exabgp.log.read_text().count(RELOADING)
        self.config.write_text(config)

        def begun() -> bool:
            self.exabgp.signal(signal.SIGUSR1)
            return self.exabgp.log.read_text().count(RELOADING) > before

        until(begun, "ExaBGP has begun to reload", every=0.3)

    def bridges(self) -> list[int]:
        """ExaBGP's children (``ip netns exec`` has become ExaBGP itself)."""
        children = Path(f"/proc/{self.exabgp.pid}/task/{self.exabgp.pid}/children")
        return [int(pid) for pid in children.read_text().split()] if children.exists() else []


@pytest.fixture(scope="module")
def machines(require: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root; run the tests in the test kernel: make test")
    require("exabgp")
    bench = Bench(require("bird"), tmp_path_factory.mktemp("bgp"))
    try:
        bench.create()
        yield bench
    finally:
        bench.delete()


@pytest.fixture
def bench(machines: Bench) -> Iterator[Bench]:
    machines.sound()
    yield machines
    until(lambda: not machines.exabgp.running or not machines.router.routes(), "no route is left behind")


# ---------------------------------------------------------------- the daemon


async def keep(driver: BgpDriver, desired: Mapping[Address, Route], wake: asyncio.Event) -> None:
    """The whole reconciler, as far as routes go."""
    while True:
        wake.clear()
        failures = await apply(driver, desired)
        driver.beat()
        try:
            async with asyncio.timeout(0.2 if failures else 0.5):
                await wake.wait()
        except TimeoutError:
            continue


async def apply(driver: BgpDriver, desired: Mapping[Address, Route]) -> Sequence[Failure]:
    actual = (await driver.observe())["routes"]
    changes = [
        Change("routes", vip, actual.get(vip), desired.get(vip))
        for vip in [*actual, *(vip for vip in desired if vip not in actual)]
        if actual.get(vip) != desired.get(vip)
    ]
    return await driver.apply(changes) if changes else ()


class Daemon:
    """``keep`` beside the test; ``desired`` may be changed."""

    def __init__(self, path: Path) -> None:
        self.desired: dict[Address, Route] = {}
        self.events: list[Event] = []
        self.wake = asyncio.Event()
        self.driver = BgpDriver(
            BridgeServer(str(path), emit=self.events.append), HOLD, WIDE, self.wake.set, self.events.append
        )
        self.work: list[asyncio.Task[None]] = []

    async def stop(self) -> None:
        """Die, as far as one can in this process: the routes stay until somebody else decides, or ``hold`` is over."""
        for task in self.work:
            task.cancel()
        await asyncio.gather(*self.work, return_exceptions=True)

    async def want(self, desired: Mapping[Address, Route]) -> Sequence[Failure]:
        """Ask for these, again and again while anything is under way; what was refused."""
        outcomes, since = await self.ask(desired), lateness.now()
        while any(outcome.pending for outcome in outcomes):
            lateness.kept(GIVE_UP, since, "everything was acknowledged or refused")
            await asyncio.sleep(0.02)
            outcomes = await self.ask(desired)
        return outcomes

    async def ask(self, desired: Mapping[Address, Route]) -> Sequence[Failure]:
        """Ask for these once; what is under way, or was refused."""
        self.desired.clear()
        self.desired.update(desired)
        return await apply(self.driver, self.desired)


@asynccontextmanager
async def running(path: Path, desired: Mapping[Address, Route] | None = None) -> AsyncIterator[Daemon]:
    daemon = Daemon(path)
    daemon.desired.update(desired or {})
    async with asyncio.TaskGroup() as tasks:
        daemon.work = [
            tasks.create_task(daemon.driver.run()),
            tasks.create_task(keep(daemon.driver, daemon.desired, daemon.wake)),
        ]
        try:
            await seen(lambda: daemon.driver.speaker().connected, "the bridge has connected")
            yield daemon
            await daemon.want({})
        finally:
            await daemon.stop()


def told(what: str, value: object) -> None:
    """A figure for whoever reads the test's output (``pytest -rP``)."""
    print(f"{what}: {value}")


async def seen(ask: Callable[[], bool], what: str) -> float:
    """Wait until it is so; the time it was seen."""
    since = lateness.now()
    while not ask():
        if time.monotonic() - since - lateness.lost(since) > GIVE_UP:
            raise AssertionError(f"not within {GIVE_UP:g} s: {what}")
        await asyncio.sleep(0.003)
    return time.monotonic()


@asynccontextmanager
async def program(bench: Bench, *vips: Address, hold: float = HOLD) -> AsyncIterator[Process]:
    """The daemon as a process of its own, announcing."""
    daemon = Process("daemon", bench.lb, daemon_argv(bench, hold, *vips), bench.directory / "daemon.log", ENV)
    connected = daemon.log.read_text().count(CONNECTED) if daemon.log.exists() else 0
    daemon.start()
    try:  # a daemon before it may have left the same routes
        await seen(lambda: daemon.log.read_text().count(CONNECTED) > connected, "the bridge has connected")
        await seen(lambda: bench.router.routes() == set(vips), "the router has the routes")
        yield daemon
    finally:
        daemon.kill()


def daemon_argv(bench: Bench, hold: float, *vips: Address) -> list[str]:
    return [sys.executable, "-m", "tests.parts.test_bridge", str(bench.socket), str(hold), *map(str, vips)]


async def serve(path: str, hold: float, vips: Sequence[str]) -> None:
    wake = asyncio.Event()
    driver = BgpDriver(BridgeServer(path), hold, WIDE, wake.set)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(driver.run())
        tasks.create_task(keep(driver, {ip_address(vip): Route() for vip in vips}, wake))
        while not driver.speaker().connected:
            await asyncio.sleep(0.01)
        print(CONNECTED, flush=True)


# ---------------------------------------------------------------- what leaves


async def test_routes_reach_the_router_with_their_attributes_and_leave_it(bench: Bench) -> None:
    rich = Route(("65001:100", "65535:0"), ("65001:1:2",), med=50, local_preference=200, as_path_prepend=2)
    async with running(bench.socket) as daemon:
        assert await daemon.want({ONE: rich, TWO: Route(), SIX: Route(med=0)}) == []
        await seen(lambda: bench.router.routes() == {ONE, TWO, SIX}, "all three are there")
        found = bench.router.attributes(ONE)
        assert found["as_path"] == "65001 65001 65001"
        assert (found["med"], found["next_hop"]) == ("50", "10.99.1.2")
        assert found["community"] == "(65001,100) (65535,0)"
        assert found["large_community"] == "(65001, 1, 2)"
        assert bench.router.attributes(TWO)["as_path"] == "65001"
        assert bench.router.attributes(SIX)["next_hop"].startswith("fd00:99:1::2")
        assert (await daemon.driver.observe())["routes"][ONE] == rich
        assert {s.peer: s.state for s in daemon.driver.speaker().sessions} == {"10.99.1.1": "up", "fd00:99:1::1": "up"}
        assert daemon.driver.speaker().version.startswith("5.")

        started = time.monotonic()
        assert await daemon.want({TWO: Route(), SIX: Route(med=0)}) == []
        acknowledged = time.monotonic()
        gone = await seen(lambda: ONE not in bench.router.routes(), "it has left the router")
        told("withdrawal acknowledged after", f"{(acknowledged - started) * 1000:.1f} ms")
        told("withdrawal at the router after", f"{(gone - started) * 1000:.1f} ms")
        assert bench.router.routes() == {TWO, SIX}


async def test_changed_attributes_replace_the_route_without_a_withdrawal(bench: Bench) -> None:
    async with running(bench.socket) as daemon:
        await daemon.want(PLAIN)
        await seen(lambda: bench.router.routes() == set(PLAIN), "both are there")
        before = bench.router.counts()
        assert await daemon.want({**PLAIN, ONE: Route(("65535:0",))}) == []
        await seen(lambda: bench.router.attributes(ONE).get("community") == "(65535,0)", "it carries the community")
        assert bench.router.counts() == (before[0] + 1, before[1])


async def test_a_route_outside_the_ranges_never_leaves(bench: Bench) -> None:
    async with running(bench.socket) as daemon:
        failures = await daemon.want({ONE: Route(), OUTSIDE: Route()})
        assert [failure.change.key for failure in failures] == [OUTSIDE]
        assert "outside vip_ranges" in failures[0].reason.text
        await seen(lambda: bench.router.routes() == {ONE}, "the good one is there")
        for _ in range(5):
            assert OUTSIDE not in bench.router.routes()
            await asyncio.sleep(0.2)


async def test_a_route_outside_of_narrowed_ranges_leaves(bench: Bench) -> None:
    """A daemon with new settings takes over: only the bridge that announced the route can withdraw it."""
    settings = bench.node.read_text()
    try:
        async with running(bench.socket) as daemon:
            await daemon.want(PLAIN)
            await seen(lambda: bench.router.routes() == set(PLAIN), "both are there")
            await daemon.stop()
            bench.node.write_text(settings.replace('"192.0.2.0/24", ', ""))
            async with running(bench.socket, {SIX: Route()}):
                await seen(lambda: bench.router.routes() == {SIX}, "the one outside has left")
    finally:
        bench.node.write_text(settings)


async def test_many_routes_are_announced_and_a_withdrawal_does_not_wait_for_them(bench: Bench) -> None:
    many = {ip_address("2001:db8::") + n: Route() for n in range(1, 1500)}
    async with running(bench.socket) as daemon:
        await daemon.want(PLAIN)
        await seen(lambda: bench.router.routes() == set(PLAIN), "both are there")
        under_way = await daemon.ask({**PLAIN, **many})
        assert under_way and all(outcome.pending for outcome in under_way)
        under_way = await daemon.ask({SIX: Route(), **many})
        await seen(lambda: ONE not in bench.router.routes(), "it has left")
        assert len(bench.router.routes()) < 1000, "it did not wait for the others"
        before, since = 0, lateness.now()
        while before < len(many):
            lateness.kept(GIVE_UP, since, f"{before} routes were there")
            now = len(bench.router.routes())
            assert now >= before, "what was announced is not taken back"
            before = now
            await asyncio.sleep(0.2)
        await seen(lambda: set(bench.router.routes()) == {SIX, *many}, "all are there")
        assert daemon.driver.speaker().rejected == {}


# ---------------------------------------------------------------- what dies


async def test_the_bridge_is_killed_and_no_route_moves(bench: Bench) -> None:
    async with running(bench.socket) as daemon:
        await daemon.want(PLAIN)
        await seen(lambda: bench.router.routes() == set(PLAIN), "both are there")
        before, (old,) = bench.router.counts(), bench.bridges()
        started = time.monotonic()
        os.kill(old, signal.SIGKILL)
        await seen(lambda: not daemon.driver.speaker().connected, "its death is seen")
        back = await seen(lambda: daemon.driver.speaker().connected, "another one is connected")
        told("bridge back after", f"{(back - started) * 1000:.0f} ms")
        assert bench.bridges() != [old]
        await asyncio.sleep(0.5)
        assert bench.router.counts() == before
        assert await daemon.want({TWO: Route()}) == []
        await seen(lambda: bench.router.routes() == {TWO}, "the new bridge obeys")


async def test_exabgp_is_killed_and_its_routes_return(bench: Bench) -> None:
    async with running(bench.socket) as daemon:
        await daemon.want(PLAIN)
        await seen(lambda: bench.router.routes() == set(PLAIN), "both are there")
        bench.exabgp.kill()
        await seen(lambda: not bench.router.routes(), "its routes are gone")
        await seen(lambda: not daemon.driver.speaker().connected, "its bridge is gone")
        failures = await daemon.want({**PLAIN, TWO: Route()})
        assert failures and "not connected" in failures[0].reason.text
        bench.exabgp.start()
        await seen(lambda: bench.router.routes() == {ONE, TWO, SIX}, "all are there again")


async def test_the_router_restarts_and_gets_its_routes_again(bench: Bench) -> None:
    async with running(bench.socket) as daemon:
        await daemon.want(PLAIN)
        await seen(lambda: bench.router.routes() == set(PLAIN), "both are there")
        bench.router.process.kill()
        await seen(
            lambda: {s.state for s in daemon.driver.speaker().sessions} == {"down"}, "the sessions are told down"
        )
        bench.router.start()
        await seen(lambda: bench.router.routes() == set(PLAIN), "both are there again")
        await seen(lambda: {s.state for s in daemon.driver.speaker().sessions} == {"up"}, "the sessions are told up")


async def test_the_daemon_is_killed_and_its_routes_leave_after_hold(bench: Bench) -> None:
    async with program(bench, ONE, SIX) as daemon:
        killed = lateness.now()
        daemon.kill()
        gone = await seen(lambda: not bench.router.routes(), "its routes are withdrawn")
        told("withdrawn after kill -9", f"{gone - killed:.2f} s with hold {HOLD:g} s")
        assert gone - killed > HOLD - 0.5 - lateness.lost(killed - 1, killed), "before a restart had its time"
        lateness.kept(HOLD + 1, killed, "the routes of a killed daemon were withdrawn", gone)


async def test_the_daemon_restarts_within_hold_and_the_router_notices_nothing(bench: Bench) -> None:
    async with program(bench, ONE, SIX, hold=PATIENT) as daemon:
        before = bench.router.counts()
        for _ in range(3):
            connected = daemon.log.read_text().count(CONNECTED)
            daemon.kill()
            daemon.start()
            await seen(lambda: daemon.log.read_text().count(CONNECTED) > connected, "the next one is connected")  # noqa: B023
            assert bench.router.routes() == {ONE, SIX}
        told("updates at the router over 3 restarts", bench.router.counts()[0] - before[0])
        assert bench.router.counts() == before
        bench.exabgp.kill()  # what was announced is gone, and not only when PATIENT is over


async def test_daemon_and_bridge_are_killed_together_and_the_routes_leave_after_hold(bench: Bench) -> None:
    """Nobody is left who knows the routes but ExaBGP: the new bridge withdraws them after ``hold``."""
    async with program(bench, ONE, SIX) as daemon:
        (old,) = bench.bridges()
        killed = lateness.now()
        daemon.kill()
        os.kill(old, signal.SIGKILL)
        started = await seen(lambda: bench.bridges() not in ([], [old]), "ExaBGP has started another bridge")
        gone = await seen(lambda: not bench.router.routes(), "its routes are withdrawn")
        told(
            "withdrawn after both were killed", f"{gone - killed:.2f} s, the new bridge after {started - killed:.2f} s"
        )
        lateness.kept(HOLD + 2, started, "the new bridge withdrew the routes", gone)


async def test_a_frozen_daemon_loses_its_routes_and_gets_them_back(bench: Bench) -> None:
    async with program(bench, ONE, SIX) as daemon:
        frozen = lateness.now()
        daemon.freeze()
        gone = await seen(lambda: not bench.router.routes(), "its routes are withdrawn")
        told("withdrawn after SIGSTOP", f"{gone - frozen:.2f} s with hold {HOLD:g} s")
        lateness.kept(HOLD + 1, frozen, "the routes of a frozen daemon were withdrawn", gone)
        daemon.thaw()
        await seen(lambda: bench.router.routes() == {ONE, SIX}, "they are back")


async def test_a_frozen_exabgp_that_must_withdraw_is_killed(bench: Bench) -> None:
    async with running(bench.socket) as daemon:
        await daemon.want(PLAIN)
        await seen(lambda: bench.router.routes() == set(PLAIN), "both are there")
        bench.exabgp.freeze()
        started = lateness.now()
        failures = await daemon.want({})
        gone = await seen(lambda: not bench.router.routes(), "the routes are gone, and the sessions with them")
        told("frozen ExaBGP killed after", f"{gone - started:.2f} s")
        lateness.kept(3, started, "an ExaBGP that does not withdraw was killed", gone)
        assert len(failures) == 2
        assert bench.exabgp.wait() == -signal.SIGKILL


async def test_a_frozen_bridge_is_replaced(bench: Bench) -> None:
    async with running(bench.socket) as daemon:
        await daemon.want(PLAIN)
        await seen(lambda: bench.router.routes() == set(PLAIN), "both are there")
        (old,) = bench.bridges()
        freeze(old)
        await seen(lambda: bench.bridges() not in ([], [old]), "ExaBGP has started another one")
        await seen(lambda: daemon.driver.speaker().connected, "it is connected")
        assert bench.router.routes() == set(PLAIN)
        assert any("killing it" in event.reason for event in daemon.events)


# ---------------------------------------------------------------- a reload of ExaBGP


async def test_exabgp_is_reloaded_and_no_route_moves(bench: Bench) -> None:
    async with running(bench.socket) as daemon:
        await daemon.want(PLAIN)
        await seen(lambda: bench.router.routes() == set(PLAIN), "both are there")
        withdrawn, bridges = bench.router.counts()[1], bench.bridges()
        bench.reload(bench.config.read_text())
        assert not await daemon.want({**PLAIN, TWO: Route()})
        await seen(lambda: bench.router.routes() == {ONE, TWO, SIX}, "the bridge goes on announcing")
        assert (bench.router.counts()[1], bench.bridges()) == (withdrawn, bridges)


async def test_neighbors_are_removed_added_and_changed_by_a_reload(bench: Bench) -> None:
    config = bench.config.read_text()
    try:
        async with running(bench.socket) as daemon:
            await daemon.want(PLAIN)
            await seen(lambda: bench.router.routes() == set(PLAIN), "both are there")
            bench.reload(config[: config.index("\nneighbor fd00:")])
            await seen(lambda: bench.router.routes() == {ONE}, "the IPv6 neighbor is gone")
            await seen(lambda: SIX in daemon.driver.speaker().rejected, "the daemon is told what cannot be announced")
            bench.reload(config)
            await seen(lambda: bench.router.routes() == set(PLAIN), "the neighbor that is back has its route")
            assert not await daemon.want({ONE: Route()})
            await seen(lambda: bench.router.routes() == {ONE}, "and loses it")
            bench.reload(config.replace("hold-time 9;", "hold-time 12;"))
            daemon.desired.update(PLAIN)
            await seen(lambda: bench.router.routes() == set(PLAIN), "changed neighbors have every route")
            assert daemon.driver.speaker().rejected == {}
    finally:
        bench.reload(config)


async def test_many_routes_are_announced_while_exabgp_is_reloaded_again_and_again(bench: Bench) -> None:
    many = {ip_address("2001:db8::") + n: Route() for n in range(1, 400)}
    async with running(bench.socket) as daemon:
        await daemon.want(PLAIN)
        await seen(lambda: bench.router.routes() == set(PLAIN), "both are there")
        await daemon.ask({**PLAIN, **many})
        for _ in range(6):
            bench.exabgp.signal(signal.SIGUSR1)
            await asyncio.sleep(0.1)
        await seen(lambda: bench.router.routes() == {ONE, *many}, "all are there")
        assert not await daemon.want(PLAIN)
        await seen(lambda: bench.router.routes() == set(PLAIN), "all of them are withdrawn")
        assert daemon.driver.speaker().rejected == {}


# ---------------------------------------------------------------- garbage


async def test_garbage_from_another_client_harms_nothing(bench: Bench) -> None:
    async with running(bench.socket) as daemon:
        await daemon.want(PLAIN)
        await seen(lambda: bench.router.routes() == set(PLAIN), "both are there")
        before = bench.router.counts()
        for garbage in (b"\xff\x00\n", b"[" * 100_000 + b"\n", b'{"report": 7}\n', b'{"set": {}}\n', b"half a line"):
            with socket.socket(socket.AF_UNIX) as link:
                link.connect(str(bench.socket))
                link.sendall(garbage)
        await asyncio.sleep(0.3)
        assert sum("no bridge" in event.reason for event in daemon.events) == 5
        assert daemon.driver.speaker().connected
        assert bench.router.counts() == before


async def test_garbage_from_a_daemon_is_no_sign_of_life(bench: Bench) -> None:
    async with program(bench, ONE, SIX) as daemon:
        daemon.kill()
        killed = lateness.now()
        bench.socket.unlink()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(bench.socket))
            listener.listen()
            listener.setblocking(False)
            while bench.router.routes():
                lateness.kept(HOLD + 1, killed, "still announced, whatever nonsense is said,")
                try:
                    link, _ = listener.accept()
                except BlockingIOError:
                    await asyncio.sleep(0.05)
                    continue
                with link:
                    link.sendall(b'{"beat": 1}\n{"set": {"serial": 1, "hold": "long", "routes": {}}}\n\xfe\xff\n')
        assert len(bench.bridges()) == 1
    async with running(bench.socket) as proper:
        assert await proper.want(PLAIN) == []


# ---------------------------------------------------------------- the template


def test_the_template_is_valid(require: Callable[[str], str], tmp_path: Path) -> None:
    require("exabgp")
    placeholder = tmp_path / "anycastlb-bridge"  # the program that the template's run line names must be found
    placeholder.write_text("#!/bin/sh\n")
    placeholder.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    exabgp = Path(sys.executable).parent / "exabgp"
    argv = [str(exabgp), "validate", "-nrv", str(ROOT / "exabgp" / "exabgp.conf")]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("✓ neighbor") + done.stderr.count("✓ neighbor") == 2


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], float(sys.argv[2]), sys.argv[3:]))
