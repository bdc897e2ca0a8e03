"""What a node takes of a machine, by the number of its services: ``python -m tests.bench.sizing [--all]``.

The node is the one of ``tests.bench.readers``: the daemon's wiring on a machine in memory, services of ten backends.
It is run twice for each size. Once nobody is asked (``none``): what it takes to start, to stand idle and to take one
change. Once each backend is checked by TCP: the memory of the daemon and its checker process with ten results of every
check, and what a thousand checks cost both together. All of it is CPU time and memory of a node that nobody reads; a
busy machine makes the CPU time up to twice as much. The kernel's part (docs/OPERATIONS.md) comes on top. Nothing is
promised: that is the business of ``tests.bench.node``.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Mapping
from statistics import median

import anycastlb
from anycastlb import daemon
from tests.bench import kv
from tests.bench.busy import put
from tests.bench.catalog import EACH, SIZES
from tests.bench.checks import PORT, children, resident, serving, spent
from tests.bench.readers import UNCHECKED, Asked, Figures, running

IDLE = 20.0
"""Seconds that a node is watched for while nothing happens."""
SETTLED = 2.0
"""Seconds in which a change is done with."""
CHANGES = 10
RATE = 1000
"""Checks a second of the larger nodes."""
KEPT = 10
"""Results that are kept of each check, as evidence."""


async def unchecked(services: int) -> Figures:
    async with running(services) as node:
        await filled(node, services)
        figures = {"start, CPU s": (await node.ask())["cpu"] / 1e3}
        await asyncio.sleep(daemon.STARTING)
        idle = (await node.cost(lambda: asyncio.sleep(IDLE)))["ms"] / IDLE
        costs = [await change(node, services, turn) for turn in range(CHANGES)]
        memory = (await node.ask())["resident"]
        return {**figures, "idle, % of a core": idle / 10, "a change, CPU ms": median(costs) - idle * SETTLED} | {
            "memory without checks, MB": memory
        }


async def filled(node: Asked, services: int) -> None:
    while (await node.ask())["serving"] < services * EACH:
        await asyncio.sleep(0.5)


async def change(node: Asked, services: int, turn: int) -> float:
    """CPU milliseconds of another weight of one backend."""
    number = turn * 7919 % services
    key, document = next(item for at, item in enumerate(kv.documents(services, EACH, "inline")) if at == number)
    backend = {f"b{number * EACH}": {"address": kv.address(number * EACH), "weight": 50 + turn}}
    body = {**document, "check": UNCHECKED, "backends": {**document["backends"], **backend}}

    async def work() -> None:
        await put(node.store, key, body)
        await asyncio.sleep(SETTLED)

    return (await node.cost(work))["ms"]


async def checked(services: int) -> Figures:
    interval = max(10.0, services * EACH / RATE)
    with serving("tcp") as asked:
        async with running(services, check(interval)) as node:
            await filled(node, services)
            while asked() < services * EACH * KEPT:
                await asyncio.sleep(1.0)
            (checker,) = children(node.process.pid)
            done, used, began = asked(), spent(node.process.pid), time.monotonic()
            await asyncio.sleep(max(30.0, interval))
            done, used = asked() - done, spent(node.process.pid) - used
            return {
                "checks a second": done / (time.monotonic() - began),
                "1,000 checks, CPU ms": used / done * 1e6,
                "memory of the daemon, MB": resident(node.process.pid) - resident(checker),
                "memory of its checker, MB": resident(checker),
            }


def check(interval: float) -> Mapping[str, object]:
    return {"type": "tcp", "port": PORT, "interval": f"{interval:g}s", "timeout": "5s"}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.sizing", description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="10,000 services too, which takes half an hour")
    parser.add_argument("--services", type=int, nargs="*", help="these sizes")
    options = parser.parse_args()
    sizes = options.services or [*SIZES, *([10_000] if options.all else [])]
    print(f"anycastlb {anycastlb.__version__}: services of {EACH} backends, the machine in memory", flush=True)
    for size in sizes:
        for measure in (unchecked, checked):
            for name, value in asyncio.run(measure(size)).items():
                print(f"{size:8,} {name:40}{value:12.2f}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
