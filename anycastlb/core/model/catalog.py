"""The catalog as it was parsed: services, their backends, and how they are announced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from anycastlb.core.model.announce import Announce, Share
from anycastlb.core.model.balancing import Balancing, Passive
from anycastlb.core.model.base import EMPTY, Address, Forward, Problem, Protocol
from anycastlb.core.model.check import Check, Combination, ForwardPath
from anycastlb.core.model.discovery import Discover, Instance
from anycastlb.core.model.drain import Drain
from anycastlb.core.model.http import Gateway, HttpRoute
from anycastlb.core.model.machine import ServiceKey, VirtualService
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
    passive: Passive | None = None
    """Of a pool: when the requests of clients count against it; None = never."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service document, parsed. ``backends`` are in canonical order, oldest first, equal on every node.

    A service without VIPs is a pool of the HTTP tier. It has no row in IPVS, so ``virtual`` says nothing about it.
    """

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
    balancing: Balancing = Balancing()
    """How HAProxy spreads the requests of routes that refer to it."""

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
        """The backends that serve this VIP: those of its own family; if there is none, those that a tunnel reaches.

        All of them serve a pool, which has no VIP."""
        if not self.vips:
            return self.backends
        family = type(vip)
        same = tuple([b for b in self.backends if type(b.address) is family])
        return same or tuple([b for b in self.backends if b.forward in ENCAPSULATED])


def _aimed(check: Check, vip: Address, via: ForwardPath) -> Check:
    params = check.params
    if isinstance(params, Combination):
        params = Combination(tuple(_aimed(part, vip, via) for part in params.checks))
    return replace(check, address=vip, params=params, via=via)


@dataclass(frozen=True)
class Catalog:
    """All services of one consistent read, in a canonical order, and what was wrong with the read."""

    services: tuple[Service, ...] = ()
    """Those with VIPs."""
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
    pools: tuple[Service, ...] = ()
    """Services without VIPs, to which only routes send requests."""
    gateways: tuple[Gateway, ...] = ()
    routes: tuple[HttpRoute, ...] = ()

    @cached_property
    def vips(self) -> frozenset[Address]:
        """Those of services and of gateways."""
        of_services = frozenset(vip for service in self.services for vip in service.vips)
        return of_services.union(vip for gateway in self.gateways for vip in gateway.vips)

    def share_vips(self, other: Catalog) -> None:
        """Take the VIPs of another catalog, whose services and gateways have the same: to work them out takes long."""
        vars(self)["vips"] = other.vips
