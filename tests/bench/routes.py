"""How long ExaBGP takes for many routes to many routers: ``python -m tests.bench.routes [--all]``.

The driver, the bridge and ExaBGP are real; the routers (``tests.bench.routers``) take everything. Measured are the time
until every router has every route, the time from the decision to withdraw one until the last router has lost it (while
the rest is being announced, while a session flaps, and in quiet), and what the idle bridge costs.

Exits 1 if a promise does not hold; the promises are those of a machine with two idle processors, and the load is told
beside the figures. It needs ExaBGP; no root, and no IPVS.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path

from anycastlb.adapters.drivers.bgp import BgpDriver
from anycastlb.adapters.drivers.bridge_server import BridgeServer
from anycastlb.core.decision import plan
from anycastlb.core.model import Address, Change, Route, State
from tests.lab.speaker import environment

ROOT = Path(__file__).parents[2]
RANGE = ip_network("10.128.0.0/9")
PORT = 11790
HOLD = 15.0
SIZES = {(1000, 8): 10.0, (10_000, 4): 60.0}
"""(routes, routers) -> seconds until all is announced, at most."""
WITHDRAWN = 0.2
"""Seconds until a withdrawal has reached every router, at most."""
FLAP = "withdrawn while a session flaps, ms"
FLAP_EACH = 20e-6
"""Seconds more for each route: when a session comes up, ExaBGP goes through all of them and does nothing else."""
IDLE = 0.01
"""Share of a core that the idle bridge may use."""
CONF = """
process anycastlb {{ run {python} -m anycastlb.bridge --no-kill --config {directory}/node.toml; encoder json; }}
template {{
    neighbor router {{
        local-as 65001; peer-as 65000; hold-time 90; connect {port};
        adj-rib-in false; adj-rib-out true; group-updates true;
        capability {{ asn4 enable; route-refresh enable; graceful-restart disable; }}
        api {{ processes [ anycastlb ]; neighbor-changes; }}
    }}
}}
"""
NEIGHBOR = """
neighbor 127.0.1.{number} {{
    inherit router; router-id 127.0.0.1; local-address 127.0.0.1; family {{ ipv4 unicast; }}
}}
"""
NODE = """
[node]
vip_ranges = ["{range}"]
[bgp]
socket = "{directory}/bgp.sock"
hold = "{hold:g}s"
"""


@dataclass
class Routers:
    """What the routers said: how many prefixes each of them has, and when which of them lost which."""

    process: asyncio.subprocess.Process
    prefixes: list[int] = field(default_factory=list)
    full_at: float = 0.0
    lost: dict[str, dict[int, float]] = field(default_factory=dict)

    async def listen(self, expected: int) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            said = json.loads(line)
            if "prefixes" in said:
                self.prefixes = said["prefixes"]
                if min(self.prefixes) >= expected and not self.full_at:
                    self.full_at = said["at"]
            else:
                self.lost.setdefault(said["withdrawn"], {})[said["router"]] = said["at"]

    def flap(self, number: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"flap {number}\n".encode())


class Node:
    """The daemon as far as routes go: the driver, and a reconciler of a few lines."""

    def __init__(self, directory: Path) -> None:
        self.desired: dict[Address, Route] = {}
        self.wake = asyncio.Event()
        self.driver = BgpDriver(BridgeServer(str(directory / "bgp.sock")), HOLD, [RANGE], self.wake.set)
        self.refused = 0

    async def reconcile(self) -> None:
        while True:
            self.wake.clear()
            rows = (await self.driver.observe())["routes"]
            outcomes = await self.driver.apply(diff(rows, self.desired))
            self.refused += sum(not outcome.pending for outcome in outcomes)
            self.driver.beat()
            try:
                async with asyncio.timeout(1):
                    await self.wake.wait()
            except TimeoutError:
                continue

    def withdraw(self, vip: Address) -> float:
        """Decide that it has to go. When?"""
        del self.desired[vip]
        self.wake.set()
        return time.monotonic()


def diff(rows: Mapping[Address, Route], desired: Mapping[Address, Route]) -> tuple[Change, ...]:
    return tuple(plan.diff(State(routes=rows), State(routes=desired)))


async def measure(count: int, routers: int, directory: Path) -> dict[str, float]:
    """Seconds, and the share of a core, by what was measured."""
    write_configuration(directory, routers)
    argv = [sys.executable, "-m", "tests.bench.routers", str(routers), str(PORT)]
    pipe = asyncio.subprocess.PIPE
    seen = Routers(await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe, cwd=ROOT, limit=1 << 20))
    environ = {**os.environ, **environment(), "PYTHONPATH": str(ROOT)}
    with (directory / "exabgp.log").open("w") as log:
        argv = [sys.executable, "-m", "exabgp", "server", str(directory / "exabgp.conf")]
        exabgp = subprocess.Popen(argv, env=environ, stdout=log, stderr=log, cwd=ROOT)
    node = Node(directory)
    try:
        async with asyncio.TaskGroup() as tasks:
            work = [
                tasks.create_task(node.driver.run()),
                tasks.create_task(seen.listen(count)),
                tasks.create_task(node.reconcile()),
            ]
            try:
                return await measured(count, routers, node, seen, exabgp.pid)
            finally:
                for task in work:
                    task.cancel()
    finally:
        exabgp.send_signal(signal.SIGTERM)
        seen.process.terminate()
        exabgp.wait(30)
        await seen.process.wait()


async def measured(count: int, routers: int, node: Node, seen: Routers, exabgp: int) -> dict[str, float]:
    await until(lambda: sum(s.state == "up" for s in node.driver.speaker().sessions) == routers, 60, "sessions up")
    figures = {}
    first = ip_address(str(RANGE.network_address))
    extra = [first + count + n for n in range(20)]
    node.desired = {**dict.fromkeys(extra, Route(med=1)), **{first + n: Route() for n in range(count)}}
    started = time.monotonic()
    node.wake.set()
    announcing: list[float] = []
    await until(lambda: len(node.driver.speaker().sessions) and min(seen.prefixes) > 20, 60, "the first are there")
    while not seen.full_at and len(announcing) < 8:
        announcing.append(await withdrawal(node, seen, routers, extra.pop(0)))
        await asyncio.sleep(0.3)
    await until(lambda: seen.full_at, 300, "every router has every route")
    figures["all announced, s"] = seen.full_at - started
    figures["withdrawn meanwhile, ms"] = 1000 * max(announcing, default=0.0)
    await asyncio.sleep(3)
    figures["withdrawn in quiet, ms"] = 1000 * await withdrawal(node, seen, routers, extra.pop(0))
    figures[FLAP] = 1000 * max(await flaps(node, seen, routers, extra))
    await until(lambda: min(seen.prefixes) >= count, 120, "the session that flapped has every route")
    (bridge,) = children(exabgp)
    await at_rest(bridge)
    before, began = cpu(bridge), time.monotonic()
    await asyncio.sleep(10)
    figures["idle bridge, % of a core"] = 100 * (cpu(bridge) - before) / (time.monotonic() - began)
    figures["refused"] = node.refused
    return figures


async def flaps(node: Node, seen: Routers, routers: int, extra: list[Address]) -> list[float]:
    """A session ends and comes up again; withdrawals meanwhile, as the other routers see them."""
    times = []
    seen.flap(routers)
    for _ in range(6):
        times.append(await withdrawal(node, seen, routers - 1, extra.pop(0)))
        await asyncio.sleep(0.25)
    return times


async def at_rest(bridge: int) -> None:
    """Wait until it has announced everything once more to the router whose session has flapped."""
    for _ in range(60):
        before = cpu(bridge)
        await asyncio.sleep(1)
        if cpu(bridge) - before < 2 * IDLE:
            return


async def withdrawal(node: Node, seen: Routers, routers: int, vip: Address) -> float:
    """Seconds from the decision until so many routers, the first ones, have lost it."""
    decided, name = node.withdraw(vip), f"{vip}/32"
    wanted = set(range(1, routers + 1))
    await until(lambda: wanted <= seen.lost.get(name, {}).keys(), 60, f"{name} is withdrawn")
    return max(at for router, at in seen.lost[name].items() if router in wanted) - decided


async def until(true: Callable[[], object], within: float, what: str) -> None:
    end = time.monotonic() + within
    while not true():
        if time.monotonic() > end:
            raise SystemExit(f"bench: not within {within:g} s: {what}")
        await asyncio.sleep(0.005)


def write_configuration(directory: Path, routers: int) -> None:
    conf = CONF.format(python=sys.executable, directory=directory, port=PORT)
    conf += "".join(NEIGHBOR.format(number=number) for number in range(1, routers + 1))
    (directory / "exabgp.conf").write_text(conf)
    (directory / "node.toml").write_text(NODE.format(range=RANGE, directory=directory, hold=HOLD))


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def cpu(pid: int) -> float:
    """Seconds of processor time it has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def broken(figures: Mapping[str, float], count: int, seconds: float) -> list[str]:
    """Which promises do not hold."""
    limits = {"all announced, s": seconds, "idle bridge, % of a core": 100 * IDLE, "refused": 0}
    limits |= {name: 1000 * WITHDRAWN for name in figures if name.startswith("withdrawn")}
    limits[FLAP] += 1000 * FLAP_EACH * count
    return [name for name, limit in limits.items() if figures[name] > limit]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.routes", description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="the large set too, which takes minutes")
    sizes = list(SIZES.items())[: None if parser.parse_args().all else 1]
    failed = False
    for (count, routers), seconds in sizes:
        with tempfile.TemporaryDirectory(prefix="routes.") as directory:
            figures = asyncio.run(measure(count, routers, Path(directory)))
        missed = broken(figures, count, seconds)
        failed |= bool(missed)
        print(f"{count} routes to {routers} routers, load {os.getloadavg()[0]:.1f}")
        for name, figure in figures.items():
            print(f"  {name:36} {figure:9.2f}{'  BROKEN' if name in missed else ''}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
