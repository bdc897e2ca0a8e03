"""What a decision consists of: the desired state, and the verdicts with their reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from anycastlb.core.model.base import EMPTY, Address, Reason
from anycastlb.core.model.catalog import Service
from anycastlb.core.model.check import ForwardPath
from anycastlb.core.model.http_verdicts import NO_HTTP, HttpVerdicts
from anycastlb.core.model.machine import DestinationKey, State
from anycastlb.core.model.memory import Memory
from anycastlb.core.model.verdicts import BackendVerdict, Verdict


@dataclass(frozen=True, slots=True)
class Decision:
    desired: State = State()
    memory: Memory = Memory()
    verdicts: Mapping[Address, Verdict] = field(default_factory=lambda: EMPTY)
    backends: Mapping[DestinationKey, BackendVerdict] = field(default_factory=lambda: EMPTY)
    probe_paths: Mapping[ForwardPath, int | None] = field(default_factory=lambda: EMPTY)
    """The mark of every backend that is probed through IPVS; None = there was none left."""
    http: HttpVerdicts = NO_HTTP
    """What it says of gateways, routes and pools; nothing where node.toml has no ``[http]``."""
    sharing: tuple[Service, ...] = ()
    """The gateways whose connections nodes share, as services whose backends are these nodes."""
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
