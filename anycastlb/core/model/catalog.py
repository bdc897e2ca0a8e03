"""The catalog as it was parsed: services, their backends, and how they are announced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from anycastlb.core.model.base import EMPTY, Address, Forward, Problem, Protocol
from anycastlb.core.model.check import Check, Combination, ForwardPath
from anycastlb.core.model.discovery import Discover, Instance
from anycastlb.core.model.drain import Drain
from anycastlb.core.model.machine import Route, ServiceKey, VirtualService
from anycastlb.core.model.names import ConsulName, DnsName
from anycastlb.core.model.source import Entry

ENCAPSULATED: tuple[Forward, ...] = ("tunnel", "gue", "gre")
"""These carry packets of either address family to a backend of either."""


@dataclass(frozen=True, slots=True)
class Backend:
    name: str
    address: Address
    port: int
    check: Check
    weight: int = 100
    """Nominal weight; 0 = no new flows."""
    drain: bool = False
    forward: Forward = "tunnel"
    tunnel_port: int = 0
    upper: int = 0
    lower: int = 0
    through: bool = False
    """The check goes to the VIP through IPVS (``"via": "forward"``)."""
    override: int | None = None
    """An operator's weight instead of ``weight``, for now; the place in the ``mh`` table stays as configured."""
    fallback: bool = False
    """Used only while no other backend of the service can be ("sorry server")."""


@dataclass(frozen=True, slots=True)
class Share:
    """A number of things, a percentage of all of them, or a sum of their weights."""

    count: int = 0
    percent: float | None = None
    weight: int | None = None

    def of(self, total: int) -> int:
        """How many of ``total`` that is, rounded up, at least 1. Not for a weight."""
        if self.percent is None:
            return self.count
        return max(1, -int(-total * self.percent // 100))

    def __str__(self) -> str:
        if self.weight is not None:
            return f"weight {self.weight}"
        return str(self.count) if self.percent is None else f"{self.percent:g}%"


def most_failed(floor: Share, total: int) -> int:
    """How many of ``total`` backends may be taken out on health: rounded down."""
    return floor.count if floor.percent is None else int(total * floor.percent // 100)


@dataclass(frozen=True, slots=True)
class Damping:
    """RFC 2439: each withdrawal adds ``penalty``, which halves every ``half_life`` seconds; above ``suppress`` the
    route stays down until it has fallen below ``reuse``, and never longer than ``longest`` seconds."""

    penalty: float = 1000.0
    half_life: float = 60.0
    suppress: float = 2000.0
    reuse: float = 750.0
    longest: float = 600.0


@dataclass(frozen=True, slots=True)
class Announce:
    min_backends: Share = Share(1)
    reopen: Share | None = None
    """What it takes to open a gate that is closed; None = ``min_backends``."""
    when: Literal["any", "all"] = "any"
    fail: Literal["withdraw", "keep"] = "withdraw"
    fallback: Literal["withdraw", "keep"] = "keep"
    """What becomes of the route while only fallback backends serve."""
    last: Literal["withdraw", "keep"] = "withdraw"
    """What becomes of the cluster's last route when health would withdraw it."""
    damping: Damping | None = None
    hold_up: float = 0.0
    hold_down: float = 0.0
    route: Route = Route()


@dataclass(frozen=True, slots=True)
class Service:
    """A service document, parsed. ``backends`` are in canonical order, oldest first, equal on every node."""

    name: str
    vips: tuple[Address, ...]
    protocol: Protocol
    port: int
    """The port, 0 = every port (persistent services); the mark of a fwmark service."""
    virtual: VirtualService
    backends: tuple[Backend, ...]
    announce: Announce = Announce()
    drain: float = 30.0
    """How long a removed backend or service is still served."""
    slow_start: float = 0.0
    """Seconds of linear ramp after a backend came up."""
    slow_start_by_history: bool = False
    """Instead: the weight follows the share of good results among the last hundred."""
    max_failed: Share | None = None
    """Never take out more than this on health alone; the surplus stays in. None = no such floor."""
    backends_from: Discover | None = None
    """Where further backends come from; those known are among ``backends``."""
    dns: DnsName | None = None
    """Its name in DNS; None = as the node's settings say."""
    consul: ConsulName | None = None
    """Its name among Consul's services; None = as the node's settings say."""

    def key(self, vip: Address) -> ServiceKey:
        if self.protocol == "fwmark":
            return ServiceKey("fwmark", type(vip)(0), self.port)
        return ServiceKey(self.protocol, vip, self.port)

    def row(self, vip: Address) -> VirtualService:
        """The IPVS service on this VIP, in canonical form: a prefix of the family's full length is 0."""
        full = self.virtual.persistence_prefix == vip.max_prefixlen
        return replace(self.virtual, persistence_prefix=0) if full else self.virtual

    def check(self, vip: Address, backend: Backend) -> Check:
        """The backend's check as it runs for this VIP: its own, or through IPVS to the VIP."""
        via = self.via(vip, backend)
        if via is None:
            return backend.check
        return _aimed(backend.check, vip, via)

    def via(self, vip: Address, backend: Backend) -> ForwardPath | None:
        """The way the backend's check takes through IPVS; None if it goes straight to the backend."""
        if not backend.through:
            return None
        port = backend.port if backend.forward == "nat" else 0
        return ForwardPath(backend.address, backend.forward, backend.tunnel_port, vip.version, port)

    def members(self, vip: Address) -> tuple[Backend, ...]:
        """The backends that serve this VIP: those of its own family; if there is none, those that a tunnel reaches."""
        same = tuple(b for b in self.backends if b.address.version == vip.version)
        return same or tuple(b for b in self.backends if b.forward in ENCAPSULATED)


def _aimed(check: Check, vip: Address, via: ForwardPath) -> Check:
    params = check.params
    if isinstance(params, Combination):
        params = Combination(tuple(_aimed(part, vip, via) for part in params.checks))
    return replace(check, address=vip, params=params, via=via)


@dataclass(frozen=True)
class Catalog:
    """All services of one consistent read, in a canonical order, and what was wrong with the read."""

    services: tuple[Service, ...] = ()
    drained: frozenset[str] = frozenset()
    """Names of drained nodes."""
    drains: Mapping[str, Drain] = field(default_factory=lambda: EMPTY)
    """What their documents ask for. A node whose drain has an empty document is missing."""
    problems: tuple[Problem, ...] = ()
    index: int = 0
    """Consul's index of the read (0 for other sources): which catalog this is."""
    good: Mapping[str, Entry] = field(default_factory=lambda: EMPTY)
    """The raw entries this catalog was made of, the last good ones in place of the bad: what is worth keeping."""
    remarks: Mapping[str, tuple[Problem, ...]] = field(default_factory=lambda: EMPTY)
    """By service: those of its problems that came with documents that are in use (an instance that was left out). They
    are among ``problems`` too."""
    discovers: Mapping[Discover, tuple[str, ...]] = field(default_factory=lambda: EMPTY)
    """Every discovery that is asked for, and by which services, also by those that wait for its first answer."""
    instances: Mapping[Discover, tuple[Instance, ...]] = field(default_factory=lambda: EMPTY)
    """Of those, what is known: the instances this catalog was made of."""

    @cached_property
    def vips(self) -> frozenset[Address]:
        return frozenset(vip for service in self.services for vip in service.vips)
