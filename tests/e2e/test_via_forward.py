"""Checks that take the way of the real traffic: to the VIP, through IPVS, to one backend."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from anycastlb.adapters.checks.probe.sockets import opened
from anycastlb.adapters.drivers.ipvs.driver import load_module
from anycastlb.core.model import MARKS, Address, ProbePath
from tests.lab.backend import Backend
from tests.lab.lab import CHECK, Lab, document
from tests.lab.node import Node
from tests.lab.process import until
from tests.lab.server import ALTERNATE, DNS, ECHO
from tests.lab.topology import BACKENDS, own, vip

HTTP = {**CHECK, "via": "forward"}
TCP = {"type": "tcp", "interval": "200ms", "timeout": "200ms", "rise": 2, "fall": 3, "via": "forward"}
ACCEPT_LOCAL = {f"net/ipv4/conf/{name}/accept_local": "0" for name in ("all", "lan", "uplink")}


@pytest.fixture(autouse=True)
def plain_sysctls(lab: Lab) -> None:
    """What the daemon needs it must set itself."""
    for node in lab.nodes.values():
        node.namespace.sysctl(ACCEPT_LOCAL)


def serve(lab: Lab, forward: str, version: int = 4, check: dict[str, Any] = HTTP, **more: Any) -> Address:
    """Serve the first VIP of the family with this check; until both nodes use every backend."""
    address = vip(0, version)
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
    lab.lb1.until(lambda: weights(lab, address, name, port) == [0, 0], 5, f"{name} has weight 0 on both nodes")
    for other in set(BACKENDS) - {name}:
        assert all(weight > 0 for weight in weights(lab, address, other, port)), other


def found_up(lab: Lab, address: Address, name: str = "b2", port: int = 80) -> None:
    lab.lb1.until(lambda: min(weights(lab, address, name, port)) > 0, 5, f"{name} has its weight again on both nodes")


def probes(node: Node) -> list[str]:
    """The kernel's rows of probes, as ``ipvsadm`` says them."""
    low, high = MARKS
    lines = node.namespace.run("ipvsadm", "-Sn").splitlines()
    return sorted(line for line in lines if line.split()[1] == "-f" and low <= int(line.split()[2]) <= high)


def probe_paths(node: Node, version: int = 4) -> dict[str, ProbePath]:
    """Backend -> how the node's own probes reach it, read from its kernel."""
    found = {}
    for words in map(str.split, probes(node)):
        if words[0] == "-a":
            address = words[words.index("-r") + 1].rpartition(":")[0].strip("[]")
            names = {own(name, version): name for name in BACKENDS}
            if address in names:
                found[names[address]] = ProbePath(int(words[2]), ip_address(own(node.name, version)))
    return found


@contextmanager
def without_vip(backend: Backend, address: Address) -> Iterator[None]:
    backend.namespace.ip(f"addr del {address}/{address.max_prefixlen} dev lo")
    try:
        yield
    finally:
        backend.namespace.ip(f"addr add {address}/{address.max_prefixlen} dev lo")


# ---------------------------------------------------------------- what only this way can see


@pytest.mark.parametrize("check", [HTTP, TCP], ids=["http", "tcp"])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("forward", ["tunnel", "dr"])
def test_a_backend_without_the_vip_is_found_down(lab: Lab, forward: str, version: int, check: dict[str, Any]) -> None:
    """It answers plain checks on its own address all the time."""
    address = serve(lab, forward, version, check)
    control = document(vip(1, version), forward, check=CHECK)  # the same backends, checked directly
    lab.put("plain", control)
    lab.settle(vip(1, version))

    with without_vip(lab.backends["b2"], address):
        found_down(lab, address)
        plain = lab.lb1.ipvs()[f"tcp [{vip(1, 6)}]:80" if version == 6 else f"tcp {vip(1)}:80"]
        assert all(weight > 0 for weight in plain.values()), plain
        assert lab.router.routes(address) == set(lab.nodes)
        assert set(lab.client.spread(30, address)) == {"b1", "b3"}
    found_up(lab, address)


@pytest.mark.parametrize(("version", "interface"), [(4, "tunl0"), (6, "ip6tnl0")])
def test_a_backend_that_does_not_decapsulate_is_found_down(lab: Lab, version: int, interface: str) -> None:
    address = serve(lab, "tunnel", version)
    lab.backends["b2"].namespace.ip(f"link set {interface} down")
    try:
        found_down(lab, address)
    finally:
        lab.backends["b2"].namespace.ip(f"link set {interface} up")
    found_up(lab, address)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("port", [80, ALTERNATE])
def test_nat_is_checked_on_the_port_it_maps_to(lab: Lab, version: int, port: int) -> None:
    backends = {name: {"address": own(name, version), "port": port} for name in BACKENDS}
    address = serve(lab, "nat", version, backends=backends)
    lab.backends["b2"].fail()
    found_down(lab, address, port=port)
    lab.backends["b2"].heal()
    found_up(lab, address, port=port)


def test_datagrams_take_the_same_way(lab: Lab) -> None:
    check = {**TCP, "type": "udp", "send": "who?", "expect": "b"}
    lab.put("dns", document(vip(0), "dr", port=DNS, protocol="udp", check=check))
    lab.settle(vip(0))
    lab.backends["b2"].kill()
    gone = f"{own('b2')}:{DNS}"
    lab.lb1.until(lambda: lab.lb1.ipvs()[f"udp {vip(0)}:{DNS}"][gone] == 0, 5, "b2 has weight 0")
    assert [weight > 0 for weight in lab.lb1.ipvs()[f"udp {vip(0)}:{DNS}"].values()].count(True) == 2
    lab.backends["b2"].restore()
    lab.lb1.until(lambda: lab.lb1.ipvs()[f"udp {vip(0)}:{DNS}"][gone] > 0, 5, "b2 has its weight again")


@pytest.mark.parametrize("harm", ["kill", "fail", "freeze"])
def test_a_backend_dies(lab: Lab, harm: str) -> None:
    address = serve(lab, "tunnel")
    getattr(lab.backends["b2"], harm)()
    found_down(lab, address)
    lab.backends["b2"].restore()
    found_up(lab, address)


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
            lab.lb1.until(lambda: serving() == [2, 2], 5, "one backend has weight 0 on both nodes")
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
    ask: Ask, node: Node, address: Address, ways: dict[str, ProbePath], rounds: int, timeout: float = 5
) -> Counter[tuple[str, str]]:
    """(meant, answered) -> how often; some at a time, those of all backends mixed."""
    found: Counter[tuple[str, str]] = Counter()
    for _ in range(0, rounds, 10):
        meant = [name for _ in range(10) for name in ways]
        answers = await asyncio.gather(*(who(ask, node, address, ways[name], timeout) for name in meant))
        found.update(zip(meant, answers, strict=True))
    return found


@pytest.mark.parametrize("ask", [echoed, answered], ids=["tcp", "udp"])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("forward", ["tunnel", "dr"])
async def test_a_probe_reaches_exactly_its_backend(lab: Lab, forward: str, version: int, ask: Ask) -> None:
    address = serve(lab, forward, version, TCP)
    found = await asked(ask, lab.lb1, address, probe_paths(lab.lb1, version), 100)
    assert found == {(name, name): 100 for name in BACKENDS}


@pytest.mark.parametrize("version", [4, 6])
async def test_a_probe_by_nat_reaches_exactly_its_backend(lab: Lab, version: int) -> None:
    backends = {name: {"address": own(name, version), "port": ECHO} for name in BACKENDS}
    address = serve(lab, "nat", version, TCP, port=ECHO, backends=backends)
    found = await asked(echoed, lab.lb1, address, probe_paths(lab.lb1, version), 100)
    assert found == {(name, name): 100 for name in BACKENDS}


async def test_connections_of_a_dead_backend_mislead_no_probe(lab: Lab) -> None:
    """A probe that was never answered leaves an entry in IPVS for a minute: nobody may come from its port again."""
    address = serve(lab, "dr", check=TCP)
    ways = probe_paths(lab.lb1)
    lab.lb1.namespace.ip(f"neigh replace {own('b2')} lladdr 02:00:00:00:00:ff dev lan nud permanent")  # nobody's
    try:
        dead = await asked(echoed, lab.lb1, address, {"b2": ways["b2"]}, 500, timeout=0.01)
    finally:
        lab.lb1.namespace.ip(f"neigh del {own('b2')} dev lan")
    assert dead == {("b2", ""): 500}
    lab.backends["b2"].kill()
    living = {name: ways[name] for name in ("b1", "b3")}
    assert await asked(echoed, lab.lb1, address, living, 500) == {("b1", "b1"): 500, ("b3", "b3"): 500}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("forward", ["tunnel", "dr"])
def test_no_other_node_answers_for_a_backend_that_sends_probes_on(lab: Lab, forward: str, version: int) -> None:
    """It has lost the VIP and forwards: by the router, the other node and a healthy backend, a probe could succeed."""
    address = serve(lab, forward, version, {**TCP, "rise": 1})
    with lab.backends["b2"].namespace.inside():
        assert Path(f"/proc/sys/net/ipv{version}/conf/all/forwarding").read_text() == "1\n"
    with without_vip(lab.backends["b2"], address):
        found_down(lab, address)
        for _ in range(100):  # ten intervals
            assert weights(lab, address, "b2") == [0, 0]
            time.sleep(0.02)
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
    until(lambda: lab.backends["b1"].counts()["checks"] > checked + 10, 5, "b1 is checked")


def test_marks_come_and_go_with_their_backends(lab: Lab) -> None:
    lab.lb1.namespace.run("ipvsadm", "-A", "-f", "7", "-s", "rr")  # somebody else's
    lab.lb1.namespace.run("ipvsadm", "-a", "-f", "7", "-r", f"{own('b1')}:0", "-g")
    before = lab.lb1.namespace.run("ipvsadm", "-Sn")
    try:
        serve(lab, "tunnel")
        kept = probe_paths(lab.lb1)
        lab.put("web", document(vip(0), check=HTTP, backends={n: {"address": own(n)} for n in ("b1", "b3")}))
        lab.lb1.until(lambda: set(probe_paths(lab.lb1)) == {"b1", "b3"}, 5, "the mark of b2 is gone")
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
        lab.lb1.until(lambda: not probes(lab.lb1), 5, "all marks are gone")
        lab.lb1.until(lambda: lab.lb1.namespace.run("ipvsadm", "-Sn") == before, 5, "only the foreign service is left")
    finally:
        lab.lb1.namespace.run("ipvsadm", "-D", "-f", "7")


def test_rows_deleted_by_hand_come_back(lab: Lab) -> None:
    serve(lab, "dr")
    before = probes(lab.lb1)
    lab.lb1.namespace.run("ipvsadm", "-D", "-f", str(probe_paths(lab.lb1)["b2"].mark))
    lab.lb1.until(lambda: probes(lab.lb1) == before, 5, "the deleted row is back")


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
    lab.lb1.until(lambda: lab.lb1.namespace.run("cat", path) == "1\n", 5, "accept_local is set")


# ---------------------------------------------------------------- clients do not notice


def test_probes_disturb_no_client(lab: Lab) -> None:
    address = serve(lab, "tunnel", check={**HTTP, "interval": "20ms"})
    with lab.client.load(address) as load:
        for count in (2, 3, 2, 3):  # marks come and go meanwhile
            backends = {name: {"address": own(name)} for name in BACKENDS[:count]}
            lab.put("more", document(vip(1), "dr", check={**HTTP, "interval": "20ms"}, backends=backends))
            lab.lb1.until(lambda count=count: len(probes(lab.lb1)) == 2 * (3 + count), 5, "the marks have changed")
        until(lambda: load.sent > 300, 30, "300 requests")
    assert not load.failed, str(load)
    assert set(load.answered) == set(BACKENDS)
    # Of what the kernel scheduled for the service, nothing was a probe.
    counted = [node.flows for node in lab.nodes.values()]
    until(lambda: sum(sum(flow(address).values()) for flow in counted) == load.sent, 5, "only the client's are counted")
