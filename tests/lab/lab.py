"""The whole lab, from nothing to running and back to nothing."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from anycastlb.core.model import Address
from tests.lab.backend import Backend
from tests.lab.client import Client
from tests.lab.consul import ConsulServer
from tests.lab.namespaces import LabError
from tests.lab.node import USUAL, Node, Timing
from tests.lab.process import Process, until
from tests.lab.router import Flavour, Router, chosen, lab_peers
from tests.lab.topology import NODES, Topology, own

CHECK = {"type": "http", "path": "/health", "port": 80, "interval": "200ms", "timeout": "200ms", "rise": 2, "fall": 3}


class Lab:
    """``with Lab() as lab:`` gives a running lab without a service; whatever happens, nothing of it stays behind.

    ``router``: "bird" or "frr"; unless given what ``LAB_ROUTER`` in the environment says, or else BIRD.
    """

    def __init__(
        self,
        timing: Timing = USUAL,
        start_nodes: bool = True,
        nodes: Sequence[str] = NODES,
        router: Flavour | None = None,
    ) -> None:
        self._start_nodes = start_nodes
        self.directory = Path(tempfile.mkdtemp(prefix="anycastlb-lab."))
        self.topology = Topology(nodes)
        self.client = Client(self.topology.client)
        self.router = Router(self.topology.tor, self.directory, lab_peers(nodes), router or chosen())
        self.consul = ConsulServer(consul_program(), self.topology.consul, self.directory)
        self.backends = {
            name: Backend(name, namespace, self.directory) for name, namespace in self.topology.backends.items()
        }
        self.nodes = {name: Node(name, self.topology, self.directory, timing) for name in nodes}

    @property
    def lb1(self) -> Node:
        return self.nodes["lb1"]

    @property
    def lb2(self) -> Node:
        return self.nodes["lb2"]

    @property
    def processes(self) -> list[Process]:
        nodes = [process for node in self.nodes.values() for process in (node.daemon, node.exabgp)]
        others = (self.consul.process, *(item.process for item in self.backends.values()))
        return [*nodes, *self.router.processes, *others]

    def __enter__(self) -> Lab:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Machines, router, Consul and backends; then both nodes, until each is ready and its sessions are up."""
        self.topology.create()
        self.consul.start()
        for backend in self.backends.values():
            backend.start()
        self.router.start()
        if self._start_nodes:
            for node in self.nodes.values():
                node.start()
        for backend in self.backends.values():
            backend.ready()
        self.consul.ready()
        if self._start_nodes:
            self.ready()

    def ready(self) -> None:
        for node in self.nodes.values():
            node.ready(90)  # on a machine that runs this for the first time everything is read from disk
        sessions = {f"{node}v{version}" for node in self.nodes for version in (4, 6)}
        until(lambda: self.router.sessions() == sessions, 60, f"BGP sessions up: {', '.join(sorted(sessions))}")

    def rest(self) -> None:
        """Nothing of it runs any more; ``start`` brings it back, with Consul's data."""
        for node in self.nodes.values():
            node.end()
        for process in self.processes:
            process.end()
        self.topology.delete()

    def stop(self) -> None:
        self.rest()
        if not os.environ.get("LAB_KEEP_LOGS"):
            shutil.rmtree(self.directory, ignore_errors=True)

    # ------------------------------------------------------------ the catalog

    def put(self, service: str, document: Any) -> None:
        self.consul.put(f"anycastlb/services/{service}", document)

    def settle(self, *addresses: Address) -> None:
        """Wait until the router spreads these VIPs over both nodes, and no destination on either has weight 0."""
        for address in addresses:
            self.router.until(address, set(self.nodes))
        for node in self.nodes.values():
            node.until(lambda node=node: _in_full(node.ipvs()), 5, "every backend of every service has a weight")

    def remove(self, service: str) -> None:
        self.consul.delete(f"anycastlb/services/{service}")

    def reset(self) -> None:
        """Every machine up and healthy, every service gone: where each test begins."""
        for backend in self.backends.values():
            backend.restore()
        if not self.consul.process.running:
            self.consul.start()
            self.consul.ready()
        for part in ("services/", "drain/", "defaults"):
            self.consul.delete(f"anycastlb/{part}", below=True)
        for node in self.nodes.values():
            node.unmute()
            node.plug()
            node.start()
        self.ready()
        for node in self.nodes.values():
            node.until(lambda node=node: not node.ipvs() and not node.vips(), 40, "nothing of the last test is left")


def _in_full(table: dict[str, dict[str, int]]) -> bool:
    return all(rows and all(rows.values()) for rows in table.values())


def document(vip: Address | list[Address], forward: str = "tunnel", port: int = 80, **more: Any) -> dict[str, Any]:
    """A service document over the three backends, in the VIP's family, checked often; ``more`` overrides."""
    vips = vip if isinstance(vip, list) else [vip]
    backends = {
        name if len({item.version for item in vips}) == 1 else f"{name}-v{version}": {"address": own(name, version)}
        for version in sorted({item.version for item in vips})
        for name in ("b1", "b2", "b3")
    }
    whole = {
        "vip": [str(item) for item in vips],
        "port": port,
        "forward": forward,
        "check": CHECK,
        "backends": backends,
        "drain": "500ms",
    }
    return {**whole, **more}


def consul_program() -> str:
    """The Consul that the rig finds. Raises ``LabError`` when there is none."""
    from tests.rig import consul

    if found := consul.find():
        return str(found)
    raise LabError("no Consul: put one on PATH, or fetch it with tests/rig/consul.py")
