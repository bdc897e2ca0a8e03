"""Where backends are discovered, and what is found there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from anycastlb.core.model.base import Address


@dataclass(frozen=True, slots=True)
class ConsulInstances:
    """Backends are the instances of a Consul service."""

    service: str
    tag: str = ""
    passing: bool = True
    """Only instances whose own checks pass."""
    datacenter: str = ""

    def __str__(self) -> str:
        tag = f", tag {self.tag}" if self.tag else ""
        return f"consul service {self.service}{tag}" + (f", datacenter {self.datacenter}" if self.datacenter else "")


@dataclass(frozen=True, slots=True)
class DnsInstances:
    """Backends are what a DNS name resolves to."""

    name: str
    type: Literal["A", "AAAA", "SRV"] = "A"
    resolver: Address | None = None
    """None = the host's own resolvers."""

    def __str__(self) -> str:
        return f"dns {self.name} {self.type}" + (f" at {self.resolver}" if self.resolver else "")


Discover: TypeAlias = ConsulInstances | DnsInstances


@dataclass(frozen=True, slots=True)
class Instance:
    """One discovered backend."""

    name: str
    address: Address
    port: int | None = None
    """None = the service's."""
    weight: int | None = None
    created: int = 0
    """Cluster-wide order of age, where there is one."""
    fallback: bool = False
    """Of a lesser SRV priority: used only while no other can be."""
