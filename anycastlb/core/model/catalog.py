"""The catalog: what operators asked for, raw and parsed."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, TypeAlias

from anycastlb.core.model.base import EMPTY, Address, Forward, Problem, Protocol, endpoint
from anycastlb.core.model.drain import Drain
from anycastlb.core.model.machine import Route, ServiceKey, VirtualService
from anycastlb.core.model.names import ConsulName, DnsName

ENCAPSULATED: tuple[Forward, ...] = ("tunnel", "gue", "gre")
"""These carry packets of either address family to a backend of either."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One raw key of the catalog tree."""

    value: bytes
    created: int = 0
    """Consul's CreateIndex: the cluster-wide order of age; 0 where the source has none."""
    format: Literal["json", "toml", "yaml"] = "json"
    origin: str = ""
    """What to call the document in a problem, if not by its key (a file's path)."""
    error: str = ""
    """Why the document cannot be used although its key is there (an unreadable file)."""
    version: str = field(default="", compare=False)
    """What a store calls this state of the key; a write may be made to depend on it. Empty where nobody may write."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One key to be written or deleted."""

    key: str
    """Relative to the store's root: ``services/web``."""
    value: bytes | None
    """None = delete."""
    expects: str | None = None
    """The ``Entry.version`` the key must still have; empty = it must not exist; None = whatever is there."""


@dataclass(frozen=True, slots=True)
class Tree:
    """One consistent read of the whole catalog: keys relative to the prefix (``services/web``), nothing parsed."""

    entries: Mapping[str, Entry] = field(default_factory=lambda: EMPTY)
    index: int = 0
    """Consul's index of the read; for other sources a number that differs from read to read."""


@dataclass(frozen=True, slots=True)
class Shrink:
    """A catalog that was read but is held back, because it lost too many VIPs at once."""

    lost: tuple[Address, ...]
    of: int
    """How many VIPs the catalog in force has."""
    since: float
    until: float | None
    """When it is believed if it persists; None = only when confirmed."""


@dataclass(frozen=True, slots=True)
class Feed:
    """How the catalog source is doing."""

    connected: bool = False
    since: float = 0.0
    """When ``connected`` last changed."""
    error: str = ""
    """Why it is not connected."""
    loaded: bool = False
    """A catalog is in force; while False, the catalog's being empty says nothing and nothing may be torn down."""
    cached: bool = False
    """The catalog in force was read from ``state_dir``, not from the source."""
    held: Shrink | None = None


@dataclass(frozen=True, slots=True)
class ForwardPath:
    """One backend as IPVS reaches it: a probe through here takes the way of the backend's real traffic."""

    address: Address
    forward: Forward
    tunnel_port: int
    family: Literal[4, 6]
    """The family of the VIP: of the packets, not of the backend."""
    port: int = 0
    """The destination port in the kernel: the backend's for ``nat``, else 0 (the port of the packet)."""


@dataclass(frozen=True, slots=True)
class ProbePath:
    """How a probe that goes through IPVS opens its socket."""

    mark: int
    """SO_MARK: the firewall mark whose IPVS service has this one backend."""
    source: Address
    """The node's own address to bind to: unbound, the source would be the VIP."""
    hops: int | None = None
    """How far its packets may go (TTL, hop limit); None = as far as the system's."""


@dataclass(frozen=True, slots=True)
class Check:
    """A health check against one target. Its identity is its value: equal checks are one running probe."""

    type: str
    """The name of a file in ``checks/``."""
    address: Address
    port: int
    params: Hashable
    """The check type's own parameters, parsed by the type itself."""
    interval: float
    timeout: float
    rise: int
    fall: int
    fast_interval: float | None = None
    """The interval while a verdict is turning; None = ``interval``."""
    down_interval: float | None = None
    """While down the interval doubles with every failure, up to this; None = ``interval``."""
    via: ForwardPath | None = None
    """The probe goes to the VIP (``address``) through IPVS to this one backend; None = straight to the backend."""
    elsewhere: bool = False
    """``address`` is not the backend's own: its document says that somebody else is asked."""
    _hash: int = field(init=False, repr=False, compare=False)
    """It is looked up far more often than made, and hashing its parts is slow."""

    def __post_init__(self) -> None:
        timing = self.interval, self.timeout, self.rise, self.fall
        object.__setattr__(self, "_hash", hash((self.type, self.address, self.port, self.params, timing, self.via)))

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        target = f"{self.type} {endpoint(self.address, self.port)}"
        return f"{target} via {self.via.forward} {self.via.address}" if self.via else target


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
class Combination:
    """The parameters of an ``all`` or ``any`` check: the checks it is made of."""

    checks: tuple[Check, ...]


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
class ConsulInstances:
    """Backends are the instances of a Consul service."""

    service: str
    tag: str = ""
    passing: bool = True
    """Only instances whose own checks pass."""
    datacenter: str = ""

    def __str__(self) -> str:
        tag = f", tag {self.tag}" if self.tag else ""
        return f"consul service {self.service}{tag}" + (f", datacenter {self.datacenter}" if self.datacenter else "")


@dataclass(frozen=True, slots=True)
class DnsInstances:
    """Backends are what a DNS name resolves to."""

    name: str
    type: Literal["A", "AAAA", "SRV"] = "A"
    resolver: Address | None = None
    """None = the host's own resolvers."""

    def __str__(self) -> str:
        return f"dns {self.name} {self.type}" + (f" at {self.resolver}" if self.resolver else "")


Discover: TypeAlias = ConsulInstances | DnsInstances


@dataclass(frozen=True, slots=True)
class Instance:
    """One discovered backend."""

    name: str
    address: Address
    port: int | None = None
    """None = the service's."""
    weight: int | None = None
    created: int = 0
    """Cluster-wide order of age, where there is one."""
    fallback: bool = False
    """Of a lesser SRV priority: used only while no other can be."""


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
    """What is told of them; nothing of those that carry no document."""
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
