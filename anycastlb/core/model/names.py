"""Names that services are found by: what a document and this node's settings ask for, and the rows that follow.

DNS records are shared by every node that serves the name; a service in Consul belongs to the one node that registered
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from anycastlb.core.model.base import EMPTY, Address, Reason, endpoint

RecordType: TypeAlias = Literal["A", "AAAA", "SRV"]


@dataclass(frozen=True, slots=True)
class DnsName:
    """What a service's document asks of DNS."""

    name: str = ""
    """Below the subdomain; empty = the service's own name."""
    ttl: float | None = None
    """Seconds; None = the node's setting."""
    srv: str = ""
    """``_http._tcp``: an SRV record too; empty = none."""
    publish: bool = True


@dataclass(frozen=True, slots=True)
class ConsulName:
    """What a service's document asks of Consul's catalog of services."""

    name: str = ""
    """Empty = ``anycastlb-`` and the service's own name."""
    tags: tuple[str, ...] = ()
    publish: bool = True


@dataclass(frozen=True, slots=True)
class DnsPolicy:
    """Where this node publishes names, and which."""

    domain: str
    """Absolute, in lower case, with its last dot: ``lb.example.net.``"""
    ttl: float = 30.0
    every: bool = False
    """Every service has a name, not only those whose document says so."""


@dataclass(frozen=True, slots=True)
class Naming:
    """The names that this node is to publish, by its settings."""

    dns: DnsPolicy | None = None
    consul: bool = False


@dataclass(frozen=True, slots=True)
class DnsKey:
    """One resource record."""

    name: str
    """Absolute, in lower case, with its last dot."""
    type: RecordType
    data: str
    """In the words of a zone file: ``192.0.2.10``, ``0 0 80 www.lb.example.net.``"""

    def __str__(self) -> str:
        return f"{self.name} {self.type} {self.data}"


@dataclass(frozen=True, slots=True)
class DnsRecord:
    ttl: int
    service: str
    """The service named in the marker that makes the name ours."""

    def __str__(self) -> str:
        return f"of {self.service}, TTL {self.ttl} s"


@dataclass(frozen=True, slots=True)
class ConsulKey:
    """One service instance of this node in its agent."""

    service: str
    vip: Address
    node: str

    def __str__(self) -> str:
        return f"anycastlb-{self.service}-{self.vip}-{self.node}"


@dataclass(frozen=True, slots=True)
class ConsulService:
    name: str
    address: Address
    port: int
    """0 = none."""
    tags: tuple[str, ...] = ()
    passing: bool = False
    reason: str = ""
    """What its check says."""

    def __str__(self) -> str:
        where = endpoint(self.address, self.port) if self.port else str(self.address)
        return f"{self.name} at {where}, {'passing' if self.passing else 'critical'}"


@dataclass(frozen=True, slots=True)
class Registrar:
    """Where names are written, as its writer last knew it."""

    table: str
    place: str
    """In words: which server, which zone."""
    seen: bool = False
    """It was looked at, once at least; before, nothing is decided about it."""
    error: str = ""
    """Why it cannot be used now; empty while it can."""
    since: float = 0.0
    """Since when ``error`` is what it is."""
    refused: Mapping[Any, Reason] = field(default_factory=lambda: EMPTY)
    """Rows it would not take, with the reason."""
