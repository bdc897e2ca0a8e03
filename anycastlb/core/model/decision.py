"""What a decision is made from, what it consists of, and what readers may see of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from anycastlb.core.model.base import EMPTY, MARKS, Address, Reason
from anycastlb.core.model.catalog import Catalog, Feed, ForwardPath, Share
from anycastlb.core.model.cluster import Cluster
from anycastlb.core.model.drain import DrainRules, NodeDrain, Traffic
from anycastlb.core.model.machine import (
    Change,
    DestinationKey,
    Failure,
    Route,
    Rows,
    ServiceKey,
    State,
    SyncDaemon,
    Table,
)
from anycastlb.core.model.names import Naming, Registrar
from anycastlb.core.model.results import Health


@dataclass(frozen=True, slots=True)
class Policy:
    """What node.toml says. It never changes while the daemon runs."""

    node: str = ""
    sysctls: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    """The sysctls this node must have; empty when the operator manages them."""
    probing_sysctls: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    """Those it must have too while a probe goes through IPVS."""
    config: Mapping[str, int | SyncDaemon] = field(default_factory=lambda: EMPTY)
    """The settings of IPVS (rows of ``config``) this node must have; empty when the operator manages them."""
    cached_config: Mapping[str, int] = field(default_factory=lambda: EMPTY)
    """Those it must have too while a connection's entry is only a cache."""
    marks: tuple[int, int] = MARKS
    """The firewall marks (low, high) for probes through IPVS."""
    max_withdrawals: Share | None = None
    """How many VIPs the cluster may withdraw by health within a minute; None = no bound."""
    naming: Naming = Naming()
    """The names this node publishes."""
    drain_rules: DrainRules = DrainRules()
    """How this node leaves the routes."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything a decision is made from: the node's policy, and what was observed. Each field has one writer."""

    policy: Policy = Policy()
    catalog: Catalog = Catalog()
    feed: Feed = Feed()
    health: Health = field(default_factory=lambda: EMPTY)
    failures: tuple[Failure, ...] = ()
    """What the last cycle could not write."""
    idle: frozenset[DestinationKey] = frozenset()
    """Leaving destinations without a connection."""
    originals: Mapping[Table, Rows] = field(default_factory=lambda: EMPTY)
    """Of the rows of ``sysctls`` and ``config`` that we have changed, what they were before."""
    cluster: Cluster = Cluster()
    """The other nodes. Decisions depend on what ``peer_health.news`` and ``service_names.view`` compare, and a drain
    waits for a stable table."""
    wall: float = 0.0
    """Wall-clock seconds at the daemon's clock's zero: nodes publish times as wall time."""
    names: Mapping[Table, Rows] = field(default_factory=lambda: EMPTY)
    """The tables of names as they were last seen; one that was never seen is missing."""
    announced: frozenset[Address] | None = None
    """The routes that were there at the last look; None while it is too early to say."""
    stopping: bool = False
    emptied: bool = False
    """While stopping: nothing of ours is left, so that settings of the kernel may be given back."""
    traffic: Traffic | None = None
    """What the kernel counts while the node leaves; None where nobody counts."""

    @property
    def node(self) -> str:
        """The name of this node."""
        return self.policy.node


@dataclass(frozen=True, slots=True)
class Weights:
    """The four parts of a backend's weight. The effective weight is a function of these and nothing else."""

    nominal: int
    """As configured, in the kernel's coarseness."""
    admin: int | None = None
    """The weight that an operator has set instead, for now; None = none, 0 = no new flows."""
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
    reason: Reason
    weights: Weights = Weights(0)
    notes: tuple[str, ...] = ()
    """The clauses of the reason beyond what the check itself said."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What this node's own probes make of a service, before any policy and whatever the other nodes report."""

    well: bool = True
    """Enough backends are up, or fallback ones that may stand in."""
    dead: bool = False
    """Every backend that is wanted was probed and is down, and no fallback is up."""
    able: bool = True
    """With its backends up it could be served: operators want flows on one, and the machine refuses nothing."""
    cycle: float = 0.0
    """Seconds by which two nodes' probes may see one and the same death apart from each other."""
    recovery: float = 0.0
    """Seconds within which all backends that came back together must count as up."""


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
    reason: Reason
    unsettled: float = 0.0
    """Seconds within which the first results of its unchecked backends must be there; 0 if all were checked."""
    returning: float = 0.0
    """Seconds within which backends that are down may follow those that came up; 0 if nobody does."""
    condition: Condition = Condition()
    proving: float = 0.0
    """Of a service on an announced VIP that is not open: seconds within which the first results of backends that an
    edit brought may open it; 0 if they cannot."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """May this VIP be announced? Always with a reason, for a yes and for a no."""

    vip: Address
    open: bool
    reason: Reason
    since: float
    services: tuple[ServiceVerdict, ...] = ()
    penalty: float = 0.0
    """RFC 2439 figure of merit at the time of the decision; 0 without damping."""
    own: Literal["", "well", "ill", "unable"] = ""
    """As ``VipSummary.own``."""
    kept: Literal["", "asks", "last", "limit"] = ""
    """Why the gate is open although this node's own probes would close it. ``asks``: it waits for the peers' reports.
    ``last``: it holds the last route. ``limit``: the cluster may not withdraw more VIPs for now."""


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
    withdrawn_wall: int = 0
    """When it was last closed out of the cluster's budget of withdrawals, in whole seconds of wall time."""


@dataclass(frozen=True, slots=True)
class Recollection:
    """What of a decision's memory outlives the daemon. Its moments are wall-clock seconds."""

    gates: Mapping[Address, Gate] = field(default_factory=lambda: EMPTY)
    """Those that are closed, or carry a penalty."""
    below: frozenset[ServiceKey] = frozenset()
    """Services that could not be served: it takes more to become so than to stay so."""
    at_wall: float = 0.0
    """When it was true."""


@dataclass(frozen=True, slots=True)
class LocalTrouble:
    """What is wrong with a VIP by this node's own probes."""

    dead: frozenset[str]
    """Services all of whose backends are down."""
    shut: bool
    """Local health alone would close the gate."""
    since: float
    """When the last of it began: what peers published before may be older than the same trouble there."""


@dataclass(frozen=True, slots=True)
class Leaving:
    """A row nobody asks for any more, kept so that its flows can end."""

    row: Any
    until: float
    drain: float = 0.0
    """Seconds for which it is kept once nothing new comes to it."""
    serves: bool = False
    """It serves as before, until the backends that replace it were checked for the first time."""


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
    order: Mapping[ServiceKey, tuple[DestinationKey, ...]] = field(default_factory=lambda: EMPTY)
    """The destinations of each service of the desired state, in their order."""
    marks: Mapping[ForwardPath, int] = field(default_factory=lambda: EMPTY)
    """The firewall marks given to probes through IPVS."""
    troubles: Mapping[Address, LocalTrouble] = field(default_factory=lambda: EMPTY)
    """What is wrong with each VIP by this node's own probes."""
    unproven: Mapping[DestinationKey, float] = field(default_factory=lambda: EMPTY)
    """Since when each backend has been wanted that was never checked."""
    fwmarks: Mapping[ServiceKey, frozenset[Address]] = field(default_factory=lambda: EMPTY)
    """The VIPs of every fwmark service, whose key does not name them; also of those that nobody wants any more."""
    followed: Mapping[tuple[str, ServiceKey], float | None] = field(default_factory=lambda: EMPTY)
    """Services whose weights follow the peers, and since when one of their backends is up here again."""
    routes: Mapping[Address, Route] = field(default_factory=lambda: EMPTY)
    """The routes of the desired state; at the start, those that were there."""
    node_drain: NodeDrain | None = None
    """How far this node's drain has come; None: it does not leave."""
    company: bool | None = None
    """Were other nodes ever known? None: nobody could say yet."""


@dataclass(frozen=True, slots=True)
class Decision:
    desired: State = State()
    memory: Memory = Memory()
    verdicts: Mapping[Address, Verdict] = field(default_factory=lambda: EMPTY)
    backends: Mapping[DestinationKey, BackendVerdict] = field(default_factory=lambda: EMPTY)
    probe_paths: Mapping[ForwardPath, int | None] = field(default_factory=lambda: EMPTY)
    """The mark of every backend that is probed through IPVS; None = there was none left."""
    faults: Mapping[str, Reason] = field(default_factory=lambda: EMPTY)
    """What went wrong inside this decision and was contained, by the VIP or the service that it is about."""
    wake_at: float | None = None
    """When this decision would change by the mere passing of time; None = never."""

    @property
    def doubtful(self) -> bool:
        """Does a closed gate wait for the next result of a backend that is down, even if it stays down?"""
        return any(
            not verdict.open and any(service.returning for service in verdict.services)
            for verdict in self.verdicts.values()
        )


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
    """What this cycle tried, in its order."""
    failures: tuple[Failure, ...] = ()
    """What of it was refused."""
    pending: tuple[Change, ...] = ()
    """What is still to be changed after the cycle: what was refused, and names, which are written in the background."""
    speaker: Speaker = Speaker()
    registrars: tuple[Registrar, ...] = ()
    at: float = 0.0
    at_wall: float = 0.0
    cycle: int = 0
