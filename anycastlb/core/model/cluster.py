"""The other nodes: what each has published of itself, and where they differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from anycastlb.core.model.base import EMPTY, Address, Problem


@dataclass(frozen=True, slots=True)
class CatalogSummary:
    """Which catalog a node has in force."""

    index: int = 0
    """Consul's index when it was read. Nodes that read at different moments differ in it with the same catalog."""
    hash: str = ""
    """Of all that the catalog was made of: equal on nodes with the same catalog. Empty before the first is loaded."""
    connected: bool = False
    cached: bool = False
    held: bool = False


@dataclass(frozen=True, slots=True)
class VipSummary:
    announced: bool
    """ExaBGP has acknowledged its route, and not every BGP session of its family is down."""
    open: bool
    reason: str = ""
    own: str = ""
    """What the node's own probes say of it, whatever other nodes report and whatever its gate is. ``well``: the VIP can
    be served. ``ill``: it cannot be served now. ``unable``: it could not be served even if every backend were up.
    Empty: an older node does not say."""


@dataclass(frozen=True, slots=True)
class ServiceSummary:
    """One service on one VIP, as a node judges it."""

    open: bool
    up: int
    total: int
    down: tuple[str, ...] = ()
    """The backends that do not count as up; ``*`` alone if none does."""
    dead: bool = False
    """Every backend that is wanted was probed and is down, and no fallback serves instead."""


@dataclass(frozen=True, slots=True)
class SessionSummary:
    peer: str
    state: str
    """``down`` only if ExaBGP has reported that it went down."""


@dataclass(frozen=True, slots=True)
class DrainSummary:
    """How far a node's drain has come, as the node publishes it."""

    stage: str
    cause: str
    reason: str
    since: str
    """When the stage began, RFC 3339 in UTC."""
    deadline: str = ""
    """When it ends at the latest; empty: it stays."""
    asked: str = ""
    """When the drain was asked for, as its document says: which drain this is."""
    code: str = ""
    """The code of the reason; empty: an older node does not say."""


@dataclass(frozen=True, slots=True)
class Status:
    """What a node publishes of itself. Nothing in it changes by the mere passing of time."""

    node: str
    version: str = ""
    instance: str = ""
    """Which installation wrote it. Two installations with one node name are a mistake. Empty: not known."""
    started: str = ""
    """When its process started, RFC 3339 in UTC."""
    ready: bool = False
    missing: tuple[str, ...] = ()
    """What it waits for while it is not ready."""
    drained: bool = False
    stopping: bool = False
    catalog: CatalogSummary = CatalogSummary()
    vips: Mapping[Address, VipSummary] = field(default_factory=lambda: EMPTY)
    services: Mapping[str, Mapping[Address, ServiceSummary]] = field(default_factory=lambda: EMPTY)
    """By service and VIP."""
    digests: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    """By service, of the kernel's tables as they are: equal on nodes that map every flow alike."""
    sessions: tuple[SessionSummary, ...] = ()
    leave: DrainSummary | None = None
    withdrawn: Mapping[Address, int] = field(default_factory=dict)
    """When it last withdrew each VIP by health, as the cluster's budget counts it: whole seconds of wall time."""
    omitted: tuple[str, ...] = ()
    """What was left out because it would not have fitted into one key of Consul."""
    gateway_address: Address | None = None
    """Where other nodes send connections of gateways that this one is to serve; None: it shares none."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Another node. ``status`` is the last one that could be read; None if there never was one."""

    name: str
    alive: bool
    """Its session holds its key."""
    status: Status | None = None
    error: str = ""
    """Why what it published cannot be read."""
    since: float = 0.0
    """When its status was last seen to change; of one that is gone, when it was last seen."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Nodes that disagree about one thing: what each party has, and since when that has not changed."""

    parties: Mapping[str, tuple[str, ...]]
    """Digest or hash -> the nodes that have it."""
    since: float


@dataclass(frozen=True, slots=True)
class Cluster:
    """The other nodes as this one knows them."""

    follows: bool = False
    """Is there a registry through which nodes learn of each other?"""
    alone: str = ""
    """Why there is none, as text."""
    connected: bool = False
    """While False, ``peers`` is what was known last."""
    since: float = 0.0
    """When ``connected`` last changed."""
    error: str = ""
    published: bool = False
    """This node's own status has been written where the others read it."""
    peers: Mapping[str, Peer] = field(default_factory=lambda: EMPTY)
    """The other nodes by name; those that vanished stay for a while."""
    catalogs: Difference | None = None
    """Living nodes with different catalogs in force."""
    tables: Mapping[str, Difference] = field(default_factory=lambda: EMPTY)
    """By service: living nodes with the same catalog and different tables in the kernel."""
    problems: tuple[Problem, ...] = ()
    """Why this node's own status is not published, or not whole, and what to do about it."""
    started: str = ""
    """When this process started, RFC 3339 in UTC."""
