"""What one decision leaves for the next, and what of it outlives the daemon."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from anycastlb.core.model.base import EMPTY, Address
from anycastlb.core.model.check import ForwardPath
from anycastlb.core.model.drain import NodeDrain
from anycastlb.core.model.http_memory import HttpMemory
from anycastlb.core.model.leaving import Leaving
from anycastlb.core.model.machine import DestinationKey, Route, ServiceKey, Table


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
    """The routes of the desired state; at the start, those that ExaBGP had already."""
    node_drain: NodeDrain | None = None
    """How far this node's drain has come; None: it does not leave."""
    had_peers: bool | None = None
    """Were other nodes ever known? None: nobody could say yet."""
    http: HttpMemory = HttpMemory()
