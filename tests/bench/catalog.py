"""What one change of the catalog costs, and what reading a node costs: ``python -m tests.bench.catalog [--all]``.

The figures are CPU milliseconds of this process, so that a busy machine changes them little. What reads the catalog and
what answers readers is real; Consul is ``tests.bench.kv`` in a process of its own, and the machine is one value in
memory. Each service has ten backends, in its document or (``keys``) in keys of their own.

Exits 1 if a promise does not hold. Needs neither root nor IPVS nor Consul.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import resource
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import anycastlb
from anycastlb import settings
from anycastlb.adapters.checks import PARAMS
from anycastlb.adapters.cluster import status_bytes, status_document
from anycastlb.adapters.sources.consul import ConsulSource
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.catalog.per_service import PerService
from anycastlb.core.decision.decide import decide
from anycastlb.core.model import (
    Catalog,
    Check,
    CheckState,
    Feed,
    Inputs,
    Memory,
    Policy,
    Result,
    Snapshot,
    TrafficCounters,
)
from anycastlb.daemon import catalog_inspector
from anycastlb.engine.catalog_parser import CatalogParts
from anycastlb.engine.follower import Follower
from anycastlb.engine.node import checks, checks_of
from anycastlb.serving.history import History
from anycastlb.serving.metrics import Meters, Metrics, Sources
from anycastlb.serving.views.status_text import StatusTexts
from tests.bench.kv import PREFIX, documents

EACH = 10
ROUNDS = 7
SIZES = (100, 1_000)
PROMISES = {"change": 20.0, "/metrics": 200.0, "/v1/vips": 200.0}
"""CPU milliseconds at 1,000 services, at most."""
GROWTH = 2.0
"""A change at 1,000 services costs at most so many times what it costs at 100."""
NODE = """
[node]
name = "lb1"
vip_ranges = ["192.0.0.0/8"]
state_dir = "{state}"
[consul]
address = "http://127.0.0.1:{port}"
"""
Figures = dict[str, float]


@dataclass
class Published:
    """What the follower has published last; it does with it what a node does."""

    on_catalog: Callable[[Catalog], None]
    catalog: Catalog = field(default_factory=Catalog)
    checks: PerService[frozenset[Check]] = field(default_factory=lambda: PerService(checks_of))
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, catalog: Catalog, feed: Feed) -> None:
        if catalog is not self.catalog:
            self.on_catalog(catalog)
            self.checks(catalog.services)
        self.catalog = catalog
        self.news.set()

    async def wait(self, wanted: Callable[[Catalog], bool]) -> None:
        while not wanted(self.catalog):
            self.news.clear()
            await self.news.wait()


@asynccontextmanager
async def following(services: int, shape: str) -> AsyncIterator[tuple[Published, int]]:
    """A follower of a catalog of so many services, and the port of its store."""
    command = [sys.executable, "-m", "tests.bench.kv", str(services), str(EACH), shape]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert process.stdout is not None
    port = int(await process.stdout.readline())
    with tempfile.TemporaryDirectory() as state:
        config = settings.parse(NODE.format(state=state, port=port))
        source, journal = ConsulSource(config.consul), Journal()
        published = Published(catalog_inspector(config, journal))
        follower = Follower(CatalogParts(source, PARAMS), config, published.put, journal)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(follower.run())
            yield published, port
            running.cancel()
        await source.close()
    process.kill()
    await process.wait()


async def changes(services: int, shape: str) -> tuple[Figures, Catalog]:
    """The first load, then one change after the other: from the write in the store until it is saved here."""
    wanted, costs = dict(documents(services, EACH, shape)), []
    spent, began = time.process_time(), time.monotonic()
    async with following(services, shape) as (published, port):
        await published.wait(lambda catalog: len(catalog.services) == services)
        figures = {"first load": (time.process_time() - spent) * 1e3, "first load, s": time.monotonic() - began}
        await asyncio.sleep(1.0)
        for n in range(ROUNDS):
            key, new = f"services/s{n * 7919 % services}", 1000 + n
            document = json.dumps({**wanted[key], "port": new}).encode()
            spent = time.process_time()
            await asyncio.to_thread(put, port, key, document)
            await published.wait(lambda catalog, new=new: any(s.port == new for s in catalog.services))  # type: ignore[misc]
            await asyncio.sleep(0.3)
            costs.append((time.process_time() - spent) * 1e3)
    return {**figures, "change": median(costs)}, published.catalog


def put(port: int, key: str, value: bytes) -> None:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/kv/{PREFIX}{key}", data=value, method="PUT")
    with urllib.request.urlopen(request, timeout=60):
        pass


@dataclass
class Watched:
    """A node of which only the snapshot is real."""

    snapshot: Snapshot
    load: tuple[int, int, int] = (0, 0, 0)
    alive_at: float | None = None


def reading(catalog: Catalog) -> Figures:
    """Each answer: the first, one when nothing has changed, and one after every check has a new result."""
    snapshot, figures = decided(catalog), Figures()
    node, texts, history = Watched(snapshot), StatusTexts(), History()
    memory = status_document.Digests(), status_document.Summaries()
    counted = {key: TrafficCounters(active=1) for key in (*snapshot.actual.services, *snapshot.actual.destinations)}

    async def statistics() -> Mapping[Any, TrafficCounters]:
        return counted

    metrics = Metrics(node, Meters(), Journal(), Sources(statistics), clock=lambda: node.snapshot.at)
    later = replace(snapshot, inputs=replace(snapshot.inputs, health=probed(catalog, 1010.0)))
    for what, node.snapshot in ((", first", snapshot), ("", replace(snapshot, cycle=2)), (", all checked", later)):
        now = node.snapshot.at + 1.0
        figures[f"/metrics{what}"] = spent(lambda: asyncio.run(metrics.scrape()))
        figures[f"/v1/vips{what}"] = spent(lambda now=now: texts.vips(node.snapshot, now))
        figures[f"/v1/status{what}"] = spent(lambda now=now: texts.status(node.snapshot, now, ""))
        figures[f"status for the nodes{what}"] = spent(
            lambda: status_bytes.fit(status_document.summarise(node.snapshot, "", "", memory))
        )
        figures[f"sample of the history{what}"] = spent(lambda now=now: history.observe(node.snapshot, counted, now))
    return figures


def decided(catalog: Catalog) -> Snapshot:
    inputs = Inputs(Policy("lb1"), catalog, Feed(connected=True, loaded=True), probed(catalog, 1000.0))
    decision = decide(inputs, Memory(), 1000.0)
    return Snapshot(inputs, decision.desired, decision, at=1000.0, at_wall=1.8e9, cycle=1)


def probed(catalog: Catalog, at: float) -> dict[Check, CheckState]:
    state = CheckState(True, 0, 900.0, Result(True, "HTTP 200", 0.003, at))
    return {check: replace(state) for check in checks(catalog)}


def spent(work: Callable[[], object]) -> float:
    gc.collect()
    began = time.process_time()
    work()
    return (time.process_time() - began) * 1e3


def measure(services: int) -> Figures:
    """All figures at one size."""
    figures, catalog = asyncio.run(changes(services, "inline"))
    keys, _ = asyncio.run(changes(services, "keys"))
    figures |= {f"{name}, keys": value for name, value in keys.items()}
    return {**figures, **reading(catalog)}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.catalog", description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="10,000 services too, which takes minutes")
    sizes = (*SIZES, *([10_000] if parser.parse_args().all else []))
    print(f"anycastlb {anycastlb.__version__}, Python {sys.version.split()[0]}: CPU ms; services of {EACH} backends")
    found = {size: measure(size) for size in sizes}
    print(f"{'':34}" + "".join(f"{size:>12,}" for size in sizes) + f"{'promised':>12}")
    broken = 0
    for name in found[SIZES[0]]:
        promised = PROMISES.get(name)
        held = promised is None or found[1_000][name] <= promised
        broken += not held
        told = "" if promised is None else f"{promised:12.0f}" + ("" if held else "  BROKEN")
        print(f"{name:34}" + "".join(f"{found[size][name]:12.1f}" for size in sizes) + told)
    growth = found[1_000]["change"] / found[100]["change"]
    broken += growth > GROWTH
    print(f"{'change, 1,000 services to 100':34}{growth:36.1f}{GROWTH:12.0f}{'  BROKEN' if growth > GROWTH else ''}")
    print(f"largest resident memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
