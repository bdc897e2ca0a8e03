"""Where a probe through IPVS starts: source address, range and port, by the real routes of a machine."""

from __future__ import annotations

import socket
from ipaddress import ip_address, ip_network

import pytest

from anycastlb.adapters.checks.probe import sockets
from anycastlb.adapters.checks.probe.path import find_path, routed
from anycastlb.core.model import ForwardPath, ProbePath
from tests.support.netns import run

VIPS = (ip_network("192.0.2.0/24"), ip_network("2001:db8:2::/64"))


@pytest.fixture
def machine(netns: None) -> None:
    """One network, a router on it, and VIPs on the loopback."""
    for command in (
        "link add lan type dummy",
        "addr add 10.1.0.11/24 dev lan",
        "addr add fd00:1::b/64 dev lan nodad",
        "link set lan up",
        "route add default via 10.1.0.254",
        "route add default via fd00:1::fe",
        "addr add 192.0.2.10/32 dev lo",
        "addr add 2001:db8:2::10/128 dev lo nodad",
    ):
        run("ip", *command.split())


def via(address: str, forward: str = "dr", family: int = 0) -> ForwardPath:
    found = ip_address(address)
    return ForwardPath(found, forward, 0, family or found.version)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("way", "source", "hops"),
    [
        (via("10.1.0.1"), "10.1.0.11", 3),
        (via("10.1.0.1", "tunnel"), "10.1.0.11", 3),
        (via("10.1.0.1", "nat"), "10.1.0.11", None),
        (via("10.7.0.1", "tunnel"), "10.1.0.11", None),
        (via("fd00:1::1"), "fd00:1::b", 3),
        (via("fd00:7::1", "tunnel"), "fd00:1::b", None),
        (via("fd00:1::1", "tunnel", 4), "10.1.0.11", 3),
        (via("10.1.0.1", "tunnel", 6), "fd00:1::b", 3),
    ],
    ids=str,
)
def test_a_probe_goes_as_far_as_its_backend(machine: None, way: ForwardPath, source: str, hops: int | None) -> None:
    assert find_path(way, 7, VIPS) == ProbePath(7, ip_address(source), hops)


def test_an_address_that_changes_is_seen_at_once(machine: None) -> None:
    assert find_path(via("10.1.0.1"), 7).source == ip_address("10.1.0.11")
    run("ip", "addr", "add", "10.1.0.12/24", "dev", "lan")
    run("ip", "route", "change", "10.1.0.0/24", "dev", "lan", "src", "10.1.0.12")
    assert find_path(via("10.1.0.1"), 7).source == ip_address("10.1.0.12")


def test_no_probe_is_sent_from_a_vip(machine: None) -> None:
    run("ip", "addr", "flush", "dev", "lan")
    run("ip", "route", "add", "10.1.0.0/24", "dev", "lan", "src", "192.0.2.10")
    with pytest.raises(OSError, match=r"only IPv4 address towards 10\.1\.0\.1 is the VIP 192\.0\.2\.10"):
        find_path(via("10.1.0.1"), 7, VIPS)


def test_without_a_route_there_is_no_lane(netns: None) -> None:
    for way in (via("10.1.0.1"), via("fd00:1::1")):
        with pytest.raises(OSError, match="unreachable"):
            find_path(way, 7)
    with pytest.raises(OSError, match="unreachable"):
        routed(ip_address("10.1.0.1"))


@pytest.mark.parametrize("source", ["10.1.0.11", "fd00:1::b"])
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_socket_takes_its_lane(machine: None, kind: int, source: str) -> None:
    probe_path = ProbePath(0x414C0001, ip_address(source), 3)
    with sockets.opened(sockets.family(probe_path.source), kind, probe_path) as sock:
        assert sock.getsockname()[0] == source
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) == probe_path.mark
        level = (socket.SOL_IP, socket.IP_TTL)
        if probe_path.source.version == 6:
            level = (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS)
        assert sock.getsockopt(*level) == 3


def test_no_port_of_a_datagram_comes_again_soon(machine: None) -> None:
    """By nat, IPVS remembers for minutes which backend a port belongs to."""
    ports = []
    for number in range(5000):
        with sockets.opened(socket.AF_INET, socket.SOCK_DGRAM, ProbePath(number, ip_address("10.1.0.11"))) as sock:
            ports.append(sock.getsockname()[1])
    assert len(set(ports)) == len(ports)


def test_a_port_in_use_is_passed_over(machine: None) -> None:
    probe_path = ProbePath(7, ip_address("10.1.0.11"))
    with sockets.opened(socket.AF_INET, socket.SOCK_DGRAM, probe_path) as first:
        port = first.getsockname()[1]
    taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    following = port + 1 if port < 60999 else 32768
    with taken:
        taken.bind(("10.1.0.11", following))
        with sockets.opened(socket.AF_INET, socket.SOCK_DGRAM, probe_path) as second:
            assert second.getsockname()[1] not in (port, following)
