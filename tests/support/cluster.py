"""Several brains that tell each other what they see, over a registry that delivers when it likes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from types import MappingProxyType

from anycastlb.adapters.cluster import status_bytes, status_document
from anycastlb.core.decision.decide import decide
from anycastlb.core.model import (
    Announce,
    Backend,
    Catalog,
    Check,
    CheckState,
    Cluster,
    Decision,
    Feed,
    Inputs,
    Memory,
    Peer,
    Policy,
    Result,
    Service,
    Share,
    Snapshot,
    Speaker,
    Status,
    VirtualService,
)

VIP, OTHER = ip_address("192.0.2.1"), ip_address("192.0.2.2")
BACKENDS = {"web": (1, 2), "api": (3, 4)}
ALL = frozenset((1, 2, 3, 4))


def check(number: int) -> Check:
    return Check("tcp", ip_address(f"10.0.0.{number}"), 80, (), 1, 1, 1, 1)


def service(name: str, announce: Announce, vips: tuple[object, ...] = (VIP,)) -> Service:
    return Service(
        name,
        vips,  # type: ignore[arg-type]
        "tcp",
        80 if name == "web" else 443,
        VirtualService("mh"),
        tuple(Backend(f"b{n}", ip_address(f"10.0.0.{n}"), 80, check(n)) for n in BACKENDS[name]),
        announce=announce,
    )


@dataclass
class Machine:
    """One node: what it reaches, what it knows, what it decided."""

    name: str
    reach: frozenset[int] = ALL
    connected: bool = True
    alive: bool = True
    views: dict[str, Status] = field(default_factory=dict)
    memory: Memory = field(default_factory=Memory)
    decision: Decision = field(default_factory=Decision)
    inputs: Inputs = field(default_factory=Inputs)

    def open(self, vip: object = VIP) -> bool:
        return self.alive and vip in self.decision.desired.routes

    def own(self, vip: object = VIP) -> str:
        return self.decision.verdicts[vip].own  # type: ignore[index]


class Company:
    """The nodes, one clock, and what each published last. A look at the machines is a decision of each."""

    def __init__(self, catalog: Catalog, names: Iterable[str], limit: Share | None = None) -> None:
        self.catalog, self.limit, self.now = catalog, limit, 100.0
        self.nodes = {name: Machine(name) for name in names}
        self.published: dict[str, Status] = {}

    def __iter__(self) -> Iterator[Machine]:
        return iter(self.nodes.values())

    @property
    def living(self) -> list[Machine]:
        return [node for node in self if node.alive]

    @property
    def active(self) -> list[Machine]:
        """Those that may announce."""
        return [node for node in self.living if node.name not in self.catalog.drained]

    def see(self, node: Machine) -> Inputs:
        peers = {
            name: Peer(name, self.nodes[name].alive, status) for name, status in node.views.items() if name != node.name
        }
        up = {n: CheckState(n in node.reach, last=Result(n in node.reach, "seen", 0.1, 0.0)) for n in ALL}
        return Inputs(
            Policy(node.name, max_withdrawals=self.limit),
            self.catalog,
            Feed(connected=True, loaded=True),
            MappingProxyType({check(n): state for n, state in up.items()}),
            cluster=Cluster(follows=True, connected=node.connected, peers=peers),
            wall=1e9,
        )

    def look(self, node: Machine) -> bool:
        """It decides, and publishes; whether anything came of it."""
        node.inputs = self.see(node)
        decision = decide(node.inputs, node.memory, self.now)
        changed = decision.desired != node.decision.desired
        node.memory, node.decision = decision.memory, decision
        told = status_document.summarise(
            Snapshot(node.inputs, decision.desired, decision, speaker=Speaker(connected=True), cycle=1)
        )
        raw = status_bytes.encode(told)
        if node.connected:
            changed |= self.published.get(node.name) != told
            self.published[node.name] = status_bytes.decode(raw, node.name)
        return changed

    def deliver(self, source: str, target: str) -> bool:
        """What one published reaches another."""
        new, node = self.published.get(source), self.nodes[target]
        if new is None or source == target or not node.connected or node.views.get(source) == new:
            return False
        node.views[source] = new
        return True

    def exchange(self) -> bool:
        """Everybody looks, and everything that was published arrives."""
        looked = [self.look(node) for node in self.living]
        heard = [self.deliver(source, target) for source in self.nodes for target in self.nodes]
        return any(looked + heard)

    def quiet(self, most: int = 60) -> int:
        """Exchange until nothing changes any more, time passing from one ``wake_at`` to the next; how many it took."""
        for count in range(most):
            if self.exchange():
                continue
            wakes = [node.decision.wake_at for node in self.living if node.decision.wake_at is not None]
            if not wakes:
                return count
            self.now = max(self.now, min(wakes))
        raise AssertionError(f"not quiet after {most} exchanges: {[node.decision.verdicts for node in self]}")

    def drain(self, name: str, drained: bool) -> None:
        names = self.catalog.drained | {name} if drained else self.catalog.drained - {name}
        self.catalog = replace(self.catalog, drained=names)
