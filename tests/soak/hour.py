"""A large node for an hour, in the test kernel: ``python -m tests.soak.hour [--services 10000] [--minutes 60]``.

The daemon, Consul, the kernel and the backends' server are real; the bridge (``tests.bench.bridge``) announces
everything at once and notes the daemon's longest silence. Every tenth service is checked by TCP every 10 s, all its ten
backends; the others are not checked. One weight changes each minute, and once in ten minutes all metrics are read.

Promised is that nothing grows once the node has settled (the memory of the daemon, of its checker processes and of the
kernel, in the last quarter beside the second), that no heartbeat is late (a silence of ``LATE`` seconds; a bridge
withdraws after ``hold``, 15 s), that no backend loses its weight, and that every change reaches the kernel. Exits 1
otherwise. At 10,000 services give the test kernel 8 GB: ``tests/rig/testkernel.py run --memory 8G``. The packaged one
makes a mapping of the host's of each page of a program, and a program that may have no more of them stands still for
ever (a daemon of that size, at the usual 65,530); so let the host give more: ``sysctl vm.max_map_count=1048576``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from statistics import median

import anycastlb
from tests.bench.checks import PORT, children, resident, serving, spent
from tests.bench.node import EACH, Kernel, Running, answered, document, put, running, wait

LATE = 7.5
"""Seconds of silence after which a heartbeat is late: half of ``hold``."""
GROWTH = 1.05
"""What counts as steady: the memory of the last quarter is at most so many times that of the second."""
CHECK = {"type": "tcp", "port": PORT, "interval": "10s", "timeout": "5s"}
CHECKED = 10
"""One service in so many is checked."""
SCRAPED = 10
"""One minute in so many ends with a scrape."""


@dataclass(frozen=True)
class Minute:
    """What was seen at the end of one minute, and in it. Memory in megabytes, CPU in shares of a core."""

    minute: int
    daemon: float
    checkers: float
    kernel: float
    cpu: float
    checks: float
    """a second"""
    blocked: float
    """milliseconds that the daemon's loop did one thing at the longest"""
    silence: float
    """seconds between two words of the daemon to its bridge, at the longest"""
    serving: int
    """backends with a weight"""
    put: float
    """milliseconds until the kernel had the changed weight"""


def value(service: int, weight: int = 100) -> bytes:
    body = json.loads(document(service, weight))
    return json.dumps({**body, "check": CHECK} if service % CHECKED == 0 else body).encode()


def weighted() -> int:
    """Destinations in the kernel whose weight is not 0."""
    rows = (line.split() for line in Path("/proc/net/ip_vs").read_text().splitlines())
    return sum(row[0] == "->" and row[3] not in ("0", "Weight") for row in rows if row)


def kernel_memory() -> float:
    """Megabytes that the kernel holds for itself and cannot give back: slabs, and what it allocated by pages."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    sizes = {name.rstrip(":"): int(size) / 1024 for name, size, *_ in lines}
    return sizes["SUnreclaim"] + sizes.get("VmallocUsed", 0.0)


def watched(node: Running, asked: Callable[[], int], services: int, minute: int) -> Minute:
    kernel, service, pid = Kernel(), minute * 7919 % services, node.daemon.process.pid
    began, used, done, before = time.monotonic(), spent(pid), asked(), kernel.weight(service)
    put(node.store, f"/v1/kv/anycastlb/services/s{service}", value(service, 50 + minute % 40))
    wait(lambda: kernel.weight(service) != before, pause=0.005)
    took = (time.monotonic() - began) * 1e3
    if minute % SCRAPED == 0:
        answered("/metrics")
    time.sleep(max(0.0, began + 60 - time.monotonic()))
    passed, below = time.monotonic() - began, sum(map(resident, children(pid)))
    return Minute(
        minute,
        daemon=resident(pid) - below,
        checkers=below,
        kernel=kernel_memory(),
        cpu=(spent(pid) - used) / passed,
        checks=(asked() - done) / passed,
        blocked=node.daemon.blocked(),
        silence=node.silence() / 1e3,
        serving=weighted(),
        put=took,
    )


def broken(minutes: Sequence[Minute], services: int) -> Iterator[str]:
    """What was promised and does not hold."""
    quarter = max(1, len(minutes) // 4)
    for name in ("daemon", "checkers", "kernel"):
        before, after = (
            median(getattr(minute, name) for minute in part)
            for part in (minutes[quarter : 2 * quarter] or minutes, minutes[-quarter:])
        )
        if after > before * GROWTH:
            yield f"memory of the {name}: {before:.0f} MB in the second quarter, {after:.0f} MB in the last"
    for minute in minutes:
        if minute.silence > LATE:
            yield f"minute {minute.minute}: the daemon was silent for {minute.silence:.1f} s"
        if minute.serving < services * EACH:
            yield f"minute {minute.minute}: {services * EACH - minute.serving} backends have no weight"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.hour", description=__doc__.splitlines()[0])
    parser.add_argument("--services", type=int, default=10_000)
    parser.add_argument("--minutes", type=int, default=60)
    options = parser.parse_args()
    print(f"anycastlb {anycastlb.__version__}, Linux {os.uname().release}, {options.services:,} services of {EACH}")
    print("".join(f"{field.name:>10}" for field in fields(Minute)), flush=True)
    minutes: list[Minute] = []
    with serving("tcp") as asked, running(options.services, value) as node:
        print(f"started in {time.monotonic() - node.daemon.began:.1f} s", flush=True)
        node.silence()
        for number in range(1, options.minutes + 1):
            minutes.append(watched(node, asked, options.services, number))
            print("".join(f"{number:10.6g}" for number in astuple(minutes[-1])), flush=True)
        wrong = list(broken(minutes, options.services))
    for line in wrong:
        print(f"! {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
