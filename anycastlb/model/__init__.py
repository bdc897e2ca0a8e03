"""Every immutable value that flows through the daemon, and the error tree.

Nothing here decides, reads a clock or touches the machine. Times called ``since``, ``at`` or ``until`` are
seconds on the daemon's monotonic clock unless their name ends in ``_wall``; durations are seconds.

The error tree::

    AnycastlbError
    ├── SettingsError     node.toml cannot be used; carries every problem found in it
    ├── SourceError       the catalog source did not answer, or answered something that is no catalog
    │   └── Conflict      a write to it lost a race; nothing was written
    └── DriverError       the machine (netlink, sysctl, ExaBGP bridge) refused or did not answer
"""

from __future__ import annotations

from anycastlb.model.base import (
    EMPTY,
    MARKS,
    Address,
    AnycastlbError,
    Conflict,
    DriverError,
    Forward,
    Network,
    Problem,
    Protocol,
    SettingsError,
    SourceError,
    endpoint,
)
from anycastlb.model.catalog import (
    Announce,
    Backend,
    Catalog,
    Check,
    Combination,
    ConsulInstances,
    Damping,
    Discover,
    DnsInstances,
    Edit,
    Entry,
    Feed,
    Instance,
    Lane,
    Service,
    Share,
    Shrink,
    Tree,
    Via,
)
from anycastlb.model.decision import (
    BackendVerdict,
    Decision,
    Gate,
    Inputs,
    Leaving,
    Memory,
    ServiceVerdict,
    Session,
    Snapshot,
    Speaker,
    Verdict,
    Weights,
)
from anycastlb.model.machine import (
    TABLES,
    Change,
    Destination,
    DestinationKey,
    Failure,
    Route,
    Rows,
    ServiceKey,
    State,
    Table,
    VipAddress,
    VirtualService,
)
from anycastlb.model.results import CheckState, Health, Result

__all__ = [
    "EMPTY",
    "MARKS",
    "TABLES",
    "Address",
    "Announce",
    "AnycastlbError",
    "Backend",
    "BackendVerdict",
    "Catalog",
    "Change",
    "Check",
    "CheckState",
    "Combination",
    "Conflict",
    "ConsulInstances",
    "Damping",
    "Decision",
    "Destination",
    "DestinationKey",
    "Discover",
    "DnsInstances",
    "DriverError",
    "Edit",
    "Entry",
    "Failure",
    "Feed",
    "Forward",
    "Gate",
    "Health",
    "Inputs",
    "Instance",
    "Lane",
    "Leaving",
    "Memory",
    "Network",
    "Problem",
    "Protocol",
    "Result",
    "Route",
    "Rows",
    "Service",
    "ServiceKey",
    "ServiceVerdict",
    "Session",
    "SettingsError",
    "Share",
    "Shrink",
    "Snapshot",
    "SourceError",
    "Speaker",
    "State",
    "Table",
    "Tree",
    "Verdict",
    "Via",
    "VipAddress",
    "VirtualService",
    "Weights",
    "endpoint",
]
