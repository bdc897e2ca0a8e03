"""The bridge as a process: this test is ExaBGP at its pipes, and the daemon at its socket."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

from anycastlb.bridge.loop import REPORT_PAUSE_EACH
from anycastlb.bridge.protocol import MAX_LINE, Report, RouteSet, decode_report, encode
from anycastlb.core.model import Route
from tests.lab import lateness
from tests.support.fake_exabgp import FakeExaBGP

ROOT = Path(__file__).parents[2]
PEER = "10.99.1.1"
MANY = {ip_address("10.128.0.0") + n: Route() for n in range(10_000)}
HOLD = 600.0
"""Seconds: no test here is about a silent daemon, and the daemon of each says no more than it must."""
GIVE_UP = 600
"""Seconds, to end a hang only."""


class Ends:
    """Both ends of the bridge. ``reports``: what the daemon received, one for each time it differed."""

    def __init__(self) -> None:
        self.exabgp = FakeExaBGP(PEER)
        self.lines: list[bytes] = []
        self.connected = asyncio.Event()
        self.writer: asyncio.StreamWriter

    async def daemon(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.connected.set()
        while line := await reader.readline():
            self.lines.append(line)
        writer.close()

    async def answer(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin and process.stdout
        async for line in process.stdout:
            for answer in self.exabgp.answer(line.decode().strip()):
                process.stdin.write(answer.encode() + b"\n")

    @property
    def report(self) -> Report:
        return decode_report(self.lines[-1]) if self.lines else Report()


@asynccontextmanager
async def bridge(directory: Path) -> AsyncIterator[Ends]:
    ends = Ends()
    settings = directory / "node.toml"
    settings.write_text(f'[node]\nvip_ranges = ["10.128.0.0/9"]\n[bgp]\nsocket = "{directory}/bgp.sock"\n')
    server = await asyncio.start_unix_server(ends.daemon, directory / "bgp.sock", limit=MAX_LINE)
    argv = [sys.executable, "-m", "anycastlb.bridge", "--no-kill", "--config", str(settings)]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe, cwd=ROOT, limit=1 << 20)
    async with asyncio.TaskGroup() as tasks:
        answering = tasks.create_task(ends.answer(process))
        try:
            async with asyncio.timeout(GIVE_UP):
                await ends.connected.wait()
                yield ends
        finally:
            answering.cancel()
            if process.stdin:
                process.stdin.close()
            await process.wait()
            server.close()


async def until_report(ends: Ends, serial: int) -> Report:
    while ends.report.serial != serial:
        await asyncio.sleep(0.02)
    return ends.report


async def test_the_larger_a_report_the_longer_until_the_next(tmp_path: Path) -> None:
    async with bridge(tmp_path) as ends:
        clock = asyncio.get_running_loop().time
        ends.writer.write(encode(RouteSet(1, HOLD, MANY)))
        while len(ends.report.announced) < len(MANY) / 2:
            await asyncio.sleep(0.02)
        half, before = clock(), len(set(ends.lines))
        assert (await until_report(ends, 1)).announced == MANY
        pauses = (clock() - half) / (REPORT_PAUSE_EACH * len(MANY) / 2)
        assert len(set(ends.lines)) - before <= pauses + 2
        assert sum("announce" in line for line in ends.exabgp.said) > 100


async def test_a_report_is_repeated_every_second_as_it_was(tmp_path: Path) -> None:
    async with bridge(tmp_path) as ends:
        ends.writer.write(encode(RouteSet(1, HOLD, dict(list(MANY.items())[:10]))))
        await until_report(ends, 1)
        before = len(ends.lines)
        while len(ends.lines) < before + 2:
            await asyncio.sleep(0.02)
        assert len(set(ends.lines[before - 1 :])) == 1


async def test_a_small_change_is_acknowledged_at_once(tmp_path: Path) -> None:
    async with bridge(tmp_path) as ends:
        times = []
        for serial in range(1, 11):
            started = lateness.now()
            ends.writer.write(encode(RouteSet(serial, HOLD, dict(list(MANY.items())[:serial]))))
            await until_report(ends, serial)
            times.append(time.monotonic() - started - lateness.lost(started))
        assert min(times) < 0.1, "no pause between small reports"
