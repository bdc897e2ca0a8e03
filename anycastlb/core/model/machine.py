"""The machine: rows of the tables we write, whole states, and changes of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from anycastlb.core.model.base import EMPTY, Address, Forward, Protocol, Reason, endpoint
from anycastlb.core.model.ingress import IngressKey, IngressMark
from anycastlb.core.model.names import ConsulKey, ConsulService, DnsKey, DnsRecord


@dataclass(frozen=True, slots=True)
class ServiceKey:
    """The kernel's identity of an IPVS service.

    A fwmark service has protocol ``fwmark``, the unspecified address of its family, and the mark as ``port``.
    """

    protocol: Protocol
    address: Address
    port: int
    _hash: int = field(init=False, repr=False, compare=False)
    """It is looked up far more often than made, and hashing an address is slow."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.protocol, self.address, self.port)))

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        if self.protocol == "fwmark":
            return f"fwmark {self.port}" + (" ipv6" if self.address.version == 6 else "")
        return f"{self.protocol} {endpoint(self.address, self.port)}"


@dataclass(frozen=True, slots=True)
class DestinationKey:
    """The kernel's identity of an IPVS destination (real server)."""

    service: ServiceKey
    address: Address
    port: int
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.service, self.address, self.port)))

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        return f"{self.service} -> {endpoint(self.address, self.port)}"


@dataclass(frozen=True, slots=True)
class VipAddress:
    """A VIP on an interface, as /32 or /128."""

    interface: str = "lo"

    def __str__(self) -> str:
        return f"on {self.interface}"


@dataclass(frozen=True, slots=True)
class VirtualService:
    """An IPVS service's attributes."""

    scheduler: str
    flags: frozenset[str] = frozenset()
    """Scheduler flags by ipvsadm's names: ``mh-port``, ``mh-fallback``, ``sh-port``, ``sh-fallback``, ``flag-1..3``."""
    one_packet: bool = False
    persistence: int = 0
    """Persistence time-out in whole seconds; 0 = not persistent."""
    persistence_prefix: int = 0
    """Clients within one prefix of this length count as one; the family's full length unless set."""

    def __str__(self) -> str:
        more = [*sorted(self.flags), *(["one-packet"] if self.one_packet else [])]
        if self.persistence:
            more.append(f"persistent {self.persistence} s")
        return f"{self.scheduler} ({', '.join(more)})" if more else self.scheduler


@dataclass(frozen=True, slots=True)
class Destination:
    """An IPVS destination's attributes.

    ``last_weight`` is the kernel's last non-zero weight: ``mh`` builds its table from it even while the weight
    is 0, and the kernel cannot be asked for it. ``None`` in an observed row: not known to us.
    """

    forward: Forward
    weight: int
    last_weight: int | None
    upper: int = 0
    """Connections above which no new one is sent here; 0 = no bound."""
    lower: int = 0
    tunnel_port: int = 0
    """UDP port for ``gue``; 0 otherwise."""

    def __str__(self) -> str:
        bounds = f", {self.lower} to {self.upper} connections" if self.upper else ""
        return f"{self.forward}, weight {self.weight}{bounds}"


@dataclass(frozen=True, slots=True)
class Route:
    """BGP path attributes of an announced host route; the next hop is always the node itself."""

    communities: tuple[str, ...] = ()
    """``"65001:100"``: two 16-bit numbers."""
    large_communities: tuple[str, ...] = ()
    """``"65001:1:2"``: three 32-bit numbers."""
    med: int | None = None
    local_preference: int | None = None
    as_path_prepend: int = 0
    """How many times the node's own AS is prepended."""

    def __str__(self) -> str:
        parts = [*self.communities, *self.large_communities]
        parts += [f"med {self.med}"] if self.med is not None else []
        parts += [f"local preference {self.local_preference}"] if self.local_preference is not None else []
        parts += [f"prepended {self.as_path_prepend} times"] if self.as_path_prepend else []
        return "announced" + (f" with {', '.join(parts)}" if parts else "")


@dataclass(frozen=True, slots=True)
class SyncDaemon:
    """One of the two kernel threads of connection sync: the one that tells (master), or that listens (backup)."""

    interface: str
    sync_id: int
    """Which cluster it belongs to: 1 to 255."""
    group: Address
    """The multicast group."""
    port: int
    """UDP."""
    ttl: int = 1

    def __str__(self) -> str:
        return f"on {self.interface}, id {self.sync_id}, to {endpoint(self.group, self.port)}"


Table: TypeAlias = Literal[
    "sysctls", "config", "addresses", "services", "destinations", "ingress_marks", "routes", "dns_records",
    "consul_services", "http_engine", "http_certificates", "http_servers", "http_sites",
]  # fmt: skip
TABLES: tuple[Table, ...] = (
    "sysctls", "config", "addresses", "services", "destinations", "ingress_marks", "routes", "dns_records",
    "consul_services",
)  # fmt: skip
HTTP_TABLES: tuple[Table, ...] = ("http_engine", "http_certificates", "http_servers", "http_sites")
"""The tables of the HTTP tier, which are empty where node.toml has no ``[http]``."""
ALL_TABLES = (*TABLES, *HTTP_TABLES)
NAMES: tuple[Table, ...] = ("dns_records", "consul_services")
"""Tables that are not in the machine, and so are written in the background: their drivers tell when it is done."""
Rows: TypeAlias = Mapping[Any, Any]


@dataclass(frozen=True, slots=True)
class State:
    """What is, or what should be: one type for both.

    The order of ``destinations`` within one service is the order in which they were added to the kernel,
    oldest first; it is part of the state (the ``mh`` table depends on it). No other order means anything.
    """

    sysctls: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    """``net/ipv4/vs/sloppy_tcp`` -> ``"1"``. Only those asked for; never deleted."""
    config: Mapping[str, int | SyncDaemon | None] = field(default_factory=lambda: EMPTY)
    """IPVS's own settings: ``tcp_timeout``, ``tcpfin_timeout``, ``udp_timeout`` -> seconds; ``sync_master`` and
    ``sync_backup`` -> the daemon that runs. Only those asked for; in a desired state, None: it must not run."""
    addresses: Mapping[Address, VipAddress] = field(default_factory=lambda: EMPTY)
    services: Mapping[ServiceKey, VirtualService] = field(default_factory=lambda: EMPTY)
    destinations: Mapping[DestinationKey, Destination] = field(default_factory=lambda: EMPTY)
    ingress_marks: Mapping[IngressKey, IngressMark] = field(default_factory=lambda: EMPTY)
    routes: Mapping[Address, Route] = field(default_factory=lambda: EMPTY)
    dns_records: Mapping[DnsKey, DnsRecord] = field(default_factory=lambda: EMPTY)
    consul_services: Mapping[ConsulKey, ConsulService] = field(default_factory=lambda: EMPTY)
    http_engine: Rows = field(default_factory=lambda: EMPTY)
    """The rows of these four tables are in ``http_rows``: ``config`` -> ``HttpEngine``,"""
    http_certificates: Rows = field(default_factory=lambda: EMPTY)
    """the name of a file -> ``HttpCertificate``,"""
    http_servers: Rows = field(default_factory=lambda: EMPTY)
    """``HttpServerKey`` -> ``HttpServer``,"""
    http_sites: Rows = field(default_factory=lambda: EMPTY)
    """``SiteKey`` -> ``HttpSite``."""

    def rows(self, table: Table) -> Rows:
        rows: Rows = getattr(self, table)
        return rows


@dataclass(frozen=True, slots=True)
class Change:
    """One row to write: a create if ``old`` is None, a delete if ``new`` is None, else an update.

    ``moved``: the destination is deleted and added again in one batch, so that it becomes the newest of its
    service: the kernel can put a destination nowhere else.
    """

    table: Table
    key: Any
    old: Any
    new: Any
    moved: bool = False

    @property
    def verb(self) -> Literal["create", "update", "delete"]:
        return "create" if self.old is None else "delete" if self.new is None else "update"

    def __str__(self) -> str:
        return f"{self.verb} {self.table} {self.key}"


@dataclass(frozen=True, slots=True)
class Failure:
    """A change the machine refused, and its reason with what to do about it."""

    change: Change
    reason: Reason
    pending: bool = False
    """It was not refused: it is under way, will be done without being asked for again, and ``reason`` says how far it
    is. It lasts as long as each cycle asks for it."""


@dataclass(frozen=True, slots=True)
class TrafficCounters:
    """What the kernel counted for a virtual service or a destination since it was created."""

    connections: int = 0
    packets_in: int = 0
    packets_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    active: int = 0
    """Open connections now; destinations only, as ``inactive``."""
    inactive: int = 0
    rates: tuple[int, ...] = ()
    """Now, as the kernel estimates: connections, packets in and out, bytes in and out, each per second."""
