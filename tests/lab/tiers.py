"""Gateways whose connections the nodes of a lab share, and clients that keep connections to them."""

from __future__ import annotations

import shutil
import ssl
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from itertools import count
from pathlib import Path
from typing import Any

from tests.lab.haproxy import NodeHaproxy
from tests.lab.http import connect
from tests.lab.lab import CHECK, Lab
from tests.lab.node import Node
from tests.lab.process import GIVE_UP
from tests.lab.topology import own, vip
from tests.support.authority import Authority

VIP = vip(20)
"""No backend has it."""
MANY = {80: 40}
"""Connections to each port."""
POOL = {"port": 80, "check": CHECK, "backends": {name: {"address": own(name)} for name in ("b1", "b2", "b3")}}
ROUTE = {"gateways": ["web"], "hostnames": ["*"], "rules": [{"backendRefs": [{"name": "shop"}]}]}


@contextmanager
def driven(lab: Lab, folder: Path, program: str) -> Iterator[dict[str, NodeHaproxy]]:
    """All nodes serve gateways, and share their connections."""
    with ExitStack() as stack:
        tiers = {name: NodeHaproxy(node, folder / name, program) for name, node in lab.nodes.items()}
        certificate = Authority(folder).issue("shop.example")
        for haproxy in tiers.values():
            shutil.copy(certificate, haproxy.certificates / "shop.pem")
        for haproxy in tiers.values():
            stack.enter_context(haproxy.driven(sharing=True))
        yield tiers


Connection = tuple[int, int]
"""Its ports at the VIP and at the client."""


class KeptAlive:
    """Connections of the client to the VIP, those to port 443 by TLS; each is asked again and again.

    One that is not answered at once is among ``every``, and never ``alive``. None has a port that one had before: a
    node keeps the entry of a connection that ended on another node's way, and two nodes that differ may then send a new
    one in circles (docs/FLOWS.md).
    """

    _ports = count(20_000)

    def __init__(self, lab: Lab, number: Mapping[int, int] = MANY, patience: float = GIVE_UP) -> None:
        self._all: dict[Connection, HTTPConnection] = {}
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        for port in (port for port, many in number.items() for _ in range(many)):
            one, name = HTTPConnection(str(VIP), timeout=patience), next(self._ports)
            with suppress(OSError):
                sock = connect(lab.client.namespace, str(VIP), port, patience, name)
                one.sock = context.wrap_socket(sock, server_hostname="shop.example") if port == 443 else sock
                self._answers(one)
            self._all[port, name] = one

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
    lab.router.until(VIP, set(lab.nodes))
    if spread == "mh":
        many = len(gateways)
        for node in lab.nodes.values():
            node.until(
                lambda node=node: (marks(node), takers(node)) == (many, [equal(lab)] * many),
                f"{node.name} knows all of them",
            )
    for node in lab.nodes.values():  # a HAProxy that has started with an older file is reloaded, and ends connections
        node.until(
            lambda node=node: node.cli("plan").stdout.startswith("nothing to change"), f"{node.name} is as it is wanted"
        )


def equal(lab: Lab) -> dict[str, int]:
    """What each node's table has for a gateway while all take part."""
    return dict.fromkeys(map(own, lab.nodes), 100)


def takers(node: Node) -> list[dict[str, int]]:
    """For each gateway the nodes in this node's table, and their weights."""
    tables = [rows for service, rows in node.ipvs().items() if len(rows) > 1]
    return [{address.rpartition(":")[0]: weight for address, weight in rows.items()} for rows in tables]


def marks(node: Node) -> int:
    """How many filters at its uplink mark packets to the VIP."""
    return node.namespace.run("tc", "filter", "show", "dev", "uplink", "ingress").count(f"dst_ip {VIP}")
