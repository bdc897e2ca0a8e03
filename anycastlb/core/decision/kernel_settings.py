"""The kernel's settings as part of the desired state: sysctls, IPVS's time-outs, connection sync.

Theory of operation. These rows are not ours to delete: something stood there before. So of every row we change the
driver remembers what it found (``inputs.originals``), and a row that is wanted no more is wanted as it was found: when
its setting left node.toml, when the last probe through IPVS ended, and all of them once a stopping node has left
nothing else behind.

Pure. Which values are wanted is said by whoever makes the inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from anycastlb.core.model import Decision, Inputs, ServiceKey, State

CACHED = "mh"
"""The one scheduler that finds a flow's backend again, on any node and at any time, without its connection entry."""


def lay(decision: Decision, inputs: Inputs) -> Decision:
    """The decision with the settings it needs, and with those it needs no more as they were found."""
    desired, found = decision.desired, inputs.originals
    sysctls: Mapping[str, Any] = {} if inputs.emptied else desired.sysctls
    config: Mapping[str, Any] = {} if inputs.emptied else inputs.config
    if inputs.cached_config and not inputs.emptied and only_caches(desired, inputs.marks):
        config = {**inputs.cached_config, **config}
    sysctls, config = {**found.get("sysctls", {}), **sysctls}, {**found.get("config", {}), **config}
    return replace(decision, desired=replace(desired, sysctls=sysctls, config=config))


def only_caches(state: State, probes: tuple[int, int]) -> bool:
    """Is there a service, and can every flow do without its connection entry? Rows of probes do not count.

    Not so with another scheduler than ``mh``, which would choose another backend; with ``nat``, whose replies could
    not be translated back; with persistence, whose clients would be spread anew. Rows that are leaving count too.
    """
    low, high = probes
    ours = {key: row for key, row in state.services.items() if not _probe(key, low, high)}
    if not ours or any(row.scheduler != CACHED or row.persistence for row in ours.values()):
        return False
    return all(row.forward != "nat" or key.service not in ours for key, row in state.destinations.items())


def _probe(key: ServiceKey, low: int, high: int) -> bool:
    return key.protocol == "fwmark" and low <= key.port <= high
