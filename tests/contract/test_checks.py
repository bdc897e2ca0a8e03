"""Every check type against real servers, good and bad, on the loopback: the same outcomes from each of them."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from anycastlb.checks import TYPES, CheckType, Down, Found
from anycastlb.events import Journal
from anycastlb.model import Check, Health, Lane
from anycastlb.prober import Prober

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(handler: Handler, host: str = "127.0.0.1") -> AsyncIterator[int]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except OSError:
            pass  # the probe is gone: that is its right
        finally:
            writer.close()

    server = await asyncio.start_server(handle, host, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def answering(*lines: str) -> Handler:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write("\r\n".join([*lines, "", ""]).encode())
        await writer.drain()

    return answer


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def dripping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"z" * 10_000:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.05)


async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(os.urandom(4096))
    await writer.drain()


async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)


def check(kind: str, port: int, address: str = "127.0.0.1", **params: object) -> Check:
    return Check(kind, ip_address(address), port, TYPES[kind].params.model_validate(params), 1.0, 0.3, 1, 1)


async def found(given: Check) -> tuple[bool, str]:
    """What the prober would fold: outcome and detail."""
    prober = Prober(TYPES, lambda health, turned: None, Journal())
    result = await prober._result(given, None)
    assert result.duration < 2, "the deadline holds"
    return result.ok, result.detail


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.mark.parametrize("kind", ["tcp", "http"])
async def test_refused(kind: str) -> None:
    assert await found(check(kind, free_port())) == (False, "connection refused")


@pytest.mark.parametrize("kind", ["tcp", "http"])
async def test_black_holed(kind: str) -> None:
    with socket.socket() as sock:  # a full backlog drops every further SYN
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        port = sock.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        await asyncio.sleep(0.05)
        assert await found(check(kind, port)) == (False, "no answer within 0.3 s")
        for filler in fillers:
            filler.close()


@pytest.mark.parametrize(("kind", "up"), [("tcp", True), ("http", False)])
@pytest.mark.parametrize("handler", [silent, dripping, garbage, closing])
async def test_bad_servers(kind: str, up: bool, handler: Handler) -> None:
    async with serving(handler) as port:
        ok, detail = await found(check(kind, port))
    assert ok is up and detail


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("kind", ["tcp", "http"])
async def test_a_good_server(kind: str, host: str) -> None:
    async with serving(answering("HTTP/1.1 200 OK", "Content-Length: 0"), host) as port:
        ok, detail = await found(check(kind, port, host))
    assert ok and detail == {"tcp": "connected", "http": "HTTP 200"}[kind]


@pytest.mark.parametrize(
    ("status", "expect", "up"),
    [
        ("204 No Content", "200-299", True),
        ("503 Service Unavailable", 200, False),
        ("503 Service Unavailable", [200, "500-503"], True),
        ("301 Moved Permanently", 200, False),
        ("301 Moved Permanently", "301", True),
    ],
)
async def test_status_codes(status: str, expect: object, up: bool) -> None:
    handler = answering(f"HTTP/1.1 {status}", "Location: http://127.0.0.1:1/", "Content-Length: 0")
    async with serving(handler) as port:
        ok, detail = await found(check("http", port, expect=expect))
    assert ok is up and detail.startswith(f"HTTP {status[:3]}")


async def test_the_request_is_what_was_asked_for() -> None:
    seen: list[bytes] = []

    async def record(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\npart of a body")

    async with serving(record) as port:
        params = {"method": "OPTIONS", "path": "/up?a=b%20c", "host": "www.example.org", "headers": {"X-Probe": "1"}}
        ok, _ = await found(check("http", port, **params))
    assert ok
    head = seen[0].decode()
    assert head.startswith("OPTIONS /up?a=b%20c HTTP/1.1\r\n")
    assert "Host: www.example.org\r\n" in head and "X-Probe: 1\r\n" in head


async def test_none_is_always_up() -> None:
    assert (await found(check("none", 0)))[0]


async def test_a_probe_that_breaks_is_a_failed_check_not_a_crash() -> None:
    async def broken(given: Check, lane: Lane | None) -> Found:
        raise ZeroDivisionError("oops")

    types = {"tcp": CheckType(TYPES["tcp"].params, broken)}
    prober = Prober(types, lambda health, turned: None, Journal())
    result = await prober._result(check("tcp", 1), None)
    assert not result.ok and "ZeroDivisionError" in result.detail


async def test_thousands_of_probes_leak_nothing() -> None:
    handler = answering("HTTP/1.1 200 OK", "Content-Length: 0")
    async with serving(handler) as port:
        probes = [check("http", port), check("tcp", port), check("http", free_port())]

        async def many(rounds: int) -> None:
            for _ in range(rounds):
                await asyncio.gather(*(found(probe) for probe in probes for _ in range(10)))

        await many(3)
        await asyncio.sleep(0.1)
        gc.collect()
        before = open_files(), len(asyncio.all_tasks())
        await many(50)
        await asyncio.sleep(0.3)
        gc.collect()
        after = open_files(), len(asyncio.all_tasks())
    assert after[0] <= before[0] + 3 and after[1] <= before[1] + 3


async def test_a_hanging_backend_delays_nobody() -> None:
    told: list[Health] = []
    prober = Prober(TYPES, lambda health, turned: told.append(health), Journal(), chance=lambda: 0.0)
    async with serving(silent) as slow, serving(answering("HTTP/1.1 200 OK", "Content-Length: 0")) as quick:
        checks = [check("http", slow), check("http", quick)]
        prober.want(checks)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(prober.run())
            async with asyncio.timeout(5):
                while not told or checks[1] not in told[-1]:
                    await asyncio.sleep(0.01)
            assert checks[0] not in told[-1], "the quick one is known before the slow one times out"
            running.cancel()


def test_down_tells_why() -> None:
    assert str(Down("HTTP 503")) == "HTTP 503"
