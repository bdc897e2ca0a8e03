"""What one decision about the HTTP tier leaves for the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from anycastlb.core.model.base import EMPTY, Address
from anycastlb.core.model.catalog import Service
from anycastlb.core.model.http import Gateway, HttpRoute
from anycastlb.core.model.http_rows import HttpServer
from anycastlb.core.model.leaving import Leaving

Endpoint: TypeAlias = tuple[Address, int]
"""Address and port of a backend, which no other backend of its pool has."""


@dataclass(frozen=True, slots=True)
class PoolMemory:
    """What is known of one pool besides its document."""

    service: Service | None = None
    """As it was last asked for; None: nobody has asked since the daemon started."""
    up_since: Mapping[Endpoint, float] = field(default_factory=lambda: EMPTY)
    """Since when each backend that counts as up has been up."""
    unproven: Mapping[Endpoint, float] = field(default_factory=lambda: EMPTY)
    """Since when each backend has been wanted that was never checked."""
    serving: bool = False
    """It could be served: it takes less to stay so than to become so."""
    servers: Mapping[str, HttpServer] = field(default_factory=lambda: EMPTY)
    """The servers that it asked for, by their names in HAProxy."""
    leaving: Mapping[str, Leaving] = field(default_factory=lambda: EMPTY)
    """Servers nobody asks for any more."""


@dataclass(frozen=True, slots=True)
class RemovedGateway:
    """A gateway nobody asks for any more: it serves with the routes it had until its drain is over."""

    gateway: Gateway
    routes: tuple[HttpRoute, ...]
    until: float


@dataclass(frozen=True, slots=True)
class HttpMemory:
    pools: Mapping[str, PoolMemory] = field(default_factory=lambda: EMPTY)
    """Those of the catalog, and those that are removed and still leave; by name."""
    gateways: tuple[Gateway, ...] = ()
    routes: tuple[HttpRoute, ...] = ()
    """Those that were asked for last."""
    removed: Mapping[str, RemovedGateway] = field(default_factory=lambda: EMPTY)
    """By name."""
    marks: Mapping[Endpoint, int] = field(default_factory=lambda: EMPTY)
    """The firewall mark of each VIP and port whose connections are shared with other nodes."""
