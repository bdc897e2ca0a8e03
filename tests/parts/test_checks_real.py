"""``dns``, ``syslog``, ``icmp`` and ``udp`` against the real thing: NSD, rsyslogd, and the kernel."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from anycastlb.adapters.checks import TYPES
from anycastlb.core.model import Check
from tests.lab.process import freeze, members, thaw
from tests.support import netns
from tests.support.checks import run
from tests.support.nsd import configuration
from tests.support.ports import free_port
from tests.support.servers import silent

Require = Callable[[str], str]
LOCALS = ("127.0.0.1", "::1")


async def outcome(
    kind: str, port: int, host: str = "127.0.0.1", timeout: float = 5.0, **params: Any
) -> tuple[bool, str]:
    given = Check(kind, ip_address(host), port, TYPES[kind].params.model_validate(params), 1.0, timeout, 1, 1)
    result = await run(given)
    return result.ok, result.detail


async def until(ask: Callable[[], Any], wanted: Any, within: float = 120.0) -> None:
    """Ask until it is so. Fails with the last answer."""
    end = time.monotonic() + within
    while (answer := await ask()) != wanted:
        assert time.monotonic() < end, answer
        await asyncio.sleep(0.05)


def running(argv: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


# ---------------------------------------------------------------- dns: NSD

ZONE = """$ORIGIN example.org.
$TTL 60
@ SOA ns hostmaster 7 2 3 4 5
@ NS ns
@ MX 10 mail
ns A 192.0.2.53
www A 192.0.2.1
www A 192.0.2.2
six AAAA 2001:db8::6
text TXT "v=spf1 -all"
alias CNAME www
bind HTTPS 1 . alpn=h2
""" + "".join(f"long TXT {'x' * 200}{number}\n" for number in range(20))


@pytest.fixture(scope="module")
def name_server(require: Require, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """An authoritative server for example.org: its port and its process."""
    program, folder, port = require("nsd"), tmp_path_factory.mktemp("nsd"), free_port()
    (folder / "zone").write_text(ZONE)
    (folder / "nsd.conf").write_text(configuration(folder, port, LOCALS))
    for process in running([program, "-d", "-c", str(folder / "nsd.conf")], folder / "log"):
        yield port, process.pid


@pytest.fixture
async def names(name_server: tuple[int, int]) -> int:
    """The port, once it answers."""
    port = name_server[0]
    for host in LOCALS:
        await until(lambda host=host: up("dns", port, host, name="example.org", qtype="SOA"), True)
    return port


async def up(kind: str, port: int, host: str = "127.0.0.1", timeout: float = 0.5, **params: Any) -> bool:
    return (await outcome(kind, port, host, timeout, **params))[0]


@pytest.mark.parametrize("host", LOCALS)
@pytest.mark.parametrize("protocol", ["udp", "tcp"])
@pytest.mark.parametrize(
    ("params", "ok", "detail"),
    [
        ({"name": "www.example.org"}, True, "NOERROR: '192.0.2."),
        ({"name": "www.example.org.", "answer": "re:^192\\.0\\.2\\.2$"}, True, "NOERROR: '192.0.2."),
        ({"name": "WWW.Example.ORG", "recursion": False}, True, "NOERROR: '192.0.2."),
        ({"name": "six.example.org", "qtype": "AAAA", "answer": "2001:db8::6"}, True, "NOERROR: '2001:db8::6'"),
        ({"name": "six.example.org", "qtype": "A"}, True, "NOERROR, no records"),
        ({"name": "www.example.org", "qtype": "AAAA", "answer": ":"}, False, "NOERROR without an answer"),
        ({"name": "example.org", "qtype": "MX"}, True, "NOERROR: '10 mail.example.org.'"),
        ({"name": "example.org", "qtype": "NS"}, True, "NOERROR: 'ns.example.org.'"),
        ({"name": "example.org", "qtype": "SOA", "answer": " 7 2 3"}, True, "NOERROR: 'ns.example.org. hostmaster"),
        ({"name": "text.example.org", "qtype": "TXT"}, True, "NOERROR: '\"v=spf1 -all\"'"),
        ({"name": "bind.example.org", "qtype": "TYPE65"}, True, "NOERROR: '1 . alpn="),
        ({"name": "alias.example.org"}, True, "NOERROR: 'www.example.org.; 192.0.2."),
        ({"name": "nobody.example.org"}, False, "NXDOMAIN, expected NOERROR"),
        ({"name": "nobody.example.org", "rcode": 3}, True, "NXDOMAIN, no records"),
        ({"name": "example.com", "rcode": "REFUSED"}, True, "REFUSED, no records"),
        ({"name": "long.example.org", "qtype": "TXT", "answer": "xxx19"}, True, "NOERROR: '\"xxxx"),
    ],
)  # fmt: skip
async def test_dns(names: int, host: str, protocol: str, params: dict[str, Any], ok: bool, detail: str) -> None:
    result = await outcome("dns", names, host, protocol=protocol, **params)
    assert result[0] is ok and result[1].startswith(detail), result


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
async def test_a_name_server_that_hangs_is_down_and_comes_back(
    names: int, name_server: tuple[int, int], protocol: str
) -> None:
    ask = {"name": "www.example.org", "protocol": protocol, "timeout": 0.3}
    for pid in members(name_server[1]):
        freeze(pid)
    try:
        assert await outcome("dns", names, **ask) == (False, "no answer within 0.3 s")
    finally:
        for pid in members(name_server[1]):
            thaw(pid)
    await until(lambda: up("dns", names, **ask), True)


# ---------------------------------------------------------------- syslog: rsyslogd

RSYSLOG = """
global(workDirectory="{folder}")
module(load="imtcp")
module(load="imudp")
template(name="fields" type="string"
         string="%syslogfacility-text%.%syslogseverity-text% %app-name% %hostname% %timestamp%|%msg%|\\n")
input(type="imtcp" port="{port}" address="127.0.0.1")
input(type="imudp" port="{port}" address="127.0.0.1")
*.* action(type="omfile" file="{folder}/messages" template="fields")
"""


@pytest.fixture(scope="module")
def log_server(require: Require, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int, Path]]:
    """Its port, its process and the file of its messages."""
    program, folder, port = require("rsyslogd"), tmp_path_factory.mktemp("rsyslog"), free_port()
    (folder / "conf").write_text(RSYSLOG.format(folder=folder, port=port))
    argv = [program, "-n", "-f", str(folder / "conf"), "-i", str(folder / "pid")]
    for process in running(argv, folder / "log"):
        yield port, process.pid, folder / "messages"


@pytest.fixture
async def log(log_server: tuple[int, int, Path]) -> int:
    await until(lambda: up("syslog", log_server[0], message="are you there?"), True)
    return log_server[0]


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"message": "by line", "level": "notice", "facility": "local5"}, "local5.notice anycastlb {host} "),
        ({"message": "by count", "framing": "octets", "level": 3, "facility": 3}, "daemon.err anycastlb {host} "),
        ({"message": "by datagram", "protocol": "udp", "quiet": "50ms"}, "syslog.info anycastlb {host} "),
        ({"message": "in a hurry", "confirm": False}, "syslog.info anycastlb {host} "),
    ],
)
async def test_syslog_takes_the_message(
    log: int, log_server: tuple[int, int, Path], params: dict[str, Any], text: str
) -> None:
    assert (await outcome("syslog", log, **params))[0]

    async def written() -> list[str]:
        lines = log_server[2].read_text().splitlines()
        return [line.partition("|")[0] for line in lines if f"{params['message']}|" in line]

    await until(lambda: _beginnings(written, text.format(host=os.uname().nodename)), 1)


async def _beginnings(written: Callable[[], Awaitable[list[str]]], text: str) -> int:
    """How many lines there are, each of which must begin like this."""
    lines = await written()
    assert all(line.startswith(text) for line in lines), lines
    return len(lines)


async def test_a_syslog_server_that_hangs_is_down_and_comes_back(log: int, log_server: tuple[int, int, Path]) -> None:
    freeze(log_server[1])
    try:
        assert await outcome("syslog", log, timeout=0.3) == (False, "no answer within 0.3 s")
    finally:
        thaw(log_server[1])
    await until(lambda: up("syslog", log), True)


async def test_syslog_has_a_port_of_its_own(network: None) -> None:
    """For a backend that has none, such as one of a service of every port."""
    assert await outcome("syslog", 0) == (False, "connection refused")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await silent(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 514)
    assert await outcome("syslog", 0) == (True, "sent and read")
    server.close()


# ---------------------------------------------------------------- the kernel

PINGS = Path("/proc/sys/net/ipv4/ping_group_range")


@pytest.fixture
def network(require: Require) -> Iterator[None]:
    """A network of our own, in which everybody may ping."""
    require("kernel")
    with netns.fresh():
        PINGS.write_text("0 2147483647")
        yield


@pytest.mark.parametrize("host", LOCALS)
@pytest.mark.parametrize("size", [16, 56, 9000])
async def test_icmp(network: None, host: str, size: int) -> None:
    ok, detail = await outcome("icmp", 0, host, size=size)
    assert ok and detail.startswith("a reply after "), detail


@pytest.mark.parametrize("host", LOCALS)
async def test_icmp_without_leave_names_the_sysctl(network: None, host: str) -> None:
    PINGS.write_text("1 0")
    ok, detail = await outcome("icmp", 0, host)
    assert not ok and 'sysctl net.ipv4.ping_group_range = "0 2147483647"' in detail


async def test_icmp_of_a_host_that_is_not_there(network: None) -> None:
    netns.run("ip", "link", "add", "hole", "type", "dummy")
    netns.run("ip", "addr", "add", "192.0.2.1/24", "dev", "hole")
    netns.run("ip", "link", "set", "hole", "up")
    assert await outcome("icmp", 0, "192.0.2.9", timeout=0.3) == (False, "no answer within 0.3 s")
    assert await outcome("icmp", 0, "198.51.100.1") == (False, "network is unreachable")


async def test_pings_leave_nothing_behind(network: None) -> None:
    async def many() -> tuple[int, int]:
        for _ in range(20):
            results = await asyncio.gather(*(outcome("icmp", 0, host) for host in LOCALS * 25))
            assert all(ok for ok, _ in results)
        return len(list(Path("/proc/self/fd").iterdir())), len(asyncio.all_tasks())

    before = await many()
    assert await many() == before


@pytest.mark.parametrize(("kind", "params"), [("udp", {}), ("syslog", {"protocol": "udp"}), ("icmp", {})])
async def test_a_host_unreachable_is_down(network: None, kind: str, params: dict[str, Any]) -> None:
    """Not only a port: nobody answers for the address on the wire, and the kernel says so."""
    netns.run("ip", "link", "add", "near", "type", "veth", "peer", "name", "far")
    netns.run("ip", "addr", "add", "192.0.2.1/24", "dev", "near")
    for end in ("near", "far"):
        netns.run("ip", "link", "set", end, "up")
    Path("/proc/sys/net/ipv4/neigh/near/retrans_time_ms").write_text("50")
    assert await outcome(kind, 9, "192.0.2.9", **params) == (False, "no route to host")
