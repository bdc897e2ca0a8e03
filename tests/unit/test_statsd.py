"""R31: what a statsd server gets of hostnames, over a real socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from typing import Any

import pytest

from anycastlb import settings
from anycastlb.core.model import AnycastlbError, HttpCounters, SiteCounters, SiteKey
from anycastlb.serving.statsd import DATAGRAM, Report, datagrams, report, send
from tests.support.waiting import eventually


def sites(requests: int, answers: tuple[int, int, int, int], *hosts: str, gateway: str = "web") -> dict[SiteKey, Any]:
    return {SiteKey(gateway, host): SiteCounters(requests, 9, 9, answers) for host in hosts}


def test_only_what_is_new_is_said_by_hostname() -> None:
    known = Report("ELB")
    assert known.lines(sites(100, (90, 0, 9, 1), "shop.example")) == [], "nobody knows since when these are"
    more = sites(103, (92, 0, 9, 2), "shop.example") | sites(2, (2, 0, 0, 0), "*.shop.example", "[2001:db8::1]")
    assert known.lines(more) == [
        "ELB.__shop_example.total:2|c", "ELB.__shop_example.status.2xx:2|c",
        "ELB._2001_db8__1_.total:2|c", "ELB._2001_db8__1_.status.2xx:2|c",
        "ELB.shop_example.total:3|c", "ELB.shop_example.status.2xx:2|c", "ELB.shop_example.status.5xx:1|c",
    ]  # fmt: skip
    assert known.lines(more) == []


def test_after_a_reload_all_that_was_counted_since_is_new() -> None:
    known = Report("web.edge")
    known.lines(sites(100, (90, 0, 9, 1), "shop.example"))
    assert known.lines(sites(4, (4, 0, 0, 0), "shop.example")) == [
        "web.edge.shop_example.total:4|c",
        "web.edge.shop_example.status.2xx:4|c",
    ]


def test_a_hostname_of_two_gateways_is_one() -> None:
    known, one = Report("ELB"), sites(1, (1, 0, 0, 0), "shop.example")
    known.lines({})
    assert known.lines(one | sites(2, (0, 2, 0, 0), "shop.example", gateway="plain")) == [
        "ELB.shop_example.total:3|c",
        "ELB.shop_example.status.2xx:1|c",
        "ELB.shop_example.status.3xx:2|c",
    ]


def test_no_datagram_is_larger_than_a_packet_and_no_line_is_cut() -> None:
    lines = [f"ELB.host{number}.total:1|c" for number in range(1000)]
    pieces = list(datagrams(lines))
    assert max(map(len, pieces)) <= DATAGRAM and len(pieces) < 20
    assert b"".join(pieces).decode().splitlines() == lines
    assert list(datagrams([])) == []


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
async def test_a_server_gets_it_over_udp(family: socket.AddressFamily, host: str) -> None:
    answers = [sites(5, (5, 0, 0, 0), "shop.example", "gone.example"), sites(7, (6, 0, 0, 1), "shop.example")]
    wanted: Mapping[SiteKey, object] = sites(0, (0, 0, 0, 0), "shop.example")

    async def count() -> HttpCounters | None:
        return HttpCounters(answers.pop(0)) if answers else None

    with socket.socket(family, socket.SOCK_DGRAM) as server:
        server.bind((host, 0))
        server.setblocking(False)
        reporting = asyncio.ensure_future(  # noqa: TID251
            report((host, server.getsockname()[1]), "ELB", count, lambda: wanted, 0.01)
        )
        got = await asyncio.get_running_loop().sock_recv(server, 2000)
        reporting.cancel()
    assert got.decode().splitlines() == ["ELB.shop_example.total:2|c", "ELB.shop_example.status.2xx:1|c",
                                         "ELB.shop_example.status.5xx:1|c"]  # fmt: skip


async def test_a_server_that_is_away_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it leaves the loopback: the test resolves the name, and no socket may be connected to a broadcast."""
    resolve = asyncio.get_running_loop().getaddrinfo

    async def known(host: str, *args: Any, **more: Any) -> Any:
        if host == "nobody.example":
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return await resolve(host, *args, **more)

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", known)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
    for server in (("127.0.0.1", port), ("nobody.example", 8125), ("255.255.255.255", 8125)):
        for _ in range(3):
            await send(server, [b"ELB.shop_example.total:1|c\n"] * 3)
    asked = 0

    async def count() -> HttpCounters | None:
        nonlocal asked
        asked += 1
        return None if asked % 2 else HttpCounters(sites(asked, (asked, 0, 0, 0), "shop.example"))

    wanted: Mapping[SiteKey, object] = sites(0, (0, 0, 0, 0), "shop.example")
    reporting = asyncio.ensure_future(report(("127.0.0.1", port), "ELB", count, lambda: wanted, 0.001))  # noqa: TID251
    await eventually(lambda: asked > 20)
    assert not reporting.done()
    reporting.cancel()


NODE = '[node]\nvip_ranges = ["192.0.2.0/24"]\n[http]\n'


@pytest.mark.parametrize(
    ("value", "server"),
    [
        ("127.0.0.1:8125", ("127.0.0.1", 8125)),
        ("statsd.example.net:8126", ("statsd.example.net", 8126)),
        ("[2001:db8::1]:8125", ("2001:db8::1", 8125)),
    ],
)
def test_where_it_goes(value: str, server: tuple[str, int]) -> None:
    http = settings.parse(f'{NODE}statsd = "{value}"\nstatsd_prefix = "lb.edge"\n').http
    assert http is not None and (http.statsd, http.statsd_prefix) == (server, "lb.edge")
    off = settings.parse(NODE).http
    assert off is not None and off.statsd is None


@pytest.mark.parametrize(
    "line",
    ['statsd = "127.0.0.1"', 'statsd = "127.0.0.1:0"', 'statsd = "a b:1"', 'statsd = ":8125"', "statsd = 8125",
     'statsd = "2001:db8::1:8125"', 'statsd_prefix = "a..b"', 'statsd_prefix = "a:b"'],
)  # fmt: skip
def test_what_is_no_server(line: str) -> None:
    with pytest.raises(AnycastlbError) as failed:
        settings.parse(f"{NODE}{line}\n")
    assert f"http.{line.split()[0]}" in str(failed.value) and "such as" in str(failed.value)


async def test_a_fault_in_one_report_stops_no_other() -> None:
    asked = 0

    async def count() -> HttpCounters | None:
        nonlocal asked
        asked += 1
        raise ZeroDivisionError

    reporting = asyncio.ensure_future(report(("127.0.0.1", 9), "ELB", count, dict, 0.001))  # noqa: TID251
    await eventually(lambda: asked > 2)
    reporting.cancel()
