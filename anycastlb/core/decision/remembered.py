"""What the last decision leaves behind beside its memory, so that the next one need not make everything anew.

``Memory`` is a part of what is decided: why a backend counts as up, since when a gate waits. What stands here is only
a short cut. With an empty one (``FROM_SCRATCH``) the same code decides everything from scratch, and the outcome is
equal (a law). ``scope`` says which groups of VIPs must be decided anew.

Pure. Decision record: docs/decisions/0014-incremental-brain.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from anycastlb.core.decision.group_result import NEVER, GroupResult
from anycastlb.core.decision.http.tier import OFF, Tier
from anycastlb.core.decision.rows import Tables
from anycastlb.core.decision.vip_groups import NO_GROUPS, Grouping
from anycastlb.core.model import (
    Address,
    Check,
    Decision,
    Destination,
    DestinationKey,
    Inputs,
    Memory,
    Reason,
    Service,
    ServiceKey,
    VirtualService,
)

ProbeRows: TypeAlias = tuple[Mapping[ServiceKey, VirtualService], Mapping[DestinationKey, Destination]]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The services with which a decision failed."""

    services: tuple[Service, ...]
    faults: Mapping[str, Reason]
    """Why, by what the fault is about."""
    tried_at: float
    """When a decision was last tried with them."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """A decision, and what it was put together from."""

    decision: Decision
    inputs: Inputs
    grouping: Grouping
    results: Mapping[Address, GroupResult]
    """One for each group, in their order."""
    by_check: Mapping[Check, tuple[Address, ...]]
    """The groups whose backends have this check."""
    tables: Tables
    """The kernel's tables of all groups together, without what is leaving."""
    up_since: Mapping[DestinationKey, float]
    """Since when the backends of all groups have been up."""
    probe_rows: ProbeRows
    """The IPVS services and destinations of probes."""
    http: Tier = OFF
    """The HTTP tier of the decision."""
    whole: Decision | None = None
    """The decision as it was made, if ``decision`` says in addition what was left out of it (``quarantine``)."""
    aside: LeftOut | None = None
    """What was left out of it."""

    @property
    def passing(self) -> int:
        """How many groups the next decision makes anew, whatever it is made from."""
        return sum(result.until == NEVER for result in self.results.values())

    def usable(self, inputs: Inputs, memory: Memory) -> bool:
        """May any of it be used? Not while the node leaves, which concerns every group."""
        return (
            self.decision.memory is memory
            and self.inputs.policy is inputs.policy
            and not any(now.stopping or now.node in now.catalog.drained for now in (self.inputs, inputs))
            and memory.node_drain is None
        )


FROM_SCRATCH = Remembered(Decision(), Inputs(), NO_GROUPS, {}, {}, Tables(), {}, ({}, {}))
