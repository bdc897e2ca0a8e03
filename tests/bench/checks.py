"""What a health check costs, in microseconds of CPU, beside keepalived: ``python -m tests.bench.checks``.

Each asks the same backends of one small server once a second: anycastlb as a whole node (the daemon and its checker
together), keepalived with all of its processes. What a check is divided by is what the server has counted. The rounds
are interleaved and the medians compared, so that a busy machine slows both sides alike.

It needs root and IPVS: run it in the test kernel. ``--plain`` measures our side alone on any kernel, without IPVS.
Exits 1 if a promise does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from statistics import median
from typing import Any

from anycastlb.adapters.checks import TYPES
from anycastlb.adapters.system.clock import SYSTEM
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.model import Check, Health
from anycastlb.engine.checker.processes import CheckerProcesses
from anycastlb.engine.checker.protocol import Bounds
from anycastlb.serving.metrics.meters import Meters
from anycastlb.settings import ChecksSettings
from tests.rig import programs
from tests.support.netns import fresh

PORT = 8080
EACH = 10
SETTLE = 5.0
"""Seconds between the first round of checks and the measurement."""
PROMISES = {"tcp": 1.0, "http": 1.0}
"""At most so many times what keepalived's check costs."""
CORES = {"tcp": 0.5, "http": 0.75}
"""At most so much of a core for 10,000 checks a second, on a plain kernel and an idle machine."""
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
TICKS = os.sysconf("SC_CLK_TCK")
KEEPALIVED = {
    "tcp": f"TCP_CHECK {{ connect_timeout 1\n connect_port {PORT} }}",
    "http": f"HTTP_GET {{ url {{ path /\n status_code 200 }}\n connect_timeout 1\n connect_port {PORT} }}",
}
NODE = """
[node]
name = "lb1"
vip_ranges = ["192.0.0.0/16"]
state_dir = "{place}/state"
[catalog]
source = "file"
path = "{place}/catalog"
[bgp]
socket = "{place}/bgp.sock"
[api]
socket = "{place}/api.sock"
[log]
level = "error"
"""


# ---------------------------------------------------------------- the backends


def serve(kind: str, count: Any) -> None:
    """Answer for every backend, and count."""
    listener = socket.create_server(("0.0.0.0", PORT), backlog=4096)
    listener.setblocking(False)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    waiting: dict[int, socket.socket] = {}
    while True:
        for descriptor, _ in poll.poll():
            if descriptor != listener.fileno():
                connection = waiting.pop(descriptor)
                poll.unregister(descriptor)
                answer(connection)
                continue
            try:
                while True:
                    connection, _ = listener.accept()
                    count.value += 1
                    if kind == "tcp":
                        connection.close()
                    else:
                        waiting[connection.fileno()] = connection
                        poll.register(connection, select.EPOLLIN)
            except BlockingIOError:
                continue


def answer(connection: socket.socket) -> None:
    with connection:
        try:
            connection.recv(4096)
            connection.send(ANSWER)
        except OSError:
            return


@contextmanager
def serving(kind: str) -> Iterator[Callable[[], int]]:
    """How many checks it has been asked."""
    fork = multiprocessing.get_context("fork")
    count = fork.Value("Q", 0, lock=False)
    server = fork.Process(target=serve, args=(kind, count), daemon=True)
    server.start()
    try:
        yield lambda: int(count.value)
    finally:
        server.kill()
        server.join()


def backend(number: int) -> IPv4Address:
    return IPv4Address("127.1.0.1") + number


# ---------------------------------------------------------------- who checks them


def keepalived(kind: str, backends: int, place: Path) -> list[str]:
    lines = ["global_defs { checker_priority 0 }"]
    for service in range(backends // EACH):
        lines.append(f"virtual_server {vip(service)} 80 {{ delay_loop 1\n lb_algo mh\n lb_kind DR\n protocol TCP")
        for number in range(service * EACH, (service + 1) * EACH):
            lines.append(f" real_server {backend(number)} 80 {{ weight 100\n {KEEPALIVED[kind]} }}")
        lines.append("}")
    (place / "keepalived.conf").write_text("\n".join(lines))
    files = ("-f", "keepalived.conf"), ("-p", "k.pid"), ("-c", "c.pid")
    return [
        str(programs.find("keepalived")),
        "-n",
        "-C",
        *(word for o, name in files for word in (o, str(place / name))),
    ]


def anycastlb(kind: str, backends: int, place: Path) -> list[str]:
    (place / "node.toml").write_text(NODE.format(place=place))
    catalog = place / "catalog" / "services"
    catalog.mkdir(parents=True, exist_ok=True)
    check = {"type": kind, "interval": "1s", "timeout": "1s", "port": PORT}
    for service in range(backends // EACH):
        members = {f"b{n}": {"address": str(backend(n))} for n in range(service * EACH, (service + 1) * EACH)}
        document = {"vip": vip(service), "port": 80, "forward": "dr", "check": check, "backends": members}
        (catalog / f"s{service}.json").write_text(json.dumps(document))
    return [sys.executable, "-m", "anycastlb", "run", "--config", str(place / "node.toml")]


def vip(service: int) -> str:
    return str(IPv4Address("192.0.2.1") + service)


def cost(
    argv: list[str], asked: Callable[[], int], backends: int, seconds: float, place: Path
) -> tuple[float, float, float]:
    """Seconds of CPU that one check costs this program, and its children alone; and their memory in megabytes."""
    before = asked()
    with (place / "log").open("ab") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)
    try:
        while asked() - before < backends:
            if process.poll() is not None:
                raise SystemExit(f"bench: {argv[0]} ended: {(place / 'log').read_text()[-800:]}")
            time.sleep(0.1)
        time.sleep(SETTLE)
        used, below, done = spent(process.pid), spent_below(process.pid), asked()
        time.sleep(seconds)
        done = max(1, asked() - done)
        whole, below = spent(process.pid) - used, spent_below(process.pid) - below
        return whole / done, below / done, resident(process.pid)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def spent(pid: int) -> float:
    """Seconds of CPU that a process and its descendants have used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS + spent_below(pid)


def spent_below(pid: int) -> float:
    """Seconds of CPU that its descendants have used."""
    return sum(map(spent, children(pid)))


def resident(pid: int) -> float:
    """Megabytes of a process and its descendants; what they share is counted once for each."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    own = next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))
    return own + sum(map(resident, children(pid)))


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def cmdline(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


async def plain(kind: str, asked: Callable[[], int], backends: int, seconds: float) -> tuple[float, float]:
    """Seconds of CPU that one check costs the daemon's side and its checker, without all else that a daemon does."""
    states: list[Health] = [{}]

    def take(health: Health, turned: bool) -> None:
        states[0] = health

    checker = CheckerProcesses(Bounds(ChecksSettings()), 1, take, Journal(), SYSTEM, Meters())
    check = Check(kind, backend(0), PORT, TYPES[kind].params(), 1.0, 1.0, 2, 3)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(checker.run())
        checker.want(replace(check, address=backend(number)) for number in range(backends))
        while sum(state.up is True for state in states[0].values()) < backends:
            await asyncio.sleep(0.1)
        await asyncio.sleep(SETTLE)
        (pid,) = (child for child in children(os.getpid()) if b"engine.checker" in cmdline(child))
        before = time.process_time(), spent(pid), asked()
        await asyncio.sleep(seconds)
        own, used, done = time.process_time() - before[0], spent(pid) - before[1], asked() - before[2]
        running.cancel()
    return own / done, used / done


# ---------------------------------------------------------------- what is shown


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.checks", description=__doc__.splitlines()[0])
    parser.add_argument("--backends", type=int, default=1000, help="each is checked once a second")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--plain", action="store_true", help="our side alone, without IPVS")
    options = parser.parse_args()
    sizes = options.backends, options.seconds
    print(f"{options.backends} backends, each checked once a second; microseconds of CPU for each check", flush=True)
    return alone(*sizes) if options.plain else beside(*sizes, options.rounds)


def alone(backends: int, seconds: float) -> int:
    broken = 0
    print(f"{'':6} {'daemon':>8} {'checker':>8} {'cores for 10,000/s':>19} {'promised':>9}")
    for kind, most in CORES.items():
        with serving(kind) as asked:
            own, checker = asyncio.run(plain(kind, asked, backends, seconds))
        cores = (own + checker) * 10_000
        broken += cores > most
        verdict = "  BROKEN" if cores > most else ""
        print(f"{kind:6} {own * 1e6:8.1f} {checker * 1e6:8.1f} {cores:19.2f} {most:9.2f}{verdict}", flush=True)
    return 1 if broken else 0


def beside(backends: int, seconds: float, rounds: int) -> int:
    broken = 0
    heads = ("anycastlb", "its checker", "keepalived", "times", "promised", "MB", "keepalived")
    print(f"{'':6} " + " ".join(f"{head:>11}" for head in heads))
    for kind, most in PROMISES.items():
        costs: dict[str, list[tuple[float, float, float]]] = {"anycastlb": [], "keepalived": []}
        for _ in range(rounds):
            for name, argv in (("keepalived", keepalived), ("anycastlb", anycastlb)):
                with fresh(), serving(kind) as asked, tempfile.TemporaryDirectory() as place:
                    words = argv(kind, backends, Path(place))
                    costs[name].append(cost(words, asked, backends, seconds, Path(place)))
        (mine, checker, memory), (theirs, _, peers) = (map(median, zip(*rows, strict=True)) for rows in costs.values())
        broken += mine > most * theirs
        verdict = "  BROKEN" if mine > most * theirs else ""
        row = (mine * 1e6, checker * 1e6, theirs * 1e6, mine / theirs, most, memory, peers)
        print(f"{kind:6} " + " ".join(f"{number:11.2f}" for number in row) + verdict, flush=True)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
