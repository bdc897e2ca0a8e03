"""What a decision concludes of backends, services and VIPs, always with a reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from anycastlb.core.model.base import Address, Reason
from anycastlb.core.model.machine import ServiceKey


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
    """The clauses of the reason beyond the check's own."""


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
