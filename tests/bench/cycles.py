"""What one cycle of the reconciler costs, in milliseconds of CPU, by what woke it: ``python -m tests.bench.cycles``.

A whole node on drivers in memory, without a kernel, Consul or probes: what is left is what we compute. Each kind of
cycle is measured in sizes of 100, 1,000 and (``--all``) 10,000 services of 10 backends:

* *weight*: the weight of one backend was changed in the catalog;
* *turned*: the verdict of one check has turned, and all other checks have fresh evidence;
* *backend*: a backend was added to one service;
* *resync*: nothing has changed; the machine is looked at again.

``--profile KIND`` shows where the time of such cycles goes. Exits 1 if a promise does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import pstats
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address
from statistics import median
from types import MappingProxyType

from anycastlb import settings
from anycastlb.adapters.cluster.memory import MemoryRegistry
from anycastlb.adapters.drivers.memory import MemoryDriver
from anycastlb.adapters.sources.memory import MemorySource
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.model import Backend, Catalog, Check, CheckState, Feed, Health, Result, Service, VirtualService
from anycastlb.engine.inbox import Inbox
from anycastlb.engine.machine import Machine
from anycastlb.engine.node import Node, Parts, checks
from anycastlb.engine.parts import first_inputs
from anycastlb.serving.metrics.meters import Meters
from tests.support.world import MemoryAnnouncer

EACH = 10
KINDS = ("weight", "turned", "backend", "resync")
MH = VirtualService("mh", frozenset({"mh-port", "mh-fallback"}))
BUDGET = {100: 20.0, 1_000: 20.0, 10_000: 200.0}
"""Milliseconds of CPU that one change may cost, by the number of services."""
IDLE = 50.0
"""Milliseconds for 1,000 services: less than 1 % of a core, every 5 s."""


def make_backend(number: int, weight: int = 100) -> Backend:
    address = IPv4Address("10.0.0.0") + number
    check = Check("tcp", address, 80, (), 2.0, 1.0, 2, 3)
    return Backend(f"b{number}", address, 80, check, weight)


def make_service(number: int, weight: int = 100, each: int = EACH) -> Service:
    first = number * EACH
    backends = tuple(make_backend(first + n, 100 if n else weight) for n in range(EACH))
    more = tuple(make_backend(0xF00000 + n) for n in range(each - EACH))
    return Service(f"s{number}", (IPv4Address("172.16.0.0") + number,), "tcp", 80, MH, (*backends, *more))


class Bench:
    """A node of so many services, that has come to rest."""

    def __init__(self, services: int, state_dir: str) -> None:
        parsed = settings.parse(
            f'[node]\nname = "lb1"\nvip_ranges = ["172.16.0.0/12"]\nstate_dir = "{state_dir}"\nresync = "5s"\n'
        )
        self.services = services
        self.catalog = Catalog(tuple(make_service(n) for n in range(services)), index=1)
        self.inbox = Inbox(first_inputs(parsed))
        kernel = MemoryDriver(("addresses", "services", "destinations"))
        machine = Machine((kernel,), MemoryAnnouncer())
        parts = Parts(self.inbox, MemorySource(), machine, {}, registry=MemoryRegistry())
        self.node = Node(parsed, parts, Journal(), Meters())
        self.health: Health = {}
        self.turns = 0

    def evidence(self) -> dict[Check, CheckState]:
        now = time.monotonic()
        fresh = Result(True, "connected", 0.001, now)
        return {check: replace(state, last=fresh) if state.up else state for check, state in self.health.items()}

    def publish(self, states: dict[Check, CheckState]) -> None:
        self.health = states
        self.inbox.put(health=MappingProxyType(states))

    async def rest(self) -> None:
        now = time.monotonic()
        self.inbox.put(catalog=self.catalog, feed=Feed(True, now, loaded=True))
        up = CheckState(True, since=now - 100, last=Result(True, "connected", 0.001, now))
        self.publish({check: up for service in self.catalog.services for check in checks(Catalog((service,)))})
        for _ in range(6):
            await self.node.reconciler.cycle()
        self.expect(self.services * EACH)

    def expect(self, destinations: int) -> None:
        snapshot = self.node.snapshot
        if len(snapshot.actual.destinations) != destinations or snapshot.failures or snapshot.plan:
            raise SystemExit(f"bench: the node has not come to rest: {len(snapshot.actual.destinations)} destinations")

    def weight(self) -> None:
        self._edit(make_service(self._next(), 50 if self.turns % 2 else 60))

    def backend(self) -> None:
        self._edit(make_service(self._next(), each=EACH + 1))

    def _next(self) -> int:
        self.turns += 1
        return self.turns * 7919 % self.services

    def _edit(self, service: Service) -> None:
        services = list(self.catalog.services)
        services[int(service.name[1:])] = service
        self.catalog = replace(self.catalog, services=tuple(services), index=self.catalog.index + 1)
        self.inbox.put(catalog=self.catalog)

    def turned(self) -> None:
        states = self.evidence()
        check = make_backend(self._next() * EACH + 3).check
        down = not states[check].up
        now = time.monotonic()
        states[check] = CheckState(down, since=now, last=Result(down, "connected" if down else "refused", 0.001, now))
        self.publish(states)

    def resync(self) -> None:
        """Nothing happens."""

    async def cost(self, wake: Callable[[], None], profile: cProfile.Profile | None) -> float:
        """Milliseconds of CPU until the node is at rest again, after ``wake``."""
        wake()
        gc.collect()
        if profile:
            profile.enable()
        began = time.process_time()
        await self.node.reconciler.cycle()
        spent = time.process_time() - began
        if profile:
            profile.disable()
        if wake != self.resync and not self.node.snapshot.plan:
            raise SystemExit("bench: the cycle has changed nothing")
        for _ in range(2):
            await self.node.reconciler.cycle()
        return spent * 1e3


async def measure(services: int, rounds: int, kinds: tuple[str, ...], profile: cProfile.Profile | None) -> list[float]:
    with tempfile.TemporaryDirectory() as state_dir:
        bench = Bench(services, state_dir)
        began = time.process_time()
        await bench.rest()
        costs = [(time.process_time() - began) * 1e3]
        for kind in kinds:
            rows = [await bench.cost(getattr(bench, kind), profile) for _ in range(rounds)]
            costs.append(median(rows))
    return costs


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.cycles", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--all", action="store_true", help="10,000 services too")
    parser.add_argument("--services", type=int, nargs="*", help="these sizes")
    parser.add_argument("--profile", choices=KINDS, help="show where the time of these cycles goes")
    options = parser.parse_args()
    sizes = options.services or [100, 1_000, *([10_000] if options.all else [])]
    kinds = (options.profile,) if options.profile else KINDS
    profile = cProfile.Profile() if options.profile else None
    print(f"ms of CPU for one cycle, services of {EACH} backends; medians of {options.rounds} rounds")
    print(f"{'services':>10} {'first':>10}" + "".join(f"{kind:>10}" for kind in kinds))
    broken = 0
    for services in sizes:
        first, *costs = asyncio.run(measure(services, options.rounds, kinds, profile))
        bounds = [IDLE if kind == "resync" else BUDGET.get(services, float("inf")) for kind in kinds]
        marks = [" " if cost < bound else "!" for cost, bound in zip(costs, bounds, strict=True)]
        broken += marks.count("!")
        print(f"{services:10} {first:10.1f}" + "".join(f"{c:9.1f}{m}" for c, m in zip(costs, marks, strict=True)))
    if profile:
        pstats.Stats(profile).sort_stats("cumulative").print_stats(40)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
