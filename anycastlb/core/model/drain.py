"""A node that leaves the routes: what it was asked for, the rules it follows, and how far it has come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from anycastlb.core.model.base import Reason

Stage: TypeAlias = Literal["waiting", "graceful", "withdrawn", "drained"]
"""``waiting`` for a stable table; ``graceful``: announced, but asking routers to prefer others; ``withdrawn``: until
nothing comes any more; ``drained``: it may be taken away."""


@dataclass(frozen=True, slots=True)
class Drain:
    """The document ``drain/<node>``. All of it is for people, except ``deadline`` and ``force``."""

    reason: str = ""
    by: str = ""
    since: str = ""
    """When it was asked for, as the document says."""
    deadline: float | None = None
    """Seconds after the withdrawal at which the node counts as drained whatever still comes; None: the node's own."""
    force: bool = False
    """Leave even where that spends more than the cluster's budget, or nobody else announces."""


@dataclass(frozen=True, slots=True)
class DrainRules:
    """How this node leaves the routes. A value of 0 skips the stage that it belongs to."""

    graceful: float = 0.0
    """Seconds for which routes stay up with the community 65535:0."""
    med: int | None = None
    """The MED they carry meanwhile; None: their own stays."""
    prepend: int = 0
    """How many more times the node's own AS is prepended meanwhile."""
    settle: float = 0.0
    """Maximum seconds for which a drain waits for a stable table."""
    deadline: float = 0.0
    """Seconds after the withdrawal at which the node counts as drained whatever still comes."""
    max_drained: int = 0
    """How many nodes may be drained at once; 0: any number."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What the kernel has counted for all services of the catalog."""

    at: float
    packets: int
    """Since the services were created."""
    connections: int
    """Connections that are open as far as this node knows: it sees no end of one that moved to another node."""


@dataclass(frozen=True, slots=True)
class NodeDrain:
    """How far this node's drain has come."""

    stage: Stage
    cause: Literal["drained", "stopping"]
    since: float
    """When the stage began."""
    until: float | None
    """When it ends at the latest; None: it stays."""
    reason: Reason
    """Its text says nothing that changes by itself."""
    overdue: bool = False
    """The stage before ended because its time was over, not because it had come to its end."""
    unchanged: tuple[int, float] | None = None
    """While it waits: what the table is like, and since when it is so."""
    samples: tuple[Traffic, ...] = ()
    """The last few, oldest first."""
    calm: Traffic | None = None
    """The sample since which almost nothing came."""
