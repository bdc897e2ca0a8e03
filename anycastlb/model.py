"""Every immutable value that flows through the daemon, and the error tree.

Nothing here decides, reads a clock or touches the machine. Times called ``since``, ``at`` or ``until`` are
seconds on the daemon's monotonic clock unless their name ends in ``_wall``; durations are seconds.

The error tree::

    AnycastlbError
    ├── SettingsError     node.toml cannot be used; carries every problem found in it
    ├── SourceError       the catalog source did not answer, or answered something that is no catalog
    └── DriverError       the machine (netlink, sysctl, ExaBGP bridge) refused or did not answer
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network
Forward: TypeAlias = Literal["tunnel", "dr", "nat", "gue", "gre"]
Protocol: TypeAlias = Literal["tcp", "udp", "sctp", "fwmark"]

EMPTY: Mapping[Any, Any] = MappingProxyType({})
MARKS = (1_095_499_776, 1_095_565_311)
"""The firewall marks of probes through IPVS (low, high) unless configured: 0x414C0000 to 0x414CFFFF."""


class AnycastlbError(Exception):
    """Root of every error anycastlb raises on purpose; its text says what, which object and what to do."""


class SourceError(AnycastlbError):
    """The catalog source did not answer, or answered something that is no catalog."""


class DriverError(AnycastlbError):
    """The machine refused a whole operation (not one object of it: that is a ``Failure``)."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in a document: which one, where in it, and what was expected there."""

    key: str
    """The document: a catalog key (``services/web``) or a file name."""
    path: str
    """Where in the document, dotted (``backends.web1.weight``); empty for the whole document."""
    expected: str
    """What was expected, and what was found."""
    line: int = 0
    """1-based line in the file, 0 when not known."""

    def __str__(self) -> str:
        where = f"{self.key}:{self.line}" if self.line else self.key
        return f"{where}: {self.path}: {self.expected}" if self.path else f"{where}: {self.expected}"


class SettingsError(AnycastlbError):
    """node.toml cannot be used; ``problems`` holds every problem found in it."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


# ---------------------------------------------------------------- the machine: rows of the tables we write


def endpoint(address: Address, port: int) -> str:
    """``192.0.2.10:80`` or ``[2001:db8::1]:80``."""
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


@dataclass(frozen=True, slots=True)
class ServiceKey:
    """The kernel's identity of an IPVS service.

    A fwmark service has protocol ``fwmark``, the unspecified address of its family, and the mark as ``port``.
    """

    protocol: Protocol
    address: Address
    port: int

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


Table: TypeAlias = Literal["sysctls", "addresses", "services", "destinations", "routes"]
TABLES: tuple[Table, ...] = ("sysctls", "addresses", "services", "destinations", "routes")
Rows: TypeAlias = Mapping[Any, Any]


@dataclass(frozen=True, slots=True)
class State:
    """What is, or what should be: one type for both.

    The order of ``destinations`` within one service is the order in which they were added to the kernel,
    oldest first; it is part of the state (the ``mh`` table depends on it). No other order means anything.
    """

    sysctls: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    """``net/ipv4/vs/sloppy_tcp`` -> ``"1"``. Only those asked for; never deleted."""
    addresses: Mapping[Address, VipAddress] = field(default_factory=lambda: EMPTY)
    services: Mapping[ServiceKey, VirtualService] = field(default_factory=lambda: EMPTY)
    destinations: Mapping[DestinationKey, Destination] = field(default_factory=lambda: EMPTY)
    routes: Mapping[Address, Route] = field(default_factory=lambda: EMPTY)

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
    reason: str


# ---------------------------------------------------------------- the catalog: what operators asked for


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
class Via:
    """One backend as IPVS reaches it: a probe through here takes the way of the backend's real traffic."""

    address: Address
    forward: Forward
    tunnel_port: int
    family: Literal[4, 6]
    """The family of the VIP: of the packets, not of the backend."""
    port: int = 0
    """The destination port in the kernel: the backend's for ``nat``, else 0 (the port of the packet)."""


@dataclass(frozen=True, slots=True)
class Lane:
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
    via: Via | None = None
    """The probe goes to the VIP (``address``) through IPVS to this one backend; None = straight to the backend."""

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
        return _aimed(backend.check, vip, self.port if self.protocol != "fwmark" else 0, via)

    def via(self, vip: Address, backend: Backend) -> Via | None:
        """The way the backend's check takes through IPVS; None if it goes straight to the backend."""
        if not backend.through:
            return None
        port = backend.port if backend.forward == "nat" else 0
        return Via(backend.address, backend.forward, backend.tunnel_port, vip.version, port)

    def members(self, vip: Address) -> tuple[Backend, ...]:
        """The backends that serve this VIP: those of its own family; if there is none, all of them."""
        same = tuple(b for b in self.backends if b.address.version == vip.version)
        return same or self.backends


def _aimed(check: Check, vip: Address, port: int, via: Via) -> Check:
    params = check.params
    if isinstance(params, Combination):
        params = Combination(tuple(_aimed(part, vip, port, via) for part in params.checks))
    return replace(check, address=vip, port=port or check.port, params=params, via=via)


@dataclass(frozen=True, slots=True)
class Catalog:
    """All services of one consistent read, in a canonical order, and what was wrong with the read."""

    services: tuple[Service, ...] = ()
    drained: frozenset[str] = frozenset()
    """Names of drained nodes."""
    problems: tuple[Problem, ...] = ()
    index: int = 0
    """Consul's index of the read (0 for other sources): which catalog this is."""
    good: Mapping[str, Entry] = field(default_factory=lambda: EMPTY)
    """The raw entries this catalog was made of, the last good ones in place of the bad: what is worth keeping."""
    discovers: Mapping[Discover, tuple[str, ...]] = field(default_factory=lambda: EMPTY)
    """Every discovery that is asked for, and by which services, also by those that wait for its first answer."""
    instances: Mapping[Discover, tuple[Instance, ...]] = field(default_factory=lambda: EMPTY)
    """Of those, what is known: the instances this catalog was made of."""

    @property
    def vips(self) -> frozenset[Address]:
        return frozenset(vip for service in self.services for vip in service.vips)


# ---------------------------------------------------------------- health


@dataclass(frozen=True, slots=True)
class Result:
    """What one probe found."""

    ok: bool
    detail: str
    """``HTTP 503``, ``connection refused``: in the words an operator would use."""
    duration: float
    at: float
    weight: int | None = None
    """The weight the target asked for, in percent of its nominal weight; None = it said nothing."""
    drain: bool = False
    """The target asked for no new flows."""


@dataclass(frozen=True, slots=True)
class CheckState:
    """The folded results of one check. ``up`` is None until the first result."""

    up: bool | None = None
    streak: int = 0
    """Consecutive results that contradict ``up``."""
    since: float = 0.0
    last: Result | None = None
    asks: tuple[int | None, bool] = (None, False)
    """What the last good result asked for: a weight in percent of the nominal one, and to be drained."""
    agreed: int = 0
    """Consecutive results that agreed with ``up`` since it was reached."""
    recent: tuple[Result, ...] = ()
    """Evidence: the last results, oldest first."""
    failures: tuple[Result, ...] = ()
    """Evidence: the last failures, which outlive the successes after them; oldest first."""
    record: tuple[float, int] = (0.0, 0)
    """Of at most the last hundred results: how many were good (a moving average once full), and how many there were."""


Health: TypeAlias = Mapping[Check, CheckState]


# ---------------------------------------------------------------- decisions


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything a decision is made from. Each field has exactly one writer."""

    node: str = ""
    catalog: Catalog = Catalog()
    feed: Feed = Feed()
    health: Health = field(default_factory=lambda: EMPTY)
    failures: tuple[Failure, ...] = ()
    """What the last cycle could not write."""
    idle: frozenset[DestinationKey] = frozenset()
    """Leaving destinations without a connection."""
    sysctls: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    """The sysctls this node must have; empty when the operator manages them."""
    lane_sysctls: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    """Those it must have too while a probe goes through IPVS."""
    marks: tuple[int, int] = MARKS
    """The firewall marks (low, high) for probes through IPVS."""
    stopping: bool = False


@dataclass(frozen=True, slots=True)
class Weights:
    """What a backend's weight is made of. The effective weight is a function of these four and nothing else."""

    nominal: int
    """As configured, in the kernel's coarseness."""
    admin: int | None = None
    """What an operator set instead, for now; None = nothing, 0 = no new flows."""
    health: float = 1.0
    """0 = down, 1 = up, between: the share the backend itself asked for, or its record earned."""
    ramp: float = 1.0
    """How far its slow start is, more than 0."""


@dataclass(frozen=True, slots=True)
class BackendVerdict:
    """One backend of one IPVS service: does it count as up, what weight does it get, and why."""

    service: str
    backend: str
    up: bool
    weight: int
    reason: str
    weights: Weights = Weights(0)


@dataclass(frozen=True, slots=True)
class ServiceVerdict:
    """Can this service be served on this VIP?"""

    service: str
    key: ServiceKey
    open: bool
    up: int
    total: int
    needed: int
    """In backends; a sum of weights if the threshold is a weight."""
    reason: str
    unsettled: float = 0.0
    """Seconds within which the first results of its unchecked backends must be there; 0 if all were checked."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """May this VIP be announced? Always with a reason, for a yes and for a no."""

    vip: Address
    open: bool
    reason: str
    since: float
    services: tuple[ServiceVerdict, ...] = ()
    penalty: float = 0.0
    """RFC 2439 figure of merit at the time of the decision; 0 without damping."""


@dataclass(frozen=True, slots=True)
class Gate:
    """What a VIP's gate remembers."""

    open: bool
    since: float
    """When ``open`` last changed."""
    ready_since: float | None = None
    """Since when the VIP could be served without a break; None while it cannot."""
    penalty: float = 0.0
    """Of damping, as it was at ``penalty_at``."""
    penalty_at: float = 0.0
    suppressed_since: float | None = None


@dataclass(frozen=True, slots=True)
class Leaving:
    """A row nobody asks for any more, kept so that its flows can end."""

    row: Any
    until: float


@dataclass(frozen=True, slots=True)
class Memory:
    """What one decision leaves for the next."""

    gates: Mapping[Address, Gate] = field(default_factory=lambda: EMPTY)
    rows: Mapping[tuple[Table, Any], tuple[Any, float]] = field(default_factory=lambda: EMPTY)
    """Every row that was asked for: its value, and how long to keep it once nobody asks."""
    leaving: Mapping[tuple[Table, Any], Leaving] = field(default_factory=lambda: EMPTY)
    up_since: Mapping[DestinationKey, float] = field(default_factory=lambda: EMPTY)
    """When each backend that counts as up came up, the start of its slow start: long ago if it was up at the start."""
    serving: frozenset[ServiceKey] = frozenset()
    """Services that could be served: it takes less to stay so than to become so."""
    order: tuple[DestinationKey, ...] = ()
    """The destinations of the desired state, in its order."""
    marks: Mapping[Via, int] = field(default_factory=lambda: EMPTY)
    """The firewall marks given to probes through IPVS."""


@dataclass(frozen=True, slots=True)
class Decision:
    desired: State = State()
    memory: Memory = Memory()
    verdicts: Mapping[Address, Verdict] = field(default_factory=lambda: EMPTY)
    backends: Mapping[DestinationKey, BackendVerdict] = field(default_factory=lambda: EMPTY)
    lanes: Mapping[Via, int | None] = field(default_factory=lambda: EMPTY)
    """The mark of every backend that is probed through IPVS; None = there was none left."""
    wake_at: float | None = None
    """When this decision would change by the mere passing of time; None = never."""


# ---------------------------------------------------------------- what readers may see


@dataclass(frozen=True, slots=True)
class Session:
    """One BGP session of the local ExaBGP."""

    peer: str
    state: Literal["up", "down", "connected", "unknown"]
    since: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Speaker:
    """The local BGP speaker as the bridge last reported it."""

    connected: bool = False
    """Is the bridge connected to the daemon?"""
    version: str = ""
    sessions: tuple[Session, ...] = ()
    rejected: Mapping[Address, str] = field(default_factory=lambda: EMPTY)
    """Routes ExaBGP or the bridge refused, with the reason."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One reconciler cycle, whole: all that API, metrics and commands may see."""

    inputs: Inputs = Inputs()
    actual: State = State()
    decision: Decision = Decision()
    plan: tuple[Change, ...] = ()
    failures: tuple[Failure, ...] = ()
    speaker: Speaker = Speaker()
    at: float = 0.0
    at_wall: float = 0.0
    cycle: int = 0
