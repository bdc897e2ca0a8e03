"""A router and two real nodes (daemon, bridge, ExaBGP) on one switch, at the very addresses of the shipped examples.

::

    router ──┐
    .1  eth0 ├── switch (a bridge: who is unplugged vanishes without a word)
       lb1 ──┤   .2        198.51.100.0/24, 2001:db8:ffff::/64
       lb2 ──┘   .3

Each node has a catalog of its own (a directory) and settings that allow an address more than the router does.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from anycastlb.core.model import Address
from tests.lab.bird import Bird
from tests.lab.examples import DOCUMENTED, ROUTER, SHIPPED, Peer, edited
from tests.lab.frr import Frr
from tests.lab.namespaces import Namespace, address, connect
from tests.lab.process import Process, answers, until
from tests.lab.router import Flavour, Router
from tests.lab.speaker import SHIPPED as TEMPLATES
from tests.lab.speaker import environment

ROOT = Path(__file__).resolve().parents[2]
NODE_TOML = """
[node]
name = "{name}"
vip_ranges = ["192.0.2.0/25", "2001:db8:2::/64", "203.0.113.0/24"]
state_dir = "{directory}/state"
resync = "1s"
[catalog]
source = "file"
path = "{directory}/catalog"
max_shrink = "100%"
confirm = "100ms"
[bgp]
socket = "{directory}/bgp.sock"
[api]
socket = "{directory}/api.sock"
"""
CABLED = {f"neighbor {ROUTER.v4} ": "neighbor 198.18.0.1 "}
FRR_BFD = ("zebra", "bfdd")
ENV = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


class RackNode:
    """One node; ``announce`` writes its catalog, the rest is what ships."""

    def __init__(self, peer: Peer, directory: Path) -> None:
        self.peer, self.namespace = peer, Namespace(f"rack-{peer.name}")
        self.directory = directory / peer.name
        (self.directory / "catalog" / "services").mkdir(parents=True)
        self._settings, self._exabgp_conf = self.directory / "node.toml", self.directory / "exabgp.conf"
        self._settings.write_text(NODE_TOML.format(name=peer.name, directory=self.directory))
        program = [sys.executable, "-m"]
        self.daemon = Process(
            f"{peer.name} anycastlb",
            self.namespace,
            [*program, "anycastlb", "run", "--config", str(self._settings)],
            directory / f"{peer.name}-anycastlb.log",
            ENV,
        )
        self.exabgp = Process(
            f"{peer.name} exabgp",
            self.namespace,
            [*program, "exabgp", "server", str(self._exabgp_conf)],
            directory / f"{peer.name}-exabgp.log",
            {**ENV, **environment()},
        )
        self._bfd: Bird | Frr | None = None

    def configure(self, options: Collection[str], edits: Mapping[str, str]) -> None:
        """ExaBGP's file: the shipped template with this node's addresses and AS, options on, literal edits made."""
        text = (TEMPLATES / "exabgp.conf").read_text()
        text = text.replace("local-as 65001", f"local-as {self.peer.asn}")
        text = edited(text, [self.peer], options, edits)
        run = f"    run {sys.executable} -m anycastlb.bridge --config {self._settings};"
        self._exabgp_conf.write_text(re.sub(r"(?m)^    run .*;$", lambda _: run, text))

    def announce(self, vips: Mapping[Address, Mapping[str, Any]] | Sequence[Address]) -> None:
        """Have exactly these VIPs in the node's catalog, each with its ``announce`` fields."""
        services = self.directory / "catalog" / "services"
        wanted = {str(vip).replace(":", "-"): (vip, vips[vip] if isinstance(vips, Mapping) else {}) for vip in vips}
        for name, (vip, fields) in wanted.items():
            document = {"vip": str(vip), "port": 80, "forward": "tunnel", "check": {"type": "none"}, "drain": "0s"}
            backend = {"address": "10.1.0.1" if vip.version == 4 else "fd00:1::1"}
            text = json.dumps({**document, "backends": {"b1": backend}, "announce": dict(fields)})
            new = services / f".{name}"
            new.write_text(text)
            new.rename(services / f"{name}.json")
        for file in services.glob("*.json"):
            if file.stem not in wanted:
                file.unlink()

    def watch(self, flavour: Flavour | None) -> None:
        """Run the shipped BFD configuration for this flavour on the node, or none any more."""
        if self._bfd:
            self._bfd.kill()
            self._bfd = None
        if flavour:
            place = Path(tempfile.mkdtemp(prefix="bfd.", dir=self.directory))
            self._bfd = (
                Bird(self.namespace, place) if flavour == "bird" else Frr(self.namespace, place, daemons=FRR_BFD)
            )
            self._bfd.start(edited((SHIPPED / f"{flavour}-bfd-node.conf").read_text(), [self.peer]))

    def end(self) -> None:
        self.watch(None)
        self.exabgp.kill()
        self.daemon.kill()


class Rack:
    def __init__(self, flavour: Flavour, directory: Path) -> None:
        self.directory = directory
        self.place, self.switch = Namespace("rack-router"), Namespace("rack-switch")
        self.router = Router(self.place, directory, DOCUMENTED, flavour)
        self.nodes = {peer.name: RackNode(peer, directory) for peer in DOCUMENTED}

    @property
    def lb1(self) -> RackNode:
        return self.nodes["lb1"]

    @property
    def lb2(self) -> RackNode:
        return self.nodes["lb2"]

    def create(self) -> None:
        machines = {"router": (self.place, ROUTER)} | {n.peer.name: (n.namespace, n.peer) for n in self.nodes.values()}
        self.switch.create()
        self.switch.ip("link add dev bridge0 type bridge forward_delay 0", "link set dev bridge0 up")
        for name, (namespace, peer) in machines.items():
            namespace.create()
            connect(self.switch, name, namespace, "eth0")
            self.switch.ip(f"link set dev {name} master bridge0 up")
            address(namespace, "eth0", f"{peer.v4}/24", f"{peer.v6}/64")
        for node in self.nodes.values():
            node.daemon.start()
        for node in self.nodes.values():
            node.daemon.until(partial(answers, node.directory / "api.sock"), "it runs")

    def delete(self) -> None:
        for node in self.nodes.values():
            node.end()
        self.router.kill()
        for namespace in (self.place, self.switch, *(node.namespace for node in self.nodes.values())):
            namespace.delete()

    # ------------------------------------------------------------ what is changed between tests

    def begin(
        self,
        kind: str = "ebgp",
        options: Collection[str] = (),
        router: Mapping[str, str] | None = None,
        nodes: Mapping[str, Mapping[str, str]] | None = None,
        ases: Sequence[int] = (65001, 65001),
    ) -> None:
        """Everybody anew with the examples, these options and ASes of the nodes, and literal edits of the files of the
        router and of nodes."""
        for node, asn in zip(self.nodes.values(), [ROUTER.asn] * 2 if kind == "ibgp" else ases, strict=True):
            node.peer = replace(node.peer, asn=asn)
        self.router.kill()
        self.router.forget()
        for name, node in self.nodes.items():
            node.exabgp.kill()
            node.configure(set(options) - {"bfd"}, (nodes or {}).get(name, {}))
        self.router.meet([node.peer for node in self.nodes.values()])
        self.router.start(self.router.example(kind, options, router))
        for node in self.nodes.values():
            node.exabgp.start()

    def up(self, *sessions: str) -> None:
        wanted = set(sessions) or {f"{name}v{version}" for name in self.nodes for version in (4, 6)}
        until(lambda: self.router.sessions() == wanted, f"up are just {', '.join(sorted(wanted))}", every=0.3)

    def announce(self, vips: Sequence[Address]) -> None:
        for node in self.nodes.values():
            node.announce(vips)

    def unplug(self, name: str) -> None:
        """Nothing passes between this node and the switch any more; the router's own link stays up."""
        self.switch.ip(f"link set dev {name} nomaster")

    def plug(self, name: str) -> None:
        self.switch.ip(f"link set dev {name} master bridge0")

    @contextmanager
    def cabled(self, node: RackNode) -> Iterator[None]:
        """Inside the block the node's IPv4 session runs over a cable of its own (``eth1`` at both ends), not the
        switch. Its ExaBGP needs the edits ``CABLED``."""
        connect(self.place, "eth1", node.namespace, "eth1")
        address(self.place, "eth1", "198.18.0.1/30")
        address(node.namespace, "eth1", "198.18.0.2/30")
        usual = node.peer
        node.peer = replace(usual, v4="198.18.0.2")
        try:
            yield
        finally:
            node.peer = usual
            self.place.ip("link del eth1")

    def count(self, counter: str) -> int:
        """A counter of the router's kernel (``TCPMD5Failure``)."""
        rows = [line.split() for line in self.place.run("cat", "/proc/net/netstat").splitlines()]
        return next(
            int(dict(zip(names, values, strict=True))[counter])
            for names, values in zip(rows[::2], rows[1::2], strict=True)
            if counter in names
        )

    def logs(self) -> str:
        processes = [p for node in self.nodes.values() for p in (node.exabgp, node.daemon)]
        return "\n".join(process.tail(12) for process in [*self.router.processes, *processes])
