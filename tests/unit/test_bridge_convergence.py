"""The driver and the relay, joined in virtual time, over an ExaBGP that takes its time for every route.

The law: with an announcer that takes x ms a route, the set of announced routes grows monotonically to the wanted one;
no heartbeat is missed meanwhile, and a withdrawal waits for one command at most.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from ipaddress import ip_address, ip_network

import pytest

from anycastlb.adapters.drivers.bgp import BgpDriver
from anycastlb.adapters.drivers.bridge_server import BridgeServer, BridgeUser
from anycastlb.bridge.exchange import Command
from anycastlb.bridge.relay import Relay
from anycastlb.core.decision import plan
from anycastlb.core.model import Address, Route, State
from tests.support.fake_exabgp import FakeExaBGP
from tests.support.speaker import DirectConnection
from tests.support.virtual import run

RANGES = (ip_network("10.128.0.0/9"),)
FIRST = ip_address("10.128.0.0")
HOLD = 15.0


class Joined(BridgeServer):
    """In place of the socket, the loop of the bridge and ExaBGP."""

    def __init__(self, exabgp: FakeExaBGP, per_command: float, per_route: float) -> None:
        super().__init__("/nowhere")
        self.exabgp, self.per_command, self.per_route = exabgp, per_command, per_route
        self.killed = ""
        self.expired = 0

    async def run(self, user: BridgeUser) -> None:
        clock = asyncio.get_running_loop().time
        relay, self.connection = Relay(RANGES, HOLD, clock()), DirectConnection()
        relay.connected(clock())
        user.bridge_connected(self.connection)
        command: Command | None = None
        answer_at = reported_at = 0.0
        while not self.killed:
            now = clock()
            if command is not None and now >= answer_at:
                answered, command = command, None
                for line in self.exabgp.answer(answered.line):
                    relay.hear(line, now)
            for message in self.connection.sent:
                relay.obey(message, now)
            self.connection.sent.clear()
            relay.tick(now)
            self.expired += sum("no sign of life" in note for note in relay.notes)
            relay.notes.clear()
            self.killed = relay.stuck(now)
            if (new := relay.next(now)) is not None:
                command, answer_at = new, now + self.per_command + self.per_route * len(new.vips) * len(new.peers)
            if now - reported_at >= 0.25:
                reported_at, self.connection.report = now, relay.report()
                user.bridge_reported(self.connection)
                user.time_passed()
            await asyncio.sleep(min(0.05, max(0.001, answer_at - now)))


class Story:
    """A reconciler's cycles over a driver, and what ExaBGP announces after each second."""

    def __init__(self, peers: int, per_command: float, per_route: float) -> None:
        self.exabgp = FakeExaBGP(*(f"10.99.{n}.1" for n in range(peers)))
        self.server = Joined(self.exabgp, per_command, per_route)
        self.wake = asyncio.Event()
        clock = asyncio.get_running_loop().time
        self.driver = BgpDriver(self.server, HOLD, RANGES, self.wake.set, clock=clock)
        self.desired: Mapping[Address, Route] = {}
        self.refused: list[str] = []

    async def reconcile(self) -> None:
        while True:
            self.wake.clear()
            rows = (await self.driver.observe())["routes"]
            outcomes = await self.driver.apply(plan.diff(State(routes=rows), State(routes=self.desired)))
            self.refused += [outcome.reason for outcome in outcomes if not outcome.pending]
            self.driver.beat()
            for _ in range(5):
                try:
                    async with asyncio.timeout(1):
                        await self.wake.wait()
                    break
                except TimeoutError:
                    self.driver.beat()

    def announced(self) -> set[Address]:
        """What every router has."""
        return set.intersection(*(self.exabgp.announced(peer) for peer in self.exabgp.peers))


@pytest.mark.parametrize(
    ("count", "peers", "per_command", "per_route"),
    [(1000, 8, 0.05, 0.0005), (3000, 4, 0.05, 0.001), (4000, 2, 0.01, 0.004)],
)
def test_the_announced_routes_grow_to_the_wanted_ones(
    count: int, peers: int, per_command: float, per_route: float
) -> None:
    """Turned round: what did not fit into the answer time was taken back whole, for ever."""

    async def story() -> None:
        told = Story(peers, per_command, per_route)
        told.desired = {FIRST + n: Route() for n in range(count)}
        async with asyncio.TaskGroup() as tasks:
            work = [tasks.create_task(told.driver.run()), tasks.create_task(told.reconcile())]
            before: set[Address] = set()
            for _ in range(120):
                await asyncio.sleep(1)
                now = told.announced()
                assert before <= now and (len(before) < len(now) or len(now) == count or not before)
                before = now
                if len(now) == count:
                    break
            assert before == set(told.desired)
            assert told.refused == [] and told.server.expired == 0 and told.server.killed == ""
            assert not any("withdraw" in line for line in told.exabgp.said)
            await withdrawn_soon(told)
            for task in work:
                task.cancel()

    run(story())


async def withdrawn_soon(told: Story) -> None:
    """While thousands of routes change their attributes, one that has to go is gone after two commands."""
    told.desired = {vip: Route(med=1) for vip in told.desired}
    told.wake.set()
    await asyncio.sleep(0.5)
    gone = max(told.desired)
    told.desired = {vip: route for vip, route in told.desired.items() if vip != gone}
    told.wake.set()
    limit = 2 * (told.server.per_command + told.server.per_route * 200) + 0.1
    await asyncio.sleep(limit)
    assert all(gone not in told.exabgp.announced(peer) for peer in told.exabgp.peers)


def test_a_frozen_exabgp_undoes_nothing_and_goes_on_where_it_was() -> None:
    async def story() -> None:
        told = Story(2, 0.01, 0.001)
        told.desired = {FIRST + n: Route() for n in range(1000)}
        async with asyncio.TaskGroup() as tasks:
            work = [tasks.create_task(told.driver.run()), tasks.create_task(told.reconcile())]
            await asyncio.sleep(1)
            before = told.announced()
            assert 0 < len(before) < 1000
            told.exabgp.silent = lambda line: True
            await asyncio.sleep(60)
            assert told.announced() == before and told.server.killed == ""
            assert any("no progress" in reason.text for reason in told.refused), "an operator is told"
            told.exabgp.silent = lambda line: False
            await asyncio.sleep(30)
            assert told.announced() == set(told.desired)
            assert not any("withdraw" in line for line in told.exabgp.said)
            for task in work:
                task.cancel()

    run(story())
