"""How fast the IPVS driver is, as ratios against a named peer in the same run: ``python -m tests.bench``.

1,000 services of 10 destinations under ``mh``: programmed through ``IpvsDriver.apply`` against ``ipvsadm -R``, and
looked at through ``IpvsDriver.observe`` against ``ipvsadm -Sn``. Every measurement of programming has a network
namespace of its own (what was deleted slows adding down for minutes); the rounds are interleaved and the medians
compared, so that a busy machine slows both sides alike. Absolute figures are printed but promise nothing.

Exits 1 if a promise does not hold. Needs root and IPVS: run it in the test kernel.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, ip_network
from statistics import median

import anycastlb
from anycastlb.adapters.drivers.ipvs.driver import IpvsDriver
from anycastlb.core.model import Change, Destination, DestinationKey, Failure, Rows, ServiceKey, Table, VirtualService
from tests.support.netns import fresh, run

RANGES = [ip_network("10.200.0.0/16")]
PROMISES = {"program": 15.0, "dump, first look": 3.0, "dump, later look": 3.0}
"""At least this many times as fast as the peer."""


def changes(services: int, each: int) -> list[Change]:
    """What a planner would ask for on an empty machine."""
    virtual = VirtualService("mh", frozenset({"mh-port", "mh-fallback"}))
    real = Destination("tunnel", 10, 10)
    keys = [ServiceKey("tcp", IPv4Address("10.200.0.0") + n, 80) for n in range(services)]
    creates = [Change("services", key, None, virtual) for key in keys]
    for n, key in enumerate(keys):
        for m in range(each):
            name = DestinationKey(key, IPv4Address("10.10.0.0") + (n * each + m) % 60000, 80)
            creates.append(Change("destinations", name, None, real))
    return creates


def saved(wanted: list[Change]) -> str:
    """The same for ``ipvsadm -R``."""
    lines = []
    for change in wanted:
        if change.table == "services":
            lines.append(f"-A -t {change.key.address}:{change.key.port} -s mh -b mh-port,mh-fallback")
        else:
            service = change.key.service
            real = f"{change.key.address}:{change.key.port}"
            lines.append(f"-a -t {service.address}:{service.port} -r {real} -i -w {change.new.weight}")
    return "\n".join(lines) + "\n"


def timed(work: Callable[[], object]) -> float:
    gc.collect()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def discard(*command: str, stdin: bytes = b"") -> None:
    """Run the peer; its output is read as a script that uses it would, and not looked at."""
    subprocess.run(command, input=stdin, stdout=subprocess.PIPE, check=True)


def measure(rounds: int, services: int, each: int) -> dict[str, tuple[list[float], list[float]]]:
    """Seconds of every round, ours and the peer's."""
    wanted = changes(services, each)
    text = saved(wanted).encode()
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in PROMISES}
    with asyncio.Runner() as runner:
        for _ in range(rounds):
            with fresh():
                times["program"][1].append(timed(lambda: discard("ipvsadm", "-R", stdin=text)))
                expect(services * each, "ipvsadm -R")
            with fresh():
                ours(runner, wanted, times)
    return times


def ours(runner: asyncio.Runner, wanted: list[Change], times: dict[str, tuple[list[float], list[float]]]) -> None:
    """One round of the driver in this namespace, and of the peer's dump of what the driver wrote."""
    driver = opened()
    failures: list[Failure] = []
    times["program"][0].append(timed(lambda: failures.extend(runner.run(driver.apply(wanted)))))
    if failures:
        raise SystemExit(f"bench: the driver failed to write: {failures[0].change}: {failures[0].reason}")
    reals = sum(change.table == "destinations" for change in wanted)
    expect(reals, "the driver")
    looker = opened()
    for name in ("dump, first look", "dump, later look"):
        times[name][1].append(timed(lambda: discard("ipvsadm", "-Sn")))
        looks: list[Mapping[Table, Rows]] = []
        times[name][0].append(timed(lambda into=looks: into.append(runner.run(looker.observe()))))  # type: ignore[misc]
        seen = len(looks[0]["destinations"])
        if seen != reals:
            raise SystemExit(f"bench: {name}: {seen} of {reals} destinations seen")
    driver.close()
    looker.close()


def opened() -> IpvsDriver:
    """A driver that works in the calling thread's namespace, whatever thread does the work."""
    driver = IpvsDriver(RANGES)
    driver.open()
    return driver


def expect(destinations: int, who: str) -> None:
    count = run("ipvsadm", "-Sn").count(" -r ")
    if count != destinations:
        raise SystemExit(f"bench: {who} left {count} destinations instead of {destinations}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--each", type=int, default=10, help="destinations of each service")
    parser.add_argument("--report", action="store_true", help="judge nothing: emulation slows both sides unequally")
    options = parser.parse_args()
    objects = options.services * (1 + options.each)
    peer = run("ipvsadm", "--version").split("(")[0].strip()
    print(f"anycastlb {anycastlb.__version__}, {peer}, Linux {os.uname().release}, Python {sys.version.split()[0]}")
    print(f"{objects} objects: {options.services} services (mh) of {options.each}; medians of {options.rounds} rounds")
    print(f"{'':18} {'anycastlb':>12} {'ipvsadm':>12} {'times as fast':>14} {'promised':>9}")
    broken = 0
    for name, (mine, theirs) in measure(options.rounds, options.services, options.each).items():
        ratio = median(theirs) / median(mine)
        held = options.report or ratio >= PROMISES[name]
        broken += not held
        verdict = "" if held else "  BROKEN"
        print(
            f"{name:18} {median(mine) * 1e3:9.1f} ms {median(theirs) * 1e3:9.1f} ms {ratio:13.1f}x "
            f"{PROMISES[name]:8.0f}x{verdict}"
        )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
