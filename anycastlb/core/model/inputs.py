"""What a decision is made from: the node's policy, and what was observed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from anycastlb.core.model.announce import Share
from anycastlb.core.model.base import EMPTY, MARKS, Address
from anycastlb.core.model.catalog import Catalog
from anycastlb.core.model.cluster import Cluster
from anycastlb.core.model.drain import DrainRules, Traffic
from anycastlb.core.model.ingress import Spread
from anycastlb.core.model.machine import DestinationKey, Failure, Rows, SyncDaemon, Table
from anycastlb.core.model.names import Naming
from anycastlb.core.model.passive import PassiveFailures
from anycastlb.core.model.results import Health
from anycastlb.core.model.source import Feed


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
    http: bool = False
    """This node serves gateways: node.toml has ``[http]``."""
    spread: Spread | None = None
    """None: it serves the connections that reach it, and shares none."""


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
    """The other nodes. Decisions depend on what ``peer_reports.news`` and ``service_names.view`` compare, and a drain
    waits for a stable table."""
    wall: float = 0.0
    """Wall-clock seconds at the daemon's clock's zero: nodes publish times as wall time."""
    names: Mapping[Table, Rows] = field(default_factory=lambda: EMPTY)
    """The tables of names as they were last seen; one that was never seen is missing."""
    announced: frozenset[Address] | None = None
    """The routes that ExaBGP had at the last look; None while it is too early to say."""
    certificates: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    """The certificates in the node's ``certificate_dir``: their fingerprints by the names of their files."""
    passive: PassiveFailures = field(default_factory=lambda: EMPTY)
    """The backends of pools that fail the requests of clients."""
    stopping: bool = False
    emptied: bool = False
    """While stopping: nothing of ours is left, so that settings of the kernel may be given back."""
    traffic: Traffic | None = None
    """What the kernel counts while the node leaves; None where nobody counts."""

    @property
    def node(self) -> str:
        """The name of this node."""
        return self.policy.node
