"""What a decision says of the HTTP tier: of its pools, routes and gateways, each with a reason.

Whether the VIPs of a gateway are announced stands where that of all VIPs does, in ``Decision.verdicts``. There the
gateway is one of the services of its VIPs, by the name ``on_vip`` gives it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from anycastlb.core.model.base import EMPTY, Reason
from anycastlb.core.model.verdicts import BackendVerdict, ServiceVerdict

FOLDER = "gateways/"


def on_vip(gateway: str) -> str:
    """The name of a gateway among the services of its VIPs (``gateways/web``), which no service can have."""
    return f"{FOLDER}{gateway}"


def gateway_on_vip(service: str) -> str | None:
    """The gateway that has this name among the services of a VIP; None: it is a service."""
    return service.removeprefix(FOLDER) if service.startswith(FOLDER) else None


@dataclass(frozen=True, slots=True)
class PoolVerdict:
    """Can this pool answer requests, and which of its backends get them? Also of services with VIPs that routes use."""

    verdict: ServiceVerdict
    """As if it were a service on a VIP; its ``key`` says nothing."""
    backends: Mapping[str, BackendVerdict]
    """By name. HAProxy's own weights are in the rows of ``http_servers``: it has none above 256."""
    serves: bool
    """It can be served, or what an edit has taken out of it serves on until what replaces that was checked."""


@dataclass(frozen=True, slots=True)
class RouteVerdict:
    """Can requests for this route be served: by one of its pools at least, or without any, as a redirect is?"""

    route: str
    open: bool
    pools: tuple[str, ...]
    """The names of those that it sends requests to, sorted."""
    reason: Reason


@dataclass(frozen=True, slots=True)
class GatewayVerdict:
    """Are enough of its routes served for its VIPs to be announced? HAProxy's own state is not a part of it."""

    gateway: str
    open: bool
    up: int
    """Of its routes."""
    needed: int
    routes: tuple[str, ...]
    """The names of its routes, sorted."""
    reason: Reason


@dataclass(frozen=True, slots=True)
class HttpVerdicts:
    """By name."""

    pools: Mapping[str, PoolVerdict] = field(default_factory=lambda: EMPTY)
    routes: Mapping[str, RouteVerdict] = field(default_factory=lambda: EMPTY)
    gateways: Mapping[str, GatewayVerdict] = field(default_factory=lambda: EMPTY)


NO_HTTP = HttpVerdicts()
