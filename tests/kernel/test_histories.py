"""Whatever happened to two nodes: once they want the same, they send every flow to the same backend, and so does a
third that was started just now.

The whole way is ours, from catalog and health through ``decide`` and ``plan`` to the kernel, in a network namespace for
each node. Two nodes live through pairs of random histories: edits, deaths, restarts, drift, interrupted plans.
At the end of each pair both get the same catalog and the same health, and the third begins with them. What the kernels
list must be equal, and real packets must agree, because the kernel does not show the last weight of a backend that is
down and keeps deleted backends for minutes, with that weight, should they return.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from typing import Any

from anycastlb.adapters.drivers.ipvs.driver import IpvsDriver
from anycastlb.core.decision import maglev, plan
from anycastlb.core.decision.decide import adopt, decide
from anycastlb.core.model import (
    Address,
    Backend,
    Catalog,
    Change,
    Check,
    CheckState,
    Decision,
    Destination,
    DestinationKey,
    Inputs,
    Memory,
    Policy,
    Result,
    Service,
    ServiceKey,
    State,
    VirtualService,
)
from tests.support.examples import EXAMPLES
from tests.support.netns import enter, fresh
from tests.support.wire import Wire, flow, packets

HISTORIES = EXAMPLES or 250
FLOWS = 300
"""Real flows of every pair: tables that differ in one backend's last weight differ in at least 2 % of the flows."""
ALL_FLOWS = 10_000
EVERY = 50
"""Every so many pairs all flows are real."""
VIP = ip_address("192.0.2.10")
KEY = ServiceKey("udp", VIP, 53)
MH = VirtualService("mh", frozenset({"mh-port", "mh-fallback"}), one_packet=True)
RANGES = [ip_network("192.0.2.0/24")]
POOL = 10
DRAIN, SLOW = 5.0, 20.0


# ---------------------------------------------------------------- what nodes are told


def address(number: int) -> Address:
    return ip_address(f"10.0.0.{number}")


def check(number: int) -> Check:
    return Check("tcp", address(number), 53, (), 1, 1, 1, 1)


def catalogs(dice: random.Random) -> Catalog:
    """Any service over some of the ten backends."""
    members = sorted(dice.sample(range(1, POOL + 1), dice.randint(2, POOL)))
    if dice.random() < 0.3:
        dice.shuffle(members)  # keys of other ages
    backends = tuple(
        Backend(
            f"b{n}", address(n), 53, check(n), dice.choice([100, 100, 100, 50, 10, 0]),
            drain=dice.random() < 0.1, forward="tunnel",
        )
        for n in members
    )  # fmt: skip
    slow = dice.choice([0.0, 0.0, SLOW])
    return Catalog((Service("dns", (VIP,), "udp", 53, MH, backends, drain=DRAIN, slow_start=slow),))


def healths(dice: random.Random, unknown: bool = True) -> dict[Check, CheckState]:
    states = [True, True, True, False] + ([None] if unknown else [])
    return {check(n): _state(up) for n in range(1, POOL + 1) if (up := dice.choice(states)) is not None}


def _state(up: bool) -> CheckState:
    return CheckState(up, last=Result(up, "seen", 0.1, 0.0))


# ---------------------------------------------------------------- a node


@dataclass
class Node:
    """A namespace with a kernel table, and the daemon's brain over it, on a clock of its own."""

    stack: ExitStack
    driver: IpvsDriver = field(init=False)
    wire: Wire = field(init=False)
    hand: IpvsDriver = field(init=False)
    """Somebody else's, who knows nothing of ours."""
    inputs: Inputs = field(default_factory=lambda: Inputs(Policy("lb1"), Catalog()))
    memory: Memory | None = None
    now: float = 1000.0
    told: list[str] = field(default_factory=list)
    """What happened to it since the last comparison."""

    def __post_init__(self) -> None:
        self._there = self.stack.enter_context(elsewhere())
        with within(self._there):
            self.driver, self.hand = IpvsDriver(RANGES), IpvsDriver(RANGES)
            self.driver.open()
            self.hand.open()
            self.wire = Wire()
        for part in (self.driver, self.hand, self.wire):
            self.stack.callback(part.close)

    async def observe(self, driver: IpvsDriver | None = None) -> State:
        return State(**{str(t): rows for t, rows in (await (driver or self.driver).observe()).items()})

    async def cycle(self, most: int | None = None) -> bool:
        """As the reconciler does: look, decide, write. With ``most``: the daemon dies after so many changes. Did
        anything have to be written?"""
        actual = await self.observe()
        if self.memory is None:
            self.memory = adopt(actual, self.now)
        decision: Decision = decide(self.inputs, self.memory, self.now)
        self.memory = decision.memory
        desired = State(services=decision.desired.services, destinations=decision.desired.destinations)
        changes = plan.diff(actual, desired)
        failures = await self.driver.apply(changes[:most])
        assert not failures, failures
        return bool(changes)

    async def settle(self, catalog: Catalog, health: dict[Check, CheckState]) -> None:
        """Told this, and time passes until nothing moves any more."""
        self.inputs = replace(self.inputs, catalog=catalog, health=health)
        await self.cycle()
        self.now += DRAIN + SLOW + 60
        await self.cycle()
        assert not await self.cycle(), "it does not come to rest"

    # ------------------------------------------------------------ what may happen

    async def live(self, dice: random.Random) -> None:
        """One random event, and what the daemon makes of it."""
        event = dice.choice([self.edited, self.edited, self.sick, self.sick, self.later, self.restart, self.drift])
        self.told.append(event.__name__)
        await event(dice)
        if dice.random() < 0.2:
            self.told.append("interrupted")
            await self.cycle(most=dice.randint(0, 4))
            await self.restart(dice)
        elif dice.random() < 0.8:
            await self.cycle()

    async def edited(self, dice: random.Random) -> None:
        self.inputs = replace(self.inputs, catalog=catalogs(dice))

    async def sick(self, dice: random.Random) -> None:
        self.inputs = replace(self.inputs, health=healths(dice))

    async def later(self, dice: random.Random) -> None:
        self.now += dice.choice([1.0, DRAIN + 1, SLOW / 2])

    async def restart(self, dice: random.Random) -> None:
        """Another daemon: it knows what the kernel shows, and of health nothing yet."""
        self.driver.close()
        with within(self._there):
            self.driver = IpvsDriver(RANGES)
            self.driver.open()
        self.stack.callback(self.driver.close)
        self.memory = None
        self.inputs = replace(self.inputs, health={})

    async def drift(self, dice: random.Random) -> None:
        """Somebody changes the kernel's table by hand."""
        there = await self.observe(self.hand)
        changes = _tampered(dice, there)
        self.told += [f"{change} {change.new}" for change in changes]
        await self.hand.apply(changes)


def _tampered(dice: random.Random, there: State) -> list[Change]:
    if KEY not in there.services:
        return []
    rows = there.destinations
    if not rows or dice.random() < 0.1:
        return [Change("services", KEY, there.services[KEY], None)]
    key = dice.choice(list(rows))
    weight = dice.choice([0, 1, 7, 1000])
    if not rows[key].weight:
        # Raised and lowered, or deleted and added, a backend at weight 0 may look as it did, and its last weight is
        # another. What leaves no trace nobody can repair.
        return [Change("destinations", key, rows[key], replace(rows[key], weight=weight or 3, last_weight=weight or 3))]
    other = DestinationKey(KEY, address(dice.randint(1, POOL)), 53)
    return dice.choice(
        [
            [Change("destinations", key, rows[key], None)],
            [Change("destinations", key, rows[key], replace(rows[key], weight=weight, last_weight=weight or 3))],
            [Change("destinations", key, rows[key], rows[key], moved=True)],
            [Change("destinations", other, None, Destination("dr", weight, weight))] if other not in rows else [],
            [Change("services", KEY, there.services[KEY], VirtualService("rr"))],
        ]
    )


@contextmanager
def elsewhere() -> Iterator[Any]:
    """A fresh namespace, held open; the calling thread stays where it is."""
    with fresh():
        there = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        yield there
    finally:
        os.close(there)


@contextmanager
def within(there: int) -> Iterator[None]:
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    enter(there)
    try:
        yield
    finally:
        enter(home)
        os.close(home)


def modelled(state: State, sent: list[bytes]) -> dict[bytes, bytes]:
    """Where the model sends them."""
    table = maglev.build(MH, state.destinations)
    went = ((name, table.pick(ip_address(name[:4]), int.from_bytes(name[4:]))) for name in map(flow, sent))
    return {name: target.address.packed for name, target in went if target is not None}


def listing(state: State) -> list[tuple[DestinationKey, int, int | None]]:
    return [(key, row.weight, row.last_weight) for key, row in state.destinations.items()]


async def newborn(catalog: Catalog, health: dict[Check, CheckState], stack: ExitStack) -> Node:
    """A node that was started just now, on a kernel that never had anything."""
    node = Node(stack)
    await node.settle(catalog, health)
    return node


async def test_all_histories_end_in_one_table(require: Callable[[str], str]) -> None:
    require("kernel")
    differing = compared = 0
    with ExitStack() as stack:
        pair = (Node(stack), Node(stack))
        for number in range(HISTORIES):
            dice = random.Random(number)
            catalog, health = catalogs(dice), healths(dice, unknown=False)
            for node in pair:
                node.told.clear()
                for _ in range(dice.randint(1, 8)):
                    await node.live(dice)
                await node.settle(catalog, health)
            sent = packets(dice, FLOWS if number % EVERY else ALL_FLOWS, VIP)
            with ExitStack() as life:
                third = await newborn(catalog, health, life)
                seen = await third.observe()
                went = third.wire.send(sent)
            story = f"history {number}: {pair[0].told} and {pair[1].told}, to {listing(seen)}"
            for node in pair:
                assert listing(await node.observe()) == listing(seen), story
                found = node.wire.send(sent)
                assert found.keys() == went.keys(), story
                differ = sum(found[name] != went[name] for name in went)
                differing += differ
                compared += len(went)
                assert not differ, f"{story}: {differ} of {len(went)} flows"
            assert went == modelled(seen, sent), story
    print(f"{compared} flows compared, {differing} differ")
    assert compared > HISTORIES * FLOWS, "too few flows were sent anywhere to prove anything"
