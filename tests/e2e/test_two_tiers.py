"""IPVS in front of the HAProxies of all nodes of a gateway: a connection stays with its HAProxy, whichever node the
router sends it to. Each connection is kept alive and speaks again; every answer is counted."""

from __future__ import annotations

import shutil
import ssl
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest

from anycastlb.settings import HttpSettings
from tests.lab.haproxy import NodeHaproxy
from tests.lab.http import connect
from tests.lab.lab import CHECK, Lab
from tests.lab.node import Node
from tests.lab.process import GIVE_UP
from tests.lab.topology import own, vip
from tests.support.authority import Authority
from tests.support.two_nodes import BOTH

VIP = vip(20)
"""No backend has it."""
MANY = {80: 40}
"""Connections to each port."""
SECURE = {80: 40, 443: 20}
MARK = str(HttpSettings().marks[0])
POOL = {"port": 80, "check": CHECK, "backends": {name: {"address": own(name)} for name in ("b1", "b2", "b3")}}
ROUTE = {"gateways": ["web"], "hostnames": ["*"], "rules": [{"backendRefs": [{"name": "shop"}]}]}


@pytest.fixture(scope="module")
def tiers(running_lab: Lab, require: Callable[[str], str]) -> Iterator[dict[str, NodeHaproxy]]:
    """Both nodes serve gateways, and share their connections."""
    running_lab.reset()
    program = require("haproxy-13")
    with tempfile.TemporaryDirectory(prefix="alb.") as folder, ExitStack() as stack:
        tiers = {name: NodeHaproxy(node, Path(folder) / name, program) for name, node in running_lab.nodes.items()}
        certificate = Authority(Path(folder)).issue("shop.example")
        for haproxy in tiers.values():
            shutil.copy(certificate, haproxy.certificates / "shop.pem")
        for haproxy in tiers.values():
            stack.enter_context(haproxy.driven(sharing=True))
        yield tiers
        running_lab.reset()  # while the nodes know yet what is theirs


@pytest.fixture
def lab(running_lab: Lab, tiers: dict[str, NodeHaproxy]) -> Iterator[Lab]:
    running_lab.reset()
    yield running_lab
    for haproxy in tiers.values():
        haproxy.end()


Connection = tuple[int, int]
"""Its ports at the VIP and at the client."""


class KeptAlive:
    """Connections of the client to the VIP, those to port 443 by TLS; each is asked again and again."""

    def __init__(self, lab: Lab, number: Mapping[int, int] = MANY) -> None:
        self._all: dict[Connection, HTTPConnection] = {}
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        for port in (port for port, count in number.items() for _ in range(count)):
            one = HTTPConnection(str(VIP), timeout=GIVE_UP)
            sock = connect(lab.client.namespace, str(VIP), port, GIVE_UP)
            one.sock = context.wrap_socket(sock, server_hostname="shop.example") if port == 443 else sock
            assert self._answers(one)
            self._all[port, one.sock.getsockname()[1]] = one

    @property
    def every(self) -> set[Connection]:
        return {*self._all}

    def alive(self, of: set[Connection] | None = None) -> set[Connection]:
        """Those that are answered, of all or of these."""
        return {name for name, one in self._all.items() if (of is None or name in of) and self._answers(one)}

    def close(self) -> None:
        for one in self._all.values():
            one.close()

    @staticmethod
    def _answers(one: HTTPConnection) -> bool:
        with suppress(OSError, HTTPException):
            if one.sock is None:
                return False  # it broke before: it would connect anew
            one.request("GET", "/")
            answer = one.getresponse()
            answer.read()
            return answer.status == 200
        one.close()
        return False


def served_by(node: Node, kept: KeptAlive) -> set[Connection]:
    """Those that end at this node's HAProxy. The nodes' probes end there, too."""
    shown = node.namespace.run("ss", "-Htn", "state", "established", "src", str(VIP))
    ends = [[int(end.rpartition(":")[2]) for end in line.split()[-2:]] for line in shown.splitlines()]
    return {(here, there) for here, there in ends} & kept.every


def serve(lab: Lab, tiers: dict[str, NodeHaproxy], spread: str = "mh", secure: bool = False) -> None:
    """``secure``: over TLS as well, by another gateway."""
    lab.put("shop", POOL)
    gateway: dict[str, Any] = {"vip": str(VIP), "port": 80, "protocol": "http", "spread": spread, "drain": "200ms"}
    gateway["limits"] = {"idle_timeout": "10m"}  # longer than any test: none ends by itself
    gateways = {"web": gateway}
    if secure:
        gateways["tls"] = {**gateway, "port": 443, "protocol": "https", "tls": {"certificates": ["shop"]}}
    for name, one in gateways.items():
        lab.consul.put(f"anycastlb/gateways/{name}", one)
    lab.consul.put("anycastlb/routes/all", {**ROUTE, "gateways": [*gateways]})
    for haproxy in tiers.values():
        haproxy.start()
    lab.router.until(VIP, BOTH)
    if spread == "mh":
        count = len(gateways)
        for node in lab.nodes.values():
            node.until(
                lambda node=node: (marks(node), takers(node)) == (count, [EQUAL] * count), f"{node.name} knows both"
            )
    for node in lab.nodes.values():  # a HAProxy that has started with an older file is reloaded, and ends connections
        node.until(
            lambda node=node: node.cli("plan").stdout.startswith("nothing to change"), f"{node.name} is as it is wanted"
        )


EQUAL = dict.fromkeys(map(own, BOTH), 100)


def takers(node: Node) -> list[dict[str, int]]:
    """For each gateway the nodes in this node's table, and their weights."""
    tables = [rows for service, rows in node.ipvs().items() if len(rows) > 1]
    return [{address.rpartition(":")[0]: weight for address, weight in rows.items()} for rows in tables]


def marks(node: Node) -> int:
    """How many filters at its uplink mark packets to the VIP."""
    return node.namespace.run("tc", "filter", "show", "dev", "uplink", "ingress").count(f"dst_ip {VIP}")


def test_what_a_node_serves_outlives_every_move_of_the_routes(lab: Lab, tiers: dict[str, NodeHaproxy]) -> None:
    """R23, and the same by TLS."""
    serve(lab, tiers, secure=True)
    with closing(KeptAlive(lab, SECURE)) as kept:
        every, of_lb1, of_lb2 = kept.every, served_by(lab.lb1, kept), served_by(lab.lb2, kept)
        assert of_lb1 | of_lb2 == every
        assert {port for port, _ in of_lb1} == {port for port, _ in of_lb2} == set(SECURE), "each serves some of both"
        lab.lb1.cli("drain", "lb1")
        lab.router.until(VIP, {"lb2"})
        assert kept.alive() == every, "the routes of lb1 are gone, and it serves on what it served"
        lab.lb1.cli("undrain", "lb1")
        lab.router.until(VIP, BOTH)
        assert kept.alive() == every, "the routes are back"
        lab.lb2.die()
        tiers["lb2"].kill()
        lab.router.until(VIP, {"lb1"})
        assert kept.alive(of_lb1) == of_lb1, "only what lb2 served dies with it"
        left = {own("lb1"): 100, own("lb2"): 0}
        lab.lb1.until(lambda: takers(lab.lb1) == [left, left], "lb2 gets nothing new")
        with closing(KeptAlive(lab, SECURE)) as new:
            assert served_by(lab.lb1, new) == new.every
    lab.lb2.revive()


def test_without_sharing_a_move_of_the_routes_breaks_what_it_moves(lab: Lab, tiers: dict[str, NodeHaproxy]) -> None:
    """What the first test is compared with: each HAProxy serves what the router sends to its own node."""
    serve(lab, tiers, spread="none")
    assert not marks(lab.lb1)
    with closing(KeptAlive(lab)) as kept:
        of_lb1 = served_by(lab.lb1, kept)
        lab.lb1.cli("drain", "lb1")
        lab.router.until(VIP, {"lb2"})
        assert of_lb1
        assert kept.alive() == kept.every - of_lb1


def test_while_tables_differ_no_connection_is_lost(lab: Lab, tiers: dict[str, NodeHaproxy]) -> None:
    """By hand each node is told to send everything to the other: what came through a tunnel is not sent on again."""
    serve(lab, tiers)
    for node in lab.nodes.values():
        node.daemon.freeze()
    try:
        for node in lab.nodes.values():
            node.namespace.run("ipvsadm", "-e", "-f", MARK, "-r", own(node.name), "-i", "-w", "0")
        with closing(KeptAlive(lab)) as kept:
            assert kept.alive() == kept.every
            assert served_by(lab.lb1, kept) | served_by(lab.lb2, kept) == kept.every
    finally:
        for node in lab.nodes.values():
            node.daemon.thaw()
    for node in lab.nodes.values():
        node.until(lambda node=node: takers(node) == [EQUAL], f"{node.name} has repaired its table")
