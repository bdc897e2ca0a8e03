"""Where checks may go: by the rule that every node has, by the networks of its settings, and never to its own API."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from ipaddress import ip_address, ip_network

import pytest

from anycastlb.adapters.checks import PARAMS, types
from anycastlb.adapters.checks.probe.reach import FRESH, Reach
from anycastlb.adapters.system.route_lookup import is_own
from anycastlb.core.catalog.check import DocumentPath, parse_check
from anycastlb.core.model import Address, Check, ForwardPath
from anycastlb.settings import ChecksSettings, parse
from tests.support.checks import lean_attempt, run

SETTINGS = parse('[node]\nvip_ranges = ["192.0.2.0/24"]\n[api]\nlisten = ["127.0.0.1:4672", "[::1]:4672"]')
OWN = frozenset(map(ip_address, ("10.1.0.9", "192.0.2.10", "2001:db8::9")))


def reach(networks: Iterable[str] = (), **given: object) -> Reach:
    return Reach(map(ip_network, networks), SETTINGS.closed, OWN.__contains__, **given)  # type: ignore[arg-type]


def check(backend: str, port: int = 80, **document: object) -> Check:
    """As the catalog's parser makes it."""
    where = DocumentPath("services/web", "check", PARAMS, {})
    return parse_check(where, {"type": "http", **document}, ip_address(backend), port, through=False)


ALLOWED = {
    "a backend": check("10.1.0.1"),
    "a backend of IPv6": check("2001:db8:1::1"),
    "another host": check("10.1.0.1", address="10.3.0.1"),
    "a backend on the loopback": check("127.0.0.1"),
    "its other port": check("127.0.0.1", port=8080),
    "a backend on a link": check("169.254.7.7"),
    "a backend that is this node": check("10.1.0.9"),
    "its address, written out": check("10.1.0.9", address="10.1.0.9"),
    "a proxy elsewhere": check("10.1.0.1", proxy="http://10.3.0.8:3128"),
    "the same port on another host": check("10.1.0.1", 4672),
}
REFUSED = {
    "the loopback": check("10.1.0.1", address="127.0.0.1"),
    "all of it": check("10.1.0.1", address="127.9.9.9"),
    "IPv6's": check("10.1.0.1", address="::1"),
    "another way to write it": check("10.1.0.1", address="::ffff:127.0.0.1"),
    "metadata of a cloud": check("10.1.0.1", address="169.254.169.254"),
    "a link's address": check("10.1.0.1", address="fe80::1"),
    "this node": check("10.1.0.1", address="10.1.0.9"),
    "this node in IPv6": check("10.1.0.1", address="2001:db8::9"),
    "a VIP it has": check("10.1.0.1", address="192.0.2.10"),
    "a proxy here": check("10.1.0.1", proxy="http://127.0.0.1:3128"),
    "a proxy on a backend that is this node": check("127.0.0.1", proxy="http://127.0.0.1:3128"),
    "a proxy at no address, which is the loopback": check("10.1.0.1", proxy="http://0.0.0.0:3128"),
    "the same in IPv6": check("10.1.0.1", proxy="http://[::]:3128"),
    "the same in IPv6 clothes": check("10.1.0.1", address="10.3.0.1", proxy="http://[::ffff:0.0.0.0]:3128"),
}
CLOSED = {
    "the API": check("10.1.0.1", address="127.0.0.1", port=4672),
    "as a backend": check("127.0.0.1", 4672),
    "on IPv6": check("::1", 4672),
    "written otherwise": check("::ffff:127.0.0.1", 4672),
    "by another address of the node": check("10.1.0.9", 4672),
    "elsewhere on the loopback": check("127.0.0.2", 4672),
    "Consul's agent": check("127.0.0.1", 8500, method="PUT", send="x"),
    "through a proxy": check("10.1.0.1", proxy="http://127.0.0.1:4672"),
    "by no address at all": check("10.1.0.1", proxy="http://0.0.0.0:4672"),
    "by none in IPv6": check("10.1.0.1", proxy="http://[::]:8500"),
    "by none in IPv6 clothes": check("10.1.0.1", proxy="http://[::ffff:0.0.0.0]:4672"),
    "a backend that is none": check("::ffff:0.0.0.0", 4672),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_where_checks_go(name: str) -> None:
    assert reach().refusal(ALLOWED[name]) == ""


@pytest.mark.parametrize("name", REFUSED)
def test_where_checks_do_not_go(name: str) -> None:
    why = reach().refusal(REFUSED[name])
    assert "not the backend's" in why and "[checks] networks" in why


@pytest.mark.parametrize("name", CLOSED)
@pytest.mark.parametrize("networks", [(), ("0.0.0.0/0", "::/0")])
def test_where_they_never_go(name: str, networks: tuple[str, ...]) -> None:
    assert "no check may use" in reach(networks).refusal(CLOSED[name])


@pytest.mark.parametrize("networks", [(), ("0.0.0.0/0", "::/0")])
def test_what_is_always_allowed_is_not_asked_of_the_kernel(networks: tuple[str, ...]) -> None:
    def ask(address: Address) -> bool:
        raise AssertionError(address)

    asking = Reach(map(ip_network, networks), SETTINGS.closed, ask)
    for allowed in (ALLOWED["a backend"], ALLOWED["a backend that is this node"], ALLOWED["a backend on the loopback"]):
        assert asking.always_allows(allowed) and asking.refusal(allowed) == ""
    assert not any(map(asking.always_allows, CLOSED.values()))
    assert not asking.always_allows(ALLOWED["the same port on another host"]), "it may become this node's address"
    assert asking.always_allows(ALLOWED["another host"]) == bool(networks)
    assert not any(map(reach().always_allows, REFUSED.values()))


def test_the_networks_of_the_settings_decide() -> None:
    only = reach(["10.1.0.0/16", "127.0.0.0/8", "169.254.0.0/16"])
    for allowed in (
        check("10.1.0.1"),
        check("10.1.0.1", address="127.0.0.1"),
        check("10.1.0.1", address="169.254.1.1"),
    ):
        assert only.refusal(allowed) == ""
    for other in (check("10.3.0.1"), check("10.1.0.1", address="10.3.0.1"), check("2001:db8:1::1")):
        assert "none of this node's [checks] networks (10.1.0.0/16, 127.0.0.0/8" in only.refusal(other)


def test_through_ipvs_the_backend_counts() -> None:
    def through(address: str, port: int) -> Check:
        via = ForwardPath(ip_address(address), "nat", 0, 4, port)
        return Check("http", ip_address("192.0.2.10"), 80, PARAMS["http"](), 1, 1, 1, 1, via=via)

    assert reach().refusal(through("10.1.0.1", 8080)) == ""
    assert "no check may use" in reach().refusal(through("10.1.0.9", 4672))
    assert "networks" in reach(["10.3.0.0/16"]).refusal(through("10.1.0.1", 8080))


def test_an_address_that_the_node_gets_later_counts_soon() -> None:
    now, own = [0.0], set[Address]()
    later = Reach(own=own.__contains__, clock=lambda: now[0])
    aimed = check("10.1.0.1", address="192.0.2.77")
    assert later.refusal(aimed) == ""
    own.add(ip_address("192.0.2.77"))
    now[0] += FRESH + 1
    assert "this node's own" in later.refusal(aimed)


def test_the_kernel_says_which_addresses_are_ours() -> None:
    """Also where it would answer from another one of them."""
    assert is_own(ip_address("127.0.0.1")) and is_own(ip_address("127.9.9.9")) and not is_own(ip_address("192.0.2.77"))


@pytest.mark.parametrize("lean", [False, True])
@pytest.mark.parametrize("kind", ["http", "tcp", "all", "any", "agent", "dns", "udp", "syslog"])
async def test_nothing_is_sent_to_where_a_check_must_not_go(
    kind: str, lean: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listener on the loopback, and a check of another backend that names it, alone or inside of another check."""
    monkeypatch.setattr("tests.support.checks.lean", lean)
    made = types(ChecksSettings(), reach())
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
    ):
        port = listener.getsockname()[1]
        datagrams.bind(("127.0.0.1", port))
        document: dict[str, object] = {"type": kind, "address": "127.0.0.1", "port": port, "timeout": "1s"}
        if kind in ("all", "any"):
            document["checks"] = [{"type": "http", "method": "POST", "send": "x"}, {"type": "tcp"}]
        if kind == "dns":
            document["name"] = "example.org"
        aimed = check("10.1.0.1", **document)
        result = await run(aimed, made)
        assert not result.ok and "not tried: 127.0.0.1 is this node's own" in result.detail
        for sock in (listener, datagrams):
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                sock.recv(1) if sock is datagrams else sock.accept()


async def test_what_is_allowed_is_sent_by_both_engines() -> None:
    made = types(ChecksSettings(), reach())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        aimed = check("127.0.0.1", listener.getsockname()[1], type="tcp")
        exchange = made["tcp"].lean(aimed)
        assert exchange is not None
        assert (await lean_attempt(aimed, exchange)).result.ok
        assert (await run(aimed, made)).ok


async def test_a_redirect_leads_nowhere_but_to_the_backend_again() -> None:
    """The name in a Location is never looked up: it goes into the Host header of a request to the same backend."""
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        last = len(asked) > 1
        head = b"200 OK" if last else b"302 Found\r\nLocation: http://127.0.0.1:4672/v1/confirm"
        writer.write(b"HTTP/1.1 " + head + b"\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        aimed = check("127.0.0.1", server.sockets[0].getsockname()[1], redirects=1)
        assert (await run(aimed, types(ChecksSettings(), reach()))).ok
    assert [b"Host: 127.0.0.1:4672" in request for request in asked] == [False, True]


def test_the_settings_close_the_doors_of_the_node() -> None:
    def closed(more: str) -> set[str]:
        closed_networks = parse(f'[node]\nvip_ranges = ["192.0.2.0/24"]\n{more}').closed
        return {f"{address} {port}" for address, port in closed_networks}

    assert closed("") == {"127.0.0.1 4672", "127.0.0.1 8500"}
    assert closed('[consul]\naddress = "https://localhost"') == {"127.0.0.1 4672", "127.0.0.1 443", "::1 443"}
    assert closed('[consul]\naddress = "http://[2001:db8::1]:8500"') == {"127.0.0.1 4672", "2001:db8::1 8500"}
    assert closed('[consul]\naddress = "http://consul.example:8500"') == {"127.0.0.1 4672"}
