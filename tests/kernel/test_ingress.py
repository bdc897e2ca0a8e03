"""Marks at the ingress of an interface, on a real kernel: what ``tc`` shows, what is not ours, what a packet gets."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from anycastlb.adapters.drivers.ingress import IngressDriver
from anycastlb.core.model import Change, IngressKey, IngressMark
from tests.lab.harm import no_descriptors
from tests.support.netns import enter, run

VIP4, VIP6 = ip_address("192.0.2.10"), ip_address("2001:db8::10")
FOUR, SIX = IngressKey("eth0", VIP4, 443), IngressKey("eth0", VIP6, 443)
pytestmark = pytest.mark.usefixtures("netns")


@pytest.fixture(autouse=True)
def interfaces(netns: None) -> None:
    for name in ("eth0", "eth1"):
        run("ip", "link", "add", name, "type", "dummy")
        run("ip", "link", "set", name, "up")


def put(key: IngressKey, mark: int) -> Change:
    return Change("ingress_marks", key, None, IngressMark(mark))


async def seen(driver: IngressDriver) -> dict[IngressKey, int]:
    return {key: row.mark for key, row in (await driver.observe())["ingress_marks"].items()}


def shown(interface: str = "eth0") -> str:
    return run("tc", "filter", "show", "dev", interface, "ingress")


async def test_marks_are_made_changed_and_deleted() -> None:
    driver = IngressDriver(["eth0", "eth1"])
    assert await seen(driver) == {}
    other = IngressKey("eth1", VIP4, 80)
    assert not await driver.apply([put(FOUR, 7), put(SIX, 8), put(other, 9)])
    assert await seen(driver) == {FOUR: 7, SIX: 8, other: 9}
    text = shown()
    assert all(part in text for part in ("dst_ip 192.0.2.10", "dst_port 443", "skbedit", "mark 7 continue")), text
    assert "dst_ip 2001:db8::10" in text
    assert not await driver.apply([Change("ingress_marks", FOUR, IngressMark(7), IngressMark(70))])
    assert await seen(driver) == {FOUR: 70, SIX: 8, other: 9}
    gone = [Change("ingress_marks", key, IngressMark(1), None) for key in (FOUR, other)]
    assert not await driver.apply(gone)
    assert await seen(driver) == {SIX: 8}
    assert [failure.reason.code for failure in await driver.apply(gone)] == ["missing", "missing"]
    assert "192.0.2.10" not in shown()


THEIRS = ("protocol", "ip", "flower", "dst_ip", "192.0.2.10", "ip_proto", "tcp", "dst_port", "443", "action", "pass")


async def test_what_others_hang_there_is_neither_seen_nor_touched() -> None:
    run("tc", "qdisc", "add", "dev", "eth0", "ingress")
    run("tc", "filter", "add", "dev", "eth0", "ingress", "pref", "5", *THEIRS)
    run("tc", "filter", "add", "dev", "eth0", "ingress", "pref", "6", "protocol", "ip", "matchall", "action", "pass")
    before = shown()
    driver = IngressDriver(["eth0"])
    assert await seen(driver) == {}
    assert not await driver.apply([put(FOUR, 7)])
    assert await seen(driver) == {FOUR: 7}
    assert not await driver.apply([Change("ingress_marks", FOUR, IngressMark(7), None)])
    assert shown() == before


async def test_a_filter_of_others_in_our_place_is_named() -> None:
    run("tc", "qdisc", "add", "dev", "eth0", "clsact")
    run("tc", "filter", "add", "dev", "eth0", "ingress", "pref", "1041", *THEIRS)
    driver = IngressDriver(["eth0"])
    (failure,) = await driver.apply([put(FOUR, 7)])
    assert failure.reason.code == "not_ours" and "tc filter show dev eth0 ingress" in failure.reason.text
    assert await seen(driver) == {}


async def test_an_interface_that_is_not_there_has_no_marks_and_says_so() -> None:
    driver = IngressDriver(["eth0", "nosuch"])
    (failure,) = await driver.apply([put(IngressKey("nosuch", VIP4, 443), 7), put(FOUR, 7)])
    assert failure.reason.text == "there is no interface nosuch"
    assert await seen(driver) == {FOUR: 7}
    run("ip", "link", "del", "eth0")
    assert await seen(driver) == {}


async def test_a_process_that_can_open_nothing_more_knows_its_marks() -> None:
    driver = IngressDriver(["eth0"])
    assert not await driver.apply([put(FOUR, 7)])
    assert await seen(driver) == {FOUR: 7}
    with no_descriptors(os.getpid):
        assert await seen(driver) == {FOUR: 7}
    run("tc", "qdisc", "del", "dev", "eth0", "clsact")
    assert await seen(driver) == {}


@contextmanager
def neighbour() -> Iterator[int]:
    """A machine at the other end of a cable to this node, which is its way to everywhere; what ``enter`` needs."""
    run("ip", "netns", "add", "outside")
    run("ip", "link", "add", "cable", "type", "veth", "peer", "name", "end", "netns", "outside")
    run("ip", "address", "add", "10.0.0.1/24", "dev", "cable")
    run("ip", "link", "set", "cable", "up")
    run("ip", "-n", "outside", "address", "add", "10.0.0.2/24", "dev", "end")
    run("ip", "-n", "outside", "link", "set", "end", "up")
    run("ip", "-n", "outside", "route", "add", "default", "via", "10.0.0.1")
    with Path("/run/netns/outside").open() as there:
        yield there.fileno()
    run("ip", "netns", "del", "outside")


async def test_what_comes_in_is_marked_and_what_the_node_sends_itself_is_not() -> None:
    """A connection has the mark of its first packet; and filters that stand behind ours see the packet too."""
    run("sysctl", "-qw", "net.ipv4.tcp_fwmark_accept=1")
    run("ip", "address", "add", "192.0.2.10/32", "dev", "lo")
    with (
        closing(socket.create_server(("192.0.2.10", 443))) as server,
        neighbour() as there,
        Path("/proc/thread-self/ns/net").open() as home,
    ):

        def mark(namespace: int) -> int:
            """What a connection from this namespace has."""
            enter(namespace)
            try:
                client = socket.create_connection(("192.0.2.10", 443))
            finally:
                enter(home.fileno())
            connection, _ = server.accept()
            with closing(client), closing(connection):
                return connection.getsockopt(socket.SOL_SOCKET, socket.SO_MARK)

        assert mark(there) == 0
        assert not await IngressDriver(["cable"]).apply([put(IngressKey("cable", VIP4, 443), 7)])
        behind = ("pref", "2000", "protocol", "ip", "matchall", "action", "pass")
        run("tc", "filter", "add", "dev", "cable", "ingress", *behind)
        assert mark(there) == 7
        assert mark(home.fileno()) == 0
        assert not re.search(r"pref 2000 .* Sent 0 bytes", shown_with_counters("cable"), re.DOTALL)


def shown_with_counters(interface: str) -> str:
    return run("tc", "-s", "filter", "show", "dev", interface, "ingress")
