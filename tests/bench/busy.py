"""Does a busy node take itself for a dead backend? ``python -m tests.bench.busy``.

3,000 healthy backends are checked by TCP every 5 s with a time-out of 500 ms, while one service changes every second,
sixty readers ask the API for the status of everything, and a busy loop runs on each processor. The backends' server is
the only one that is never late: it goes before everybody else. Half way the server of one service's backends is killed.

Promised are two things, however busy the machine is. No healthy backend counts as down, and those that are killed are
out within ``interval x fall + timeout`` and what the machine lost meanwhile (``tests.lab.lateness``).

The node is the one of ``tests.bench.readers``, with its checker process. It needs root, to let the server go first, and
neither IPVS nor Consul. Exits 1 if a promise does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import re
import select
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from itertools import count
from multiprocessing.context import ForkProcess
from typing import Any

import anycastlb
from tests.bench import kv
from tests.bench.readers import Asked, Figures, running
from tests.lab import lateness

SERVICES, EACH = 300, 10
INTERVAL, TIMEOUT, FALL = 5.0, 0.5, 2
READERS = 60
OUT, LOST = "a killed service is out after, s", "of which the machine lost, s"
PORT, DOOMED = 8080, 8081
"""The second is the port of the first service's backends, which are killed."""
CHECK = {"type": "tcp", "port": PORT, "interval": f"{INTERVAL:g}s", "timeout": f"{TIMEOUT:g}s", "rise": 2, "fall": FALL}


def serve(port: int) -> None:
    """Take every connection, and go before every other process."""
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    listener = socket.create_server(("0.0.0.0", port), backlog=4096)
    listener.setblocking(False)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    while True:
        poll.poll()
        try:
            while True:
                listener.accept()[0].close()
        except BlockingIOError:
            continue


def waste() -> None:
    os.setsid()  # where the kernel groups processes by session, it competes as any other program does
    while True:
        pass


@contextmanager
def beside(work: Callable[..., None], *arguments: object) -> Iterator[ForkProcess]:
    """A process that does this until the block has ended."""
    process = multiprocessing.get_context("fork").Process(target=work, args=arguments, daemon=True)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


@asynccontextmanager
async def during(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """These go on until the block has ended."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each) for each in work]
        yield
        for task in tasks:
            task.cancel()


async def read(node: Asked) -> None:
    while True:
        await node.whole("/v1/status")
        await asyncio.sleep(1.0)


async def change(store: int) -> None:
    """Another weight of one backend of the next service, every second; never of the first one."""
    services = list(kv.documents(SERVICES, EACH, "inline"))
    for turn in count():
        number = 1 + turn % (SERVICES - 1)
        key, document = services[number]
        changed = {f"b{number * EACH}": {"address": kv.address(number * EACH), "weight": 50 + turn % 40}}
        await put(store, key, {**document, "check": CHECK, "backends": {**document["backends"], **changed}})
        await asyncio.sleep(1.0)


async def put(store: int, key: str, document: Mapping[str, object]) -> None:
    body = json.dumps(document).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", store)
    writer.write(f"PUT /v1/kv/{kv.PREFIX}{key} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    await reader.readuntil(b"true")
    writer.close()


async def results(node: Asked) -> Counter[str]:
    """How many checks ended how."""
    text = (await node.whole("/metrics")).decode()
    matches = re.findall(r'(?m)^anycastlb_check_results_total\{.*outcome="(\w+)".*\} (\S+)$', text)
    return Counter({outcome: int(float(number)) for outcome, number in matches})


async def measure(seconds: float) -> Figures:
    async with running(SERVICES, CHECK) as node:
        with ExitStack() as stack:
            stack.enter_context(beside(serve, PORT))
            doomed = stack.enter_context(beside(serve, DOOMED))
            await node.ask()
            key, document = next(kv.documents(SERVICES, EACH, "inline"))
            await put(node.store, key, {**document, "check": {**CHECK, "port": DOOMED}})
            while (await node.ask())["serving"] < SERVICES * EACH:
                await asyncio.sleep(0.5)
            for _ in range(os.cpu_count() or 1):
                stack.enter_context(beside(waste))
            async with during(change(node.store), *(read(node) for _ in range(READERS))):
                return await scene(node, doomed, seconds)


async def scene(node: Asked, doomed: ForkProcess, seconds: float) -> Figures:
    before, ended = await node.ask(), await results(node)
    await asyncio.sleep(seconds / 2)
    killed = lateness.now()
    doomed.kill()
    while (await node.ask())["serving"] > (SERVICES - 1) * EACH:
        await asyncio.sleep(0.05)
    out = time.monotonic()
    lost = lateness.lost(killed, out)
    await asyncio.sleep(seconds / 2)
    after, ended = await node.ask(), await results(node) - ended
    return {
        "healthy backends counted as down": after["downs"] - before["downs"] - EACH,
        OUT: out - killed,
        LOST: lost,
        "checks ended": ended.total(),
        "without evidence, since they were late": ended["late"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.busy", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    print(f"anycastlb {anycastlb.__version__}: a busy machine with {os.cpu_count()} processors", flush=True)
    figures = asyncio.run(measure(options.seconds))
    for name, value in figures.items():
        print(f"{name:40}{value:10.2f}")
    promise = INTERVAL * FALL + TIMEOUT
    kept = not figures["healthy backends counted as down"] and figures[OUT] - figures[LOST] <= promise
    print(f"promised: none, and out within {promise:g} s without the loss{'' if kept else '  BROKEN'}")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
