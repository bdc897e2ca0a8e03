"""What a node holds in memory, and what its readers cost it: ``python -m tests.bench.readers [--all]``.

The node is a process of its own: the daemon's wiring with its API, on a catalog in ``tests.bench.kv`` and a machine in
memory. CPU milliseconds and megabytes are those of that process. *block* is the CPU time of the longest callback of its
event loop, of whatever part of the node, while it did what the row says. Exits 1 if a promise does not hold.

Needs neither root nor IPVS nor Consul.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anycastlb
from anycastlb import daemon, settings
from anycastlb.adapters.checks import types
from anycastlb.adapters.drivers.memory import MemoryDriver
from anycastlb.adapters.system.allocation import return_large_blocks
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.events import Event
from anycastlb.core.model import TrafficCounters
from anycastlb.engine.checker.processes import in_own_processes
from anycastlb.engine.checker.protocol import bounds
from anycastlb.engine.inbox import Inbox
from anycastlb.engine.machine import Machine
from anycastlb.engine.node import Node, Parts
from anycastlb.engine.parts import first_inputs, make_kinds, make_source
from anycastlb.serving.history import History, sample
from anycastlb.serving.metrics import Meters
from tests.bench.catalog import EACH, NODE, SIZES
from tests.support.world import MemoryAnnouncer

READERS = 1000
UNCHECKED = {"type": "none"}
PROMISES = {
    "resident, MB": 120.0,
    "/metrics, first, ms": 200.0,
    "/metrics, ms": 200.0,
    "/v1/vips, first, ms": 200.0,
    "/v1/vips, ms": 200.0,
    "block": 20.0,
}
"""At 1,000 services, at most."""
OTHERS = ("/", "/v1/why/s0", "/v1/plan", "/v1/export", "/v1/checks", "/v1/stats", "/v1/history")
"""What else is asked of a node, of which only the longest turn of the loop is measured."""
PLACE = '[api]\nlisten = ["127.0.0.1:0"]\nsocket = "{state}/api"\nmax_streams = 2000\nmax_connections = 2000\n'
Figures = dict[str, float]


# ---------------------------------------------------------------- the node, in a process of its own


class Longest:
    """The longest callback of the event loop since it was last asked, in CPU milliseconds."""

    def __init__(self) -> None:
        self._most = 0.0
        run = asyncio.events.Handle._run

        def timed(handle: asyncio.Handle) -> None:
            began = time.thread_time()
            run(handle)
            self._most = max(self._most, time.thread_time() - began)

        asyncio.events.Handle._run = timed  # type: ignore[method-assign]

    def taken(self) -> float:
        most, self._most = self._most, 0.0
        return most * 1e3


def resident() -> float:
    """Megabytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def serve(port: int, state: str) -> None:
    """Run the node; each line of standard input is a command, and is answered by a line of JSON."""
    config = settings.parse(NODE.format(state=state, port=port) + PLACE.format(state=state))
    journal, meters, history, longest = Journal(), Meters(), History(), Longest()
    kernel = MemoryDriver(("addresses", "services", "destinations"))
    counted: dict[Any, TrafficCounters] = {}
    downs: list[Event] = []

    def observe(event: Event) -> None:
        if event.kind == "check" and event.after == "down":
            downs.append(event)

    journal.observers.append(observe)

    async def statistics() -> Mapping[Any, TrafficCounters]:
        return counted

    inspector = daemon.catalog_inspector(config, journal)
    machine = Machine((kernel,), MemoryAnnouncer())
    parts = Parts(
        Inbox(first_inputs(config)),
        make_source(config),
        machine,
        types(config.checks),
        make_kinds(config),
        make_checking=in_own_processes(bounds(config)),
        on_catalog=inspector,
    )
    node = Node(config, parts, journal, meters)
    api = daemon.make_api(config, node, meters, history, statistics)

    async def obey() -> None:
        lines = StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        while line := await lines.readline():
            if line == b"emit\n":
                journal.emit(Event("bench", "event"))
            rows = kernel.rows
            if len(counted) != len(rows["services"]) + len(rows["destinations"]):
                counted.clear()
                counted.update((key, TrafficCounters(active=1)) for key in (*rows["services"], *rows["destinations"]))
            kernel.writes.clear()
            serving = sum(row.weight > 0 for row in rows["destinations"].values())
            figures = {"resident": resident(), "cpu": time.process_time() * 1e3, "block": longest.taken()}
            figures |= {"serving": serving, "downs": len(downs)}
            print(json.dumps({**figures, "port": (api.address or ("", 0))[1]}), flush=True)
        os._exit(0)

    background = (api.run(), meters.watch_loop(), sample(history, lambda: node.snapshot, statistics))
    await node.run(*background, daemon.collect_garbage(), obey())


# ---------------------------------------------------------------- who asks it


@dataclass
class Asked:
    """The node as seen from outside."""

    process: Process
    store: int
    """The port of its catalog's store."""
    port: int = 0

    async def ask(self, command: str = "") -> dict[str, float]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{command}\n".encode())
        figures: dict[str, float] = json.loads(await self.process.stdout.readline())
        self.port = int(figures["port"])
        return figures

    async def cost(self, work: Callable[[], Awaitable[object]]) -> Figures:
        """Of the node, while the work was done."""
        before, began = await self.ask(), time.monotonic()
        await work()
        wall = time.monotonic() - began
        after = await self.ask()
        return {"ms": after["cpu"] - before["cpu"], "block": after["block"], "wall, ms": wall * 1e3}

    async def whole(self, path: str, body: bytes = b"") -> bytes:
        """The answer with its head, to a POST if there is a body."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        head = f"{'POST' if body else 'GET'} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\nConnection: close\r\n"
        sent = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
        writer.write(f"{head}{sent}\r\n".encode() + body)
        answer = await reader.read()
        writer.close()
        return answer

    async def follow(self) -> tuple[StreamReader, StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 24)
        writer.write(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
        await reader.readuntil(b"event: status\ndata: ")
        return reader, writer


@asynccontextmanager
async def running(services: int, check: Mapping[str, object] = UNCHECKED) -> AsyncIterator[Asked]:
    command = [sys.executable, "-c", f"from tests.bench import kv; kv.CHECK = {check!r}; {MAIN}"]
    store = await asyncio.create_subprocess_exec(*command, str(services), str(EACH), "inline", stdout=PIPE)
    assert store.stdout is not None
    port = (await store.stdout.readline()).decode().strip()
    with tempfile.TemporaryDirectory() as state:
        node = [sys.executable, "-m", "tests.bench.readers", "--node", port, state]
        process = await asyncio.create_subprocess_exec(*node, stdin=PIPE, stdout=PIPE, stderr=DEVNULL)
        try:
            yield Asked(process, int(port))
        finally:
            for child in (process, store):
                child.kill()
                await child.wait()


MAIN = "import asyncio, sys; asyncio.run(kv.main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))"


async def measure(services: int) -> Figures:
    async with running(services) as node:
        while (found := await node.ask())["serving"] < services * EACH:
            await asyncio.sleep(0.2)
        await asyncio.sleep(daemon.STARTING)
        figures = {"first load, block": found["block"], "resident, MB": (await node.ask())["resident"]}
        for path in ("/metrics", "/v1/vips", "/v1/status"):
            first = await node.cost(lambda path=path: node.whole(path))
            await asyncio.sleep(1.5)  # for so long it would be shared
            again = await node.cost(lambda path=path: node.whole(path))
            figures[f"{path}, first, ms"] = first["ms"]
            figures |= {f"{path}, {name}": value for name, value in again.items()}
        figures["resident, read by all, MB"] = (await node.ask())["resident"]
        figures |= {f"{path}, block": (await node.cost(lambda path=path: node.whole(path)))["block"] for path in OTHERS}
        _, _, exported = (await node.whole("/v1/export")).partition(b"\r\n\r\n")
        catalog = json.loads(exported)["catalog"]
        for document in catalog.values():
            document["backends"] = {name: {**row, "weight": 50} for name, row in document["backends"].items()}
            next(iter(document["backends"].values()))["weight"] = 20
        body = json.dumps({"catalog": catalog}).encode()
        proposed = await node.cost(lambda: node.whole("/v1/plan?mode=replace", body))
        figures |= {f"plan of an import, {name}": proposed[name] for name in ("ms", "block")}
        return {**figures, **await streams(node)}


async def streams(node: Asked) -> Figures:
    """What readers of events cost: while nothing happens, for a second, and for each event."""
    readers = [await node.follow() for _ in range(READERS)]
    await asyncio.sleep(2.0)
    idle = await node.cost(lambda: asyncio.sleep(5.0))

    async def told() -> None:
        await node.ask("emit")
        await asyncio.gather(*(reader.readuntil(b'"bench"') for reader, _ in readers))

    event = await node.cost(told)
    for _, writer in readers:
        writer.close()
    return {
        f"{READERS} streams, idle, ms a second": idle["ms"] / 5.0,
        f"{READERS} streams, an event, ms": event["ms"],
        f"{READERS} streams, an event, block": event["block"],
    }


def promised(name: str) -> float | None:
    return PROMISES.get("block" if name.endswith(", block") else name)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.readers", description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="10,000 services too")
    parser.add_argument("--services", type=int, nargs="*", help="these sizes")
    parser.add_argument("--node", nargs=2, metavar=("PORT", "STATE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.node:
        return_large_blocks()
        asyncio.run(serve(int(options.node[0]), options.node[1]))
        return 0
    sizes = options.services or [*SIZES, *([10_000] if options.all else [])]
    print(f"anycastlb {anycastlb.__version__}, Python {sys.version.split()[0]}: services of {EACH} backends")
    found = {size: asyncio.run(measure(size)) for size in sizes}
    print(f"{'':40}" + "".join(f"{size:>12,}" for size in sizes) + f"{'promised':>12}")
    broken = 0
    for name in found[sizes[0]]:
        limit = promised(name)
        held = limit is None or found.get(1_000, {}).get(name, 0.0) <= limit
        broken += not held
        shown = "" if limit is None else f"{limit:12.0f}" + ("" if held else "  BROKEN")
        print(f"{name:40}" + "".join(f"{found[size][name]:12.1f}" for size in sizes) + shown)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
