"""Firewall marks that packets get where they come in, and by which they meet an IPVS service."""

from __future__ import annotations

from dataclasses import dataclass

from anycastlb.core.model.base import Address, endpoint
from anycastlb.core.model.check import Check


@dataclass(frozen=True, slots=True)
class IngressKey:
    """Packets to one TCP port of one address that come in by one interface."""

    interface: str
    address: Address
    port: int

    def __str__(self) -> str:
        return f"{endpoint(self.address, self.port)} by {self.interface}"


@dataclass(frozen=True, slots=True)
class IngressMark:
    """The mark that these packets get."""

    mark: int

    def __str__(self) -> str:
        return f"mark {self.mark}"


@dataclass(frozen=True, slots=True)
class Spread:
    """How this node shares the connections of gateways with the other nodes."""

    address: Address
    """Where the others send those that this node is to serve, through a tunnel."""
    interfaces: tuple[str, ...]
    """By which clients' packets come in."""
    marks: tuple[int, int]
    """The firewall marks (low, high) for them; one for each gateway."""
    check: Check
    """How a node is probed through the tunnel; address and port are set for each."""
