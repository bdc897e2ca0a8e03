"""Health checks, and the ways that their probes take."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Literal

from anycastlb.core.model.base import Address, Forward, endpoint


@dataclass(frozen=True, slots=True)
class ForwardPath:
    """One backend as IPVS reaches it: a probe through here takes the way of the backend's real traffic."""

    address: Address
    forward: Forward
    tunnel_port: int
    family: Literal[4, 6]
    """The family of the VIP: of the packets, not of the backend."""
    port: int = 0
    """The destination port in the kernel: the backend's for ``nat``, else 0 (the port of the packet)."""


@dataclass(frozen=True, slots=True)
class ProbePath:
    """How a probe that goes through IPVS opens its socket."""

    mark: int
    """SO_MARK: the firewall mark whose IPVS service has this one backend."""
    source: Address
    """The node's own address to bind to: unbound, the source would be the VIP."""
    hops: int | None = None
    """How far its packets may go (TTL, hop limit); None = as far as the system's."""


@dataclass(frozen=True, slots=True)
class Check:
    """A health check against one target. Its identity is its value: equal checks are one running probe."""

    type: str
    """The name of a file in ``checks/``."""
    address: Address
    port: int
    params: Hashable
    """The check type's own parameters, parsed by the type itself."""
    interval: float
    timeout: float
    rise: int
    fall: int
    fast_interval: float | None = None
    """The interval while a verdict is turning; None = ``interval``."""
    down_interval: float | None = None
    """While down the interval doubles with every failure, up to this; None = ``interval``."""
    via: ForwardPath | None = None
    """The probe goes to the VIP (``address``) through IPVS to this one backend; None = straight to the backend."""
    elsewhere: bool = False
    """``address`` is not the backend's own: its document says that somebody else is asked."""
    _hash: int = field(init=False, repr=False, compare=False)
    """It is looked up far more often than made, and hashing its parts is slow."""

    def __post_init__(self) -> None:
        timing = self.interval, self.timeout, self.rise, self.fall
        object.__setattr__(self, "_hash", hash((self.type, self.address, self.port, self.params, timing, self.via)))

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        target = f"{self.type} {endpoint(self.address, self.port)}"
        return f"{target} via {self.via.forward} {self.via.address}" if self.via else target


COMBINED = ("all", "any")
"""The types of checks that are made of others."""


@dataclass(frozen=True, slots=True)
class Combination:
    """The parameters of an ``all`` or ``any`` check: the checks it is made of."""

    checks: tuple[Check, ...]
