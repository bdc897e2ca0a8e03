"""The whole lab, from nothing to running and back to nothing."""

from __future__ import annotations

import json
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
from tests.lab.node import Node
from tests.lab.process import Process, until
from tests.lab.router import Flavour, Router, chosen, lab_peers
from tests.lab.topology import NODES, Topology, own

CHECK = {"type": "http", "path": "/health", "port": 80, "interval": "200ms", "timeout": "1s", "rise": 2, "fall": 3}


class Lab:
    """``with Lab() as lab:`` gives a running lab without a service; whatever happens, nothing of it stays behind.

    ``spare``: nodes that are wired and known to the router, and do not run. ``router``: "bird" or "frr"; unless it is
    given, what ``LAB_ROUTER`` in the environment says, or else BIRD.
    """

    def __init__(
        self,
        nodes: Sequence[str] = NODES,
        spare: Sequence[str] = (),
        router: Flavour | None = None,
    ) -> None:
        whole = (*nodes, *spare)
        self.directory = Path(tempfile.mkdtemp(prefix="anycastlb-lab."))
        self.topology = Topology(whole)
        self.client = Client(self.topology.client)
        self.router = Router(self.topology.tor, self.directory, lab_peers(whole), router or chosen())
        self.consul = ConsulServer(consul_program(), self.topology.consul, self.directory)
        self.backends = {
            name: Backend(name, namespace, self.directory) for name, namespace in self.topology.backends.items()
        }
        every = {name: Node(name, self.topology, self.directory) for name in whole}
        self.nodes = {name: every[name] for name in nodes}
        self.spare = {name: every[name] for name in spare}

    @property
    def lb1(self) -> Node:
        return self.nodes["lb1"]

    @property
    def lb2(self) -> Node:
        return self.nodes["lb2"]

    @property
    def _every(self) -> list[Node]:
        return [*self.nodes.values(), *self.spare.values()]

    @property
    def processes(self) -> list[Process]:
        nodes = [process for node in self._every for process in (node.daemon, node.exabgp)]
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
        for node in self.nodes.values():
            node.start()
        for backend in self.backends.values():
            backend.ready()
        self.consul.ready()
        self.ready()

    def ready(self) -> None:
        for node in self.nodes.values():
            node.ready()
        sessions = {f"{node}v{version}" for node in self.nodes for version in (4, 6)}
        until(lambda: self.router.sessions() == sessions, f"BGP sessions up: {', '.join(sorted(sessions))}")

    def stop(self) -> None:
        """Nothing of it runs any more, and nothing of it is left."""
        for node in self._every:
            node.end()
        for process in self.processes:
            process.end()
        self.topology.delete()
        if not os.environ.get("LAB_KEEP_LOGS"):
            shutil.rmtree(self.directory, ignore_errors=True)

    # ------------------------------------------------------------ the catalog

    def put(self, service: str, document: Any) -> None:
        self.consul.put(f"anycastlb/services/{service}", document)

    def settle(self, *addresses: Address) -> None:
        """Wait until the router spreads these VIPs over both nodes, which know it, and no destination on either has
        weight 0."""
        for address in addresses:
            self.router.until(address, set(self.nodes))
        for node in self.nodes.values():
            node.until(lambda node=node: set(addresses) <= node.announced(), "it knows what it announces")
            node.until(lambda node=node: _in_full(node.ipvs()), "every backend of every service has a weight")

    def remove(self, service: str) -> None:
        self.consul.delete(f"anycastlb/services/{service}")

    def published(self, node: str) -> dict[str, Any]:
        """The status that a node publishes in Consul, empty if it publishes none."""
        raw = self.consul.value(f"anycastlb/nodes/{node}")
        status: dict[str, Any] = json.loads(raw)["status"] if raw else {}
        return status

    def empty(self) -> None:
        """No document, and no VIP on a node. One that serves gateways no more would drain theirs for half a minute."""
        for part in ("routes/", "gateways/", "services/"):
            self.consul.delete(f"anycastlb/{part}", below=True)
        for node in self.nodes.values():
            node.until(lambda node=node: not node.vips(), "its VIPs are gone")

    def reset(self) -> None:
        """Every machine up and healthy, every service gone: where each test begins."""
        for backend in self.backends.values():
            backend.restore()
        if not self.consul.process.running:
            self.consul.start()
            self.consul.ready()
        for part in ("routes/", "gateways/", "services/", "drain/", "defaults"):
            self.consul.delete(f"anycastlb/{part}", below=True)
        for node in self._every:
            node.unmute()
            node.plug()
        for node in self.spare.values():
            if node.daemon.running:
                node.daemon.stop()
            node.end()
        for node in self.nodes.values():
            node.refresh()
        self.ready()
        for node in self.nodes.values():
            node.refreshed()
            node.until(lambda node=node: not node.ipvs() and not node.vips(), "nothing of the last test is left")


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
        "drain": "200ms",
    }
    return {**whole, **more}


def consul_program() -> str:
    """The Consul that the rig finds. Raises ``LabError`` when there is none."""
    from tests.rig import consul

    if program := consul.find():
        return str(program)
    raise LabError("no Consul: put one on PATH, or fetch it with tests/rig/consul.py")
