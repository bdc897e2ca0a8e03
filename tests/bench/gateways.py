"""What a node with many gateways' rows asks of HAProxy, beside a hand-written one: ``python -m tests.bench.gateways``.

1,000 hostnames of five rules and 1,000 pools, which have 10,000 servers. The peer is a HAProxy of the same release with
the same servers in its file, written by hand, and a map from hostnames to pools. It is changed as people change one: by
commands to its socket, or by a new file and a reload.

* *memory*: resident megabytes of the worker, which has the rules too, of which the peer has none;
* *10,000 weights*: changes by the driver, against as many ``set server`` commands, 200 at a time;
* *nothing to do*: a look of the driver at everything, against ``show servers state`` whose answer nobody reads;
* *a server*, *a hostname*: one change by the driver, against a reload.

The first three are CPU time of both sides of the socket, the last is wall time. The rounds take turns, and the medians
are compared, so that a busy machine slows both alike. It needs neither root nor a kernel of its own. Exits 1 if a
promise does not hold.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from anycastlb.adapters.drivers.haproxy import answers
from anycastlb.adapters.drivers.haproxy.errors import Away
from anycastlb.adapters.drivers.haproxy.installation import Installation
from anycastlb.adapters.drivers.haproxy.sockets import SocketRuntime
from tests.bench.rules import HOSTS, Bench, cpu, host, of_releases, wanted
from tests.rig import haproxy as rig
from tests.support.haproxy import Haproxy
from tests.support.haproxy_rows import Wanted, at, differences, look, server
from tests.support.haproxy_world import World
from tests.support.ports import free_port

SERVERS = tuple(f"s{number}" for number in range(10))
"""Of each pool."""
PARTS = 4
PORT = 9
"""Of all servers: nobody asks them for anything."""
AT_MOST = {"memory, MB": 1.1, "10,000 weights, CPU ms": 4.0, "nothing to do, CPU ms": 5.0}
"""At most so many times what the peer takes."""
FASTER = {"a server, ms": 4.0, "a hostname, ms": 4.0}
"""At least so many times as fast as a reload."""
PEER = """
global
  stats socket {files.socket} mode 660 level admin expose-fd listeners
  nbthread 1
defaults
  mode http
  timeout client 60s
  timeout server 60s
  timeout connect 3s
frontend web
  bind 127.0.0.1:{port}
  use_backend %[req.hdr(host),map_str({map})]
"""


def pool(number: int) -> str:
    return f"pool-{number}"


def document(number: int, last: int = 0) -> dict[str, Any]:
    """A route of five rules; ``last``: how far the pool of the last one is."""
    to = [{"name": pool((number + last) % HOSTS)}]
    rules = [{"matches": [{"path": {"value": f"/part{part}"}}], "backendRefs": to[:]} for part in range(PARTS)]
    return {"rules": [*rules, {"backendRefs": to}]}


def by_hand(files: Installation, port: int) -> str:
    """The peer's configuration; its map is written beside it."""
    files.directory.mkdir(parents=True)
    hosts = files.directory / "hosts"
    hosts.write_text("".join(f"{host(number)} {pool(number)}\n" for number in range(HOSTS)))
    return PEER.format(files=files, port=port, map=hosts) + "".join(_backends())


def _backends() -> Iterator[str]:
    for number in range(HOSTS):
        yield f"backend {pool(number)}\n"
        yield from (f"  server {name} 127.0.0.1:{PORT} weight 10\n" for name in SERVERS)


@dataclass
class Ours:
    world: World
    wanted: Wanted
    pid: int = 0
    memory: float = 0.0

    async def change(self, wanted: Wanted) -> None:
        """What the planner would hand to the driver, and nothing else, is measured: ``differences`` are made before."""
        changes = differences(self.seen, wanted)
        began = time.perf_counter(), time.process_time(), cpu(self.pid)
        failures = await self.world.driver.apply(changes)
        self.wall = (time.perf_counter() - began[0]) * 1e3
        self.spent = (time.process_time() - began[1]) * 1e3 + (cpu(self.pid) - began[2]) / 1e3
        self.wanted, self.seen = wanted, await look(self.world.driver)
        if failures or (left := differences(self.seen, wanted)):
            raise SystemExit(f"bench: it was not changed: {(failures or left)[0]}")

    async def start(self) -> None:
        await self.world.start(self.wanted)
        self.pid, self.seen = await self.world.worker(), await look(self.world.driver)
        self.memory = resident(self.pid)

    async def weights(self, weight: int) -> float:
        await self.change(replace(self.wanted, servers={key: server(PORT, weight) for key in self.wanted.servers}))
        return self.spent

    async def look(self) -> float:
        began, before = time.process_time(), cpu(self.pid)
        await self.world.driver.observe()
        return (time.process_time() - began) * 1e3 + (cpu(self.pid) - before) / 1e3

    async def server(self, turn: int) -> float:
        key = at(next(iter(self.wanted.servers)).section, SERVERS[0])
        await self.change(replace(self.wanted, servers={**self.wanted.servers, key: server(PORT, 100 + turn)}))
        return self.wall

    async def hostname(self, turn: int) -> float:
        number = turn * 7919 % HOSTS
        other = wanted({host(number): document(number, turn + 1)}, self.world.port, {}, map(pool, range(HOSTS)))
        await self.change(replace(self.wanted, sites={**self.wanted.sites, **other.sites}))
        await self.world.pass_time()  # what the old rules were is deleted
        return self.wall


@dataclass
class Theirs:
    """The peer, and who changes it."""

    real: Haproxy
    runtime: SocketRuntime
    pid: int = 0
    memory: float = 0.0

    async def ask(self, *commands: str) -> float:
        """CPU milliseconds of both sides."""
        began, before = time.process_time(), cpu(self.pid)
        said = await self.runtime.ask(commands)
        spent = (time.process_time() - began) * 1e3 + (cpu(self.pid) - before) / 1e3
        if wrong := [one for one in said if one.strip() and not one.startswith("1\n")]:
            raise SystemExit(f"bench: {wrong[0]}")
        return spent

    async def weights(self, weight: int) -> float:
        names = [f"{pool(number)}/{name}" for number in range(HOSTS) for name in SERVERS]
        return await self.ask(*(f"set server {name} weight {weight}" for name in names))

    async def look(self) -> float:
        return await self.ask("show servers state")

    async def reload(self, turn: int) -> float:
        """Wall milliseconds from a new file to a worker that has read it."""
        began = time.perf_counter()
        file = self.real.files.config
        file.write_text(file.read_text().replace("weight 10\n", f"weight {100 + turn}\n", 1))
        if wrong := await self.runtime.reload():
            raise SystemExit(f"bench: {wrong}")
        return (time.perf_counter() - began) * 1e3

    async def start(self) -> None:
        """Be connected to the worker that stays: the one before a reload accepts for a moment yet."""
        info = None
        while info is None or info.stopping:
            self.runtime.close()
            with suppress(Away):
                info = answers.info((await self.runtime.ask(["show info"]))[0])
        self.pid = info.pid


def resident(pid: int) -> float:
    """Megabytes."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


async def measure(release: str, rounds: int) -> int:
    """How many promises are broken."""
    program = rig.find(release)
    if program is None:
        sys.exit(f"{release} is not there: python3 tests/rig/haproxy.py")
    figures: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in (*AT_MOST, *FASTER)}
    with tempfile.TemporaryDirectory(prefix="alb.") as folder:
        async with AsyncExitStack() as stack:
            ours, theirs = await started(Bench(program, Path(folder), stack), stack)
            for turn in range(rounds):
                for name, mine, peer in (
                    ("10,000 weights, CPU ms", ours.weights(20 + turn), theirs.weights(20 + turn)),
                    ("nothing to do, CPU ms", ours.look(), theirs.look()),
                    ("a server, ms", ours.server(turn), theirs.reload(turn)),
                    ("a hostname, ms", ours.hostname(turn), theirs.reload(rounds + turn)),
                ):
                    figures[name][0].append(await mine)
                    figures[name][1].append(await peer)
                    await theirs.start()
            figures["memory, MB"] = [ours.memory], [theirs.memory]
    return told(release, figures)


async def started(bench: Bench, stack: AsyncExitStack) -> tuple[Ours, Theirs]:
    files = bench.files()
    world = World(bench.real(files), files, free_port())
    stack.callback(world.runtime.close)
    documents = {host(number): document(number) for number in range(HOSTS)}
    servers = dict.fromkeys(SERVERS, server(PORT))
    ours = Ours(world, wanted(documents, world.port, servers, map(pool, range(HOSTS))))
    await ours.start()
    files = bench.files()
    real = await bench.written(by_hand(files, free_port()), files)
    theirs = Theirs(real, SocketRuntime(files.socket, files.master, files.program, lambda: None))
    stack.callback(theirs.runtime.close)
    await theirs.start()
    theirs.memory = resident(theirs.pid)
    return ours, theirs


def told(release: str, figures: dict[str, tuple[list[float], list[float]]]) -> int:
    print(f"\n{release}: {HOSTS:,} hostnames of {PARTS + 1} rules, {HOSTS * len(SERVERS):,} servers; medians")
    broken = 0
    for name, (mine, peers) in figures.items():
        ratio = median(mine) / median(peers)
        least = FASTER.get(name)
        held = ratio <= AT_MOST[name] if least is None else 1 / ratio >= least
        broken += not held
        bound = f"at most {AT_MOST[name]:g} x" if least is None else f"at most 1/{least:g} x"
        print(f"  {name:24}{median(mine):10.1f}{median(peers):10.1f}{ratio:9.3f} x, promised {bound}"
              f"{'' if held else '  BROKEN'}")  # fmt: skip
    return broken


if __name__ == "__main__":
    sys.exit(of_releases("gateways", __doc__, 5, measure))
