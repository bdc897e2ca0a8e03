"""Checks that take the way of the real traffic: to the VIP, through IPVS, to one backend."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from anycastlb.adapters.checks.probe.sockets import opened
from anycastlb.adapters.drivers.ipvs.driver import load_module
from anycastlb.core.model import MARKS, Address, ProbePath
from tests.lab.backend import Backend
from tests.lab.lab import CHECK, Lab, document
from tests.lab.node import Node
from tests.lab.process import GIVE_UP, until
from tests.lab.server import ALTERNATE, DNS, ECHO
from tests.lab.topology import BACKENDS, own, vip
from tests.support.two_nodes import FRESH

HTTP = {**CHECK, "via": "forward"}
TCP = {"type": "tcp", "interval": "200ms", "timeout": "1s", "rise": 2, "fall": 3, "via": "forward"}
ACCEPT_LOCAL = {f"net/ipv4/conf/{name}/accept_local": "0" for name in ("all", "lan", "uplink")}


@pytest.fixture(autouse=True)
def plain_sysctls(lab: Lab) -> None:
    """What the daemon needs it must set itself."""
    for node in lab.nodes.values():
        node.namespace.sysctl(ACCEPT_LOCAL)


def serve(
    lab: Lab, forward: str, version: int = 4, check: dict[str, Any] = HTTP, number: int = 0, **more: Any
) -> Address:
    """Serve this VIP of the family with this check; until both nodes use every backend."""
    address = vip(number, version)
    lab.put("web", document(address, forward, **{"check": check, **more}))
    lab.settle(address)
    return address


def weights(lab: Lab, address: Address, name: str, port: int = 80) -> list[int]:
    """The backend's weight on each node."""
    service = f"tcp [{address}]:80" if address.version == 6 else f"tcp {address}:80"
    backend = own(name, address.version)
    destination = f"[{backend}]:{port}" if address.version == 6 else f"{backend}:{port}"
    return [node.ipvs().get(service, {}).get(destination, -1) for node in lab.nodes.values()]


def found_down(lab: Lab, address: Address, name: str = "b2", port: int = 80) -> None:
    lab.lb1.until(lambda: weights(lab, address, name, port) == [0, 0], f"{name} has weight 0 on both nodes")
    for other in set(BACKENDS) - {name}:
        assert all(weight > 0 for weight in weights(lab, address, other, port)), other


def found_up(lab: Lab, address: Address, name: str = "b2", port: int = 80) -> None:
    lab.lb1.until(lambda: min(weights(lab, address, name, port)) > 0, f"{name} has its weight again on both nodes")


def probes(node: Node) -> list[str]:
    """The kernel's rows of probes, as ``ipvsadm`` says them."""
    low, high = MARKS
    lines = node.namespace.run("ipvsadm", "-Sn").splitlines()
    return sorted(line for line in lines if line.split()[1] == "-f" and low <= int(line.split()[2]) <= high)


def probe_paths(node: Node, forward: str = "tunnel", version: int = 4) -> dict[str, ProbePath]:
    """Backend -> how the node's own probes reach it by a way of forwarding, read from its kernel."""
    letter = {"tunnel": "-i", "dr": "-g", "nat": "-m"}[forward]
    paths = {}
    for words in map(str.split, probes(node)):
        if words[0] == "-a" and letter in words:
            address = words[words.index("-r") + 1].rpartition(":")[0].strip("[]")
            names = {own(name, version): name for name in BACKENDS}
            if address in names:
                paths[names[address]] = ProbePath(int(words[2]), ip_address(own(node.name, version)))
    return paths


@contextmanager
def without_vip(backend: Backend, address: Address) -> Iterator[None]:
    backend.namespace.ip(f"addr del {address}/{address.max_prefixlen} dev lo")
    try:
        yield
    finally:
        backend.namespace.ip(f"addr add {address}/{address.max_prefixlen} dev lo")


# ---------------------------------------------------------------- what only this way can see


def every_way(lab: Lab, *checks: dict[str, Any]) -> dict[tuple[str, int], Address]:
    """One service by tunnel and one by direct routing in each family, the checks in turn, until both nodes use every
    backend."""
    kinds = enumerate(("tunnel", "dr"))
    ways = {(forward, version): vip(place, version) for place, forward in kinds for version in (4, 6)}
    for (forward, version), check in zip(ways, cycle(checks)):
        lab.put(f"{forward}{version}", document(ways[forward, version], forward, check=check))
    lab.settle(*ways.values())
    return ways


def test_a_backend_without_the_vip_is_found_down(lab: Lab) -> None:
    """It answers plain checks on its own address all the time."""
    ways = every_way(lab, HTTP, TCP, TCP, HTTP)
    plain = vip(2)
    lab.put("plain", document(plain, check=CHECK))  # the same backends, checked directly
    lab.settle(plain)

    with ExitStack() as stack:
        for address in ways.values():
            stack.enter_context(without_vip(lab.backends["b2"], address))
        for address in ways.values():
            found_down(lab, address)
            assert lab.router.routes(address) == set(lab.nodes)
            assert set(lab.client.spread(30, address)) == {"b1", "b3"}
        direct = lab.lb1.ipvs()[f"tcp {plain}:80"]
        assert all(weight > 0 for weight in direct.values()), direct
    for address in ways.values():
        found_up(lab, address)


def test_a_backend_that_does_not_decapsulate_is_found_down(lab: Lab) -> None:
    ways = {"tunl0": vip(0, 4), "ip6tnl0": vip(0, 6)}
    for address in ways.values():
        lab.put(f"web{address.version}", document(address, "tunnel", check=HTTP))
    lab.settle(*ways.values())
    tunnels = lab.backends["b2"].namespace
    tunnels.ip(*(f"link set {interface} down" for interface in ways))
    try:
        for address in ways.values():
            found_down(lab, address)
    finally:
        tunnels.ip(*(f"link set {interface} up" for interface in ways))
    for address in ways.values():
        found_up(lab, address)


def test_nat_is_checked_on_the_port_it_maps_to(lab: Lab) -> None:
    ways = {(port, version): vip(place, version) for place, port in enumerate((80, ALTERNATE)) for version in (4, 6)}
    for (port, version), address in ways.items():
        backends = {name: {"address": own(name, version), "port": port} for name in BACKENDS}
        lab.put(f"web{port}v{version}", document(address, "nat", check=HTTP, backends=backends))
    lab.settle(*ways.values())
    lab.backends["b2"].fail()
    for (port, _), address in ways.items():
        found_down(lab, address, port=port)
    lab.backends["b2"].heal()
    for (port, _), address in ways.items():
        found_up(lab, address, port=port)


def test_datagrams_take_the_same_way(lab: Lab) -> None:
    check = {**TCP, "type": "udp", "send": "who?", "expect": "b"}
    lab.put("dns", document(vip(0), "dr", port=DNS, protocol="udp", check=check))
    lab.settle(vip(0))
    lab.backends["b2"].kill()
    gone = f"{own('b2')}:{DNS}"
    lab.lb1.until(lambda: lab.lb1.ipvs()[f"udp {vip(0)}:{DNS}"][gone] == 0, "b2 has weight 0")
    assert [weight > 0 for weight in lab.lb1.ipvs()[f"udp {vip(0)}:{DNS}"].values()].count(True) == 2
    lab.backends["b2"].restore()
    lab.lb1.until(lambda: lab.lb1.ipvs()[f"udp {vip(0)}:{DNS}"][gone] > 0, "b2 has its weight again")


@contextmanager
def decapsulating(lab: Lab, module: str, *commands: str) -> Iterator[None]:
    """Every backend can take packets out of what the module knows; two commands of ``ip``: to begin and to end it."""
    assert not load_module(module)
    begin, end = commands
    for name, backend in lab.backends.items():
        for command in begin.format(v4=own(name), v6=own(name, 6)).split(", "):
            backend.namespace.run("ip", *command.split())
    try:
        yield
    finally:
        for backend in lab.backends.values():
            backend.namespace.run("ip", *end.split())


@pytest.mark.parametrize(
    ("forward", "setup"),
    [
        ("gue", ("fou", "fou add port 6080 gue", "fou del port 6080")),
        (
            "gre",
            (
                "ip_gre",
                "tunnel add taker mode gre local {v4} remote any, link set taker up",
                "link del taker",
            ),
        ),
    ],
)
def test_the_other_encapsulations(lab: Lab, forward: str, setup: tuple[str, str, str]) -> None:
    with decapsulating(lab, *setup):
        address = serve(lab, forward)
        with without_vip(lab.backends["b2"], address):
            found_down(lab, address)
        found_up(lab, address)


@pytest.mark.parametrize(
    ("version", "setup"),
    [
        (
            4,
            (
                "ip6_tunnel",
                "-6 tunnel add taker mode ipip6 local {v6} remote ::, link set taker up",
                "link del taker",
            ),
        ),
        (
            6,
            (
                "sit",
                "tunnel add taker mode sit local {v4} remote any, link set taker up",
                "link del taker",
            ),
        ),
    ],
)
def test_a_tunnel_through_the_other_family(lab: Lab, version: int, setup: tuple[str, str, str]) -> None:
    shown = f"tcp [{vip(0, 6)}]:80" if version == 6 else f"tcp {vip(0)}:80"

    def serving() -> list[int]:
        """How many backends have a weight on each node."""
        return [sum(map(bool, node.ipvs()[shown].values())) for node in lab.nodes.values()]

    with decapsulating(lab, *setup):
        backends = {name: {"address": own(name, 10 - version)} for name in BACKENDS}
        address = serve(lab, "tunnel", version, backends=backends)
        with without_vip(lab.backends["b2"], address):
            lab.lb1.until(lambda: serving() == [2, 2], "one backend has weight 0 on both nodes")
        lab.settle(address)


# ---------------------------------------------------------------- each probe reaches its one backend


async def echoed(loop: asyncio.AbstractEventLoop, sock: socket.socket, address: Address) -> bytes:
    await loop.sock_connect(sock, (str(address), ECHO))
    return await loop.sock_recv(sock, 100)


async def answered(loop: asyncio.AbstractEventLoop, sock: socket.socket, address: Address) -> bytes:
    await loop.sock_connect(sock, (str(address), DNS))
    await loop.sock_sendall(sock, b"who?")
    return await loop.sock_recv(sock, 100)


Ask = Callable[[asyncio.AbstractEventLoop, socket.socket, Address], Coroutine[Any, Any, bytes]]
KINDS = {echoed: socket.SOCK_STREAM, answered: socket.SOCK_DGRAM}


async def who(ask: Ask, node: Node, address: Address, probe_path: ProbePath, timeout: float) -> str:
    """The backend that answers by this probe path; empty if none does in time."""
    with node.namespace.inside():
        sock = opened(socket.AF_INET6 if address.version == 6 else socket.AF_INET, KINDS[ask], probe_path)
    with sock:
        try:
            async with asyncio.timeout(timeout):
                return (await ask(asyncio.get_running_loop(), sock, address)).decode().strip()
        except OSError:
            return ""


async def asked(
    ask: Ask, node: Node, address: Address, ways: dict[str, ProbePath], rounds: int, timeout: float = GIVE_UP
) -> Counter[tuple[str, str]]:
    """(meant, answered) -> how often; some at a time, those of all backends mixed."""
    counts: Counter[tuple[str, str]] = Counter()
    for _ in range(0, rounds, 10):
        meant = [name for _ in range(10) for name in ways]
        answers = await asyncio.gather(*(who(ask, node, address, ways[name], timeout) for name in meant))
        counts.update(zip(meant, answers, strict=True))
    return counts


@pytest.mark.parametrize("ask", [echoed, answered], ids=["tcp", "udp"])
async def test_a_probe_reaches_exactly_its_backend(lab: Lab, ask: Ask) -> None:
    for (forward, version), address in every_way(lab, TCP).items():
        answers = await asked(ask, lab.lb1, address, probe_paths(lab.lb1, forward, version), 50)
        assert answers == {(name, name): 50 for name in BACKENDS}, (forward, version)


async def test_a_probe_by_nat_reaches_exactly_its_backend(lab: Lab) -> None:
    ways = [vip(0, version) for version in (4, 6)]
    for address in ways:
        backends = {name: {"address": own(name, address.version), "port": ECHO} for name in BACKENDS}
        lab.put(f"echo{address.version}", document(address, "nat", ECHO, check=TCP, backends=backends))
    lab.settle(*ways)
    for address in ways:
        answers = await asked(echoed, lab.lb1, address, probe_paths(lab.lb1, "nat", address.version), 50)
        assert answers == {(name, name): 50 for name in BACKENDS}


async def test_connections_of_a_dead_backend_mislead_no_probe(lab: Lab) -> None:
    """A probe that was never answered leaves an entry in IPVS for a minute: nobody may come from its port again.

    The kernel goes through its ports in steps of random length, and is round after some three thousand connections.
    """
    address = serve(lab, "dr", check=TCP)
    ways = probe_paths(lab.lb1, "dr")
    lab.lb1.namespace.ip(f"neigh replace {own('b2')} lladdr 02:00:00:00:00:ff dev lan nud permanent")  # nobody's
    try:
        dead = await asked(echoed, lab.lb1, address, {"b2": ways["b2"]}, 100, timeout=0.01)
    finally:
        lab.lb1.namespace.ip(f"neigh del {own('b2')} dev lan")
    assert dead == {("b2", ""): 100}
    lab.backends["b2"].kill()
    living = {name: ways[name] for name in ("b1", "b3")}
    assert await asked(echoed, lab.lb1, address, living, 100) == {("b1", "b1"): 100, ("b3", "b3"): 100}


def test_no_other_node_answers_for_a_backend_that_sends_probes_on(lab: Lab) -> None:
    """It has lost the VIP and forwards: by the router, the other node and a healthy backend, a probe could succeed."""
    ways = every_way(lab, {**TCP, "rise": 1})
    backend = lab.backends["b2"]
    with backend.namespace.inside():
        for version in (4, 6):
            assert Path(f"/proc/sys/net/ipv{version}/conf/all/forwarding").read_text() == "1\n"
    with ExitStack() as stack:
        for address in ways.values():
            stack.enter_context(without_vip(backend, address))
        for address in ways.values():
            found_down(lab, address)
        for node in lab.nodes.values():
            seen = node.total("anycastlb_check_results_total")
            # Ten rounds: each node checks three backends by every way.
            done = seen + 10 * len(BACKENDS) * len(ways)
            while node.total("anycastlb_check_results_total") < done:
                assert all(weights(lab, address, "b2") == [0, 0] for address in ways.values())
                assert node.daemon.running
    for address in ways.values():
        found_up(lab, address)


# ---------------------------------------------------------------- rows come, stay and go


def test_marks_survive_a_restart(lab: Lab) -> None:
    address = serve(lab, "tunnel")
    before = probes(lab.lb1)
    assert len(before) == 2 * len(BACKENDS)

    lab.lb1.daemon.kill()
    lab.lb1.start()
    lab.lb1.ready()

    found_up(lab, address)
    assert probes(lab.lb1) == before
    assert lab.lb1.total("anycastlb_changes_total", 'table="services"') == 0
    assert lab.lb1.total("anycastlb_changes_total", 'table="destinations"') == 0
    checked = lab.backends["b1"].counts()["checks"]
    until(lambda: lab.backends["b1"].counts()["checks"] > checked + 10, "b1 is checked")


def test_marks_come_and_go_with_their_backends(lab: Lab) -> None:
    lab.lb1.namespace.run("ipvsadm", "-A", "-f", "7", "-s", "rr")  # somebody else's
    lab.lb1.namespace.run("ipvsadm", "-a", "-f", "7", "-r", f"{own('b1')}:0", "-g")
    before = lab.lb1.namespace.run("ipvsadm", "-Sn")
    try:
        serve(lab, "tunnel")
        kept = probe_paths(lab.lb1)
        lab.put("web", document(vip(0), check=HTTP, backends={n: {"address": own(n)} for n in ("b1", "b3")}))
        lab.lb1.until(lambda: set(probe_paths(lab.lb1)) == {"b1", "b3"}, "the mark of b2 is gone")
        assert probe_paths(lab.lb1) == {name: kept[name] for name in ("b1", "b3")}
        # A second VIP over the same backends needs no further marks.
        lab.put("more", document(vip(1), check=HTTP))
        lab.settle(vip(1))
        assert {name: probe_paths(lab.lb1)[name] for name in ("b1", "b3")} == {
            name: kept[name] for name in ("b1", "b3")
        }
        assert len(probe_paths(lab.lb1)) == 3
        lab.remove("web")
        lab.remove("more")
        lab.lb1.until(lambda: not probes(lab.lb1), "all marks are gone")
        lab.lb1.until(lambda: lab.lb1.namespace.run("ipvsadm", "-Sn") == before, "only the foreign service is left")
    finally:
        lab.lb1.namespace.run("ipvsadm", "-D", "-f", "7")


def test_rows_deleted_by_hand_come_back(lab: Lab) -> None:
    serve(lab, "dr")
    before = probes(lab.lb1)
    lab.lb1.namespace.run("ipvsadm", "-D", "-f", str(probe_paths(lab.lb1, "dr")["b2"].mark))
    lab.lb1.until(lambda: probes(lab.lb1) == before, "the deleted row is back")


def test_a_node_that_stops_leaves_no_mark(lab: Lab) -> None:
    serve(lab, "tunnel")
    assert lab.lb2.daemon.stop() == 0
    assert not probes(lab.lb2)
    lab.lb2.start()


def test_accept_local_is_set_when_a_probe_needs_it(lab: Lab) -> None:
    path = "/proc/sys/net/ipv4/conf/all/accept_local"
    lab.put("web", document(vip(0)))
    lab.settle(vip(0))
    assert lab.lb1.namespace.run("cat", path) == "0\n"
    lab.put("web", document(vip(0), check=HTTP))
    lab.lb1.until(lambda: lab.lb1.namespace.run("cat", path) == "1\n", "accept_local is set")


# ---------------------------------------------------------------- clients do not notice


def test_probes_disturb_no_client(lab: Lab) -> None:
    address = serve(lab, "tunnel", check={**HTTP, "interval": "20ms"}, number=FRESH["probes"])
    with lab.client.load(address) as load:
        for count in (2, 3, 2, 3):  # marks come and go meanwhile
            backends = {name: {"address": own(name)} for name in BACKENDS[:count]}
            lab.put("more", document(vip(1), "dr", check={**HTTP, "interval": "20ms"}, backends=backends))
            lab.lb1.until(lambda count=count: len(probes(lab.lb1)) == 2 * (3 + count), "the marks have changed")
        until(lambda: load.sent > 100, "100 requests")
    assert not load.failed, str(load)
    assert set(load.answered) == set(BACKENDS)

    # Of what the kernel scheduled for the service, nothing was a probe.
    def scheduled() -> list[int]:
        return [sum(node.flows(address).values()) for node in lab.nodes.values()]

    until(lambda: sum(scheduled()) >= load.sent, "every request of the client is counted")
    assert sum(scheduled()) == load.sent, f"by node: {scheduled()}, {load}"
