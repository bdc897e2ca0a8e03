"""The kernel's settings as part of the desired state: sysctls, IPVS's time-outs, connection sync.

Theory of operation. These rows are not ours to delete: the kernel had a value there before. So of every row we change
the driver remembers the value before (``inputs.originals``), and a row that is wanted no more is set back to it: when
its setting left node.toml, when the last probe through IPVS ended, and all of them once a stopping node has left
nothing else behind.

Pure. The values that are wanted are part of the node's policy (``inputs.policy``).

Decision record: docs/decisions/0007-kernel-settings-as-state.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from anycastlb.core.model import Destination, DestinationKey, Inputs, ServiceKey, SyncDaemon, VirtualService

CACHED = "mh"
"""The one scheduler that finds a flow's backend again, on any node and at any time, without its connection entry."""


def sysctls(inputs: Inputs, probing: bool) -> dict[str, str]:
    """The sysctls this node must have, and those it needs no more as they were before.

    ``probing``: a probe goes through IPVS.
    """
    policy = inputs.policy
    wanted = {} if inputs.emptied else {**policy.sysctls, **(policy.probing_sysctls if probing else {})}
    return {**inputs.originals.get("sysctls", {}), **wanted}


def config(inputs: Inputs, cached: bool) -> dict[str, int | SyncDaemon | None]:
    """The settings of IPVS this node must have, and those it needs no more as they were before.

    ``cached``: every connection entry is only a cache (``only_caches``).
    """
    policy = inputs.policy
    wanted = {} if inputs.emptied else {**(policy.cached_config if cached else {}), **policy.config}
    return {**inputs.originals.get("config", {}), **wanted}


def only_caches(services: Mapping[ServiceKey, VirtualService], rows: Mapping[DestinationKey, Destination]) -> bool:
    """Is there a service, and can every flow do without its connection entry? ``rows``: its destinations."""
    return bool(services) and need_no_entries(services.values(), rows.values())


def need_no_entries(services: Iterable[VirtualService], rows: Iterable[Destination]) -> bool:
    """Can every flow of these do without its connection entry?

    Not so with another scheduler than ``mh``, which would choose another backend; with ``nat``, whose replies could
    not be translated back; with persistence, whose clients would be spread anew; with a bound of connections, beyond
    which a backend's flows went elsewhere. Rows that are leaving count too.
    """
    if any(row.scheduler != CACHED or row.persistence for row in services):
        return False
    return all(row.forward != "nat" and not row.upper for row in rows)
