"""The top-of-rack router of the lab: BIRD or FRR on a shipped example, ECMP into its kernel, and questions to both.

What is announced is read from the kernel's route table, which is what forwards; how often it was announced, from the
router program's own counters.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Protocol

from anycastlb.core.model import Address
from tests.lab import kernel
from tests.lab.bird import Bird
from tests.lab.examples import SHIPPED, Peer, edited
from tests.lab.frr import Frr
from tests.lab.namespaces import Namespace
from tests.lab.process import GIVE_UP, Process, meanwhile, until
from tests.lab.topology import uplink

AS, NODE_AS = 65000, 65001
Flavour = Literal["bird", "frr"]


class Speaker(Protocol):
    """The router's program."""

    protocol: int
    """The kernel's number for the origin of its routes (``RTPROT_*``)."""

    @property
    def processes(self) -> Sequence[Process]: ...

    def start(self, config: str) -> None:
        """With this configuration; returns when it can be asked."""

    def kill(self) -> None:
        """At once, its routes left in the kernel as it had them."""

    def sessions(self) -> set[str]:
        """The BGP sessions that are up: ``lb1v4``, ``lb1v6``, ..."""

    def watched(self) -> set[str]:
        """The addresses whose BFD session is up."""

    def updates(self, node: str) -> tuple[int, int]:
        """How many updates and withdrawals it received from a node, over both sessions; what is counted as one, and
        since when, differs by program."""


def chosen() -> Flavour:
    """The flavour that ``LAB_ROUTER`` in the environment asks for."""
    return "frr" if os.environ.get("LAB_ROUTER") == "frr" else "bird"


def lab_peers(nodes: Sequence[str]) -> list[Peer]:
    """The lab's nodes at the router's ends of their uplinks."""
    return [Peer(node, uplink(node), uplink(node, 6), NODE_AS) for node in nodes]


class Router:
    def __init__(
        self,
        namespace: Namespace,
        directory: Path,
        peers: Sequence[Peer],
        flavour: Flavour = "bird",
    ) -> None:
        self.namespace = namespace
        self.peers = tuple(peers)
        self.flavour = flavour
        self.speaker: Speaker = (Bird if flavour == "bird" else Frr)(namespace, directory, peers)
        self._config = self.example("ebgp")

    def meet(self, peers: Sequence[Peer]) -> None:
        """The nodes have other addresses or AS numbers from the next ``example`` on."""
        self.peers = tuple(peers)

    def example(self, kind: str, options: Collection[str] = (), edits: Mapping[str, str] | None = None) -> str:
        """The shipped example (``ebgp``, ``ibgp``) for this router's nodes."""
        return edited((SHIPPED / f"{self.flavour}-{kind}.conf").read_text(), self.peers, options, edits)

    @property
    def processes(self) -> Sequence[Process]:
        return self.speaker.processes

    def start(self, config: str | None = None) -> None:
        """With ``config``, or the one it had last."""
        self._config = config or self._config
        self.speaker.start(self._config)

    def stop(self) -> None:
        for process in self.processes:
            process.end()

    def kill(self) -> None:
        self.speaker.kill()

    def forget(self) -> None:
        """Remove what a killed program left in the kernel: the next one may take it over and keep it, as the zebra of
        FRR 10 does."""
        for version in (4, 6):
            self.namespace.run("ip", f"-{version}", "route", "flush", "proto", str(self.speaker.protocol))

    def routes(self, vip: Address) -> frozenset[str]:
        """The names of the nodes the kernel forwards this VIP's flows to; empty = no route."""
        nodes = self.table(vip.version).get(str(vip), frozenset())
        return frozenset(peer.name for peer in self.peers if peer.address(vip.version) in nodes)

    def table(self, version: int = 4) -> dict[str, frozenset[str]]:
        """All routes the program put into the kernel: VIP -> gateways."""
        return kernel.routes(self.namespace, version, self.speaker.protocol)

    def show(self, vip: Address) -> str:
        """The route as ``ip route`` shows it, for people."""
        return self.namespace.run("ip", f"-{vip.version}", "route", "show", str(vip)).rstrip()

    def until(self, vip: Address, nodes: Collection[str], within: float = GIVE_UP) -> float:
        """Wait until the VIP's route leads to exactly these nodes; the time (``time.monotonic()``) it was seen."""
        shown = ", ".join(sorted(nodes)) or "no node"
        until(lambda: self.routes(vip) == set(nodes), f"the route to {vip} leads to {shown}", within, every=0.01)
        return time.monotonic()

    @contextmanager
    def always(self, vip: Address) -> Iterator[None]:
        """Raises ``AssertionError`` after the block if the VIP was seen without any route in it."""
        without: list[float] = []

        def watch(over: threading.Event) -> None:
            while not over.wait(0.05):
                if not self.routes(vip):
                    without.append(time.monotonic())

        with meanwhile(watch):
            yield
        assert not without, f"{vip} had no route at all, from {without[0]:.2f} to {without[-1]:.2f}"

    def sessions(self) -> set[str]:
        """The BGP sessions that are up: ``lb1v4``, ``lb1v6``, ..."""
        return self.speaker.sessions()

    def watched(self) -> set[str]:
        """The addresses whose BFD session is up."""
        return self.speaker.watched()

    def updates(self, node: str) -> tuple[int, int]:
        """How many route updates and withdrawals it ever received from a node, over both its sessions."""
        return self.speaker.updates(node)

    def all_updates(self) -> dict[str, tuple[int, int]]:
        return {peer.name: self.updates(peer.name) for peer in self.peers}
