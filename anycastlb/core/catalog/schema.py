"""The forms operators fill in: every field of a service document and of what is inside it, with its default.

Pure shapes and their own bounds; what contradicts what, and what becomes of them, is ``services``' business. The
docstrings of fields are what ``anycastlb checks`` shows.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from anycastlb.core.fields import (
    LABELS,
    Count,
    CountedShare,
    Document,
    Duration,
    Ip,
    Port,
    Positive,
    ShareText,
    Whole,
    one_or_many,
    shown,
)
from anycastlb.core.model import Forward, Share

SCHEDULERS = ("rr", "wrr", "lc", "wlc", "fo", "ovf", "lblc", "lblcr", "dh", "sh", "mh", "sed", "nq", "twos")
"""Every scheduler the kernel has had by 7.2; a new one is added here."""


MAX_VIPS = 1024
"""VIPs of one service."""


def _pairs(numbers: int, bits: int) -> Callable[[str], str]:
    def check(value: str) -> str:
        parts = value.split(":")
        if len(parts) == numbers and all(re.fullmatch(r"[0-9]{1,10}", p) and int(p) < 2**bits for p in parts):
            return ":".join(str(int(part)) for part in parts)
        example = "65001:100" if numbers == 2 else "65001:1:2"
        raise ValueError(f'{numbers} numbers of {bits} bits such as "{example}", not {shown(value)}')

    return check


def _netmask(value: Any) -> Any:
    """A prefix length, or an IPv4 netmask as ipvsadm takes it."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3}){3}", value.strip()):
        octets = [int(octet) for octet in value.strip().split(".")]
        bits = "".join(f"{octet:08b}" for octet in octets)
        if max(octets) < 256 and re.fullmatch(r"1+0*", bits):
            return bits.count("1")
        raise ValueError(f'a netmask such as "255.255.255.0" or a prefix length, not {shown(value)}')
    return value


def _some(value: Share) -> Share:
    """A threshold that nothing meets by being absent."""
    if value.percent is None and not (value.count or value.weight):
        raise ValueError(f"at least 1: a VIP that nobody serves must not be announced, not {shown(str(value))}")
    return value


Threshold = Annotated[ShareText, AfterValidator(_some)]
Community = Annotated[str, AfterValidator(_pairs(2, 16))]
LargeCommunity = Annotated[str, AfterValidator(_pairs(3, 32))]
Number32 = Annotated[Whole, Field(ge=0, lt=2**32)]
TunnelPort = Annotated[Whole, Field(ge=1, le=65535)]
Drain = Annotated[Duration, Field(ge=0, le=86400)]


class PersistenceDocument(Document):
    timeout: Annotated[Duration, Field(ge=1, le=31 * 86400)] = 300.0
    netmask: (
        Annotated[Whole, BeforeValidator(_netmask, json_schema_input_type=int | str), Field(ge=1, le=128)] | None
    ) = None


class CheckDocument(Document):
    """The timing and target every check type has; the type's own parameters are parsed by the type."""

    type: str = "tcp"
    """What to do: one of ``anycastlb checks``. Where nothing can be connected to (UDP, SCTP, no port), ``none`` unless
    given."""
    interval: Annotated[Duration, Field(ge=0.01, le=86400)] = 2.0
    """From one probe to the next."""
    timeout: Annotated[Duration, Field(ge=0.001, le=3600)] = 1.0
    """A probe that has not succeeded by then has failed."""
    rise: Annotated[Whole, Field(ge=1, le=1000)] = 2
    """Successes in a row that turn down into up. The very first result counts at once."""
    fall: Annotated[Whole, Field(ge=1, le=1000)] = 3
    """Failures in a row that turn up into down. The very first result counts at once."""
    fast_interval: Annotated[Duration, Field(ge=0.01, le=86400)] | None = None
    """The interval while a verdict is turning; ``interval`` unless given."""
    down_interval: Annotated[Duration, Field(ge=0.01, le=86400)] | None = None
    """While down, the interval doubles with every failure up to this; ``interval`` unless given."""
    via: Literal["direct", "forward"] = "direct"
    """``forward``: to the VIP, through IPVS, by the backend's own forwarding method, to this one backend."""
    address: Ip | None = None
    """Probe this address instead of the backend's. Not with ``via`` forward, which goes to the VIP."""
    port: Annotated[Whole, Field(ge=1, le=65535)] | None = None
    """Probe this port instead of the backend's. Not with ``via`` forward, which goes to the service's, if
    it has one."""


class DampingDocument(Document):
    penalty: Positive = 1000.0
    half_life: Annotated[Duration, Field(ge=1, le=86400)] = 60.0
    suppress: Positive = 2000.0
    reuse: Positive = 750.0
    longest: Annotated[Duration, Field(ge=1, le=86400)] = 600.0

    @model_validator(mode="after")
    def _ordered(self) -> DampingDocument:
        if self.reuse >= self.suppress:
            raise ValueError("reuse below suppress")
        return self


class ConsulDocument(Document):
    service: Annotated[str, Field(min_length=1)]
    tag: str = ""
    passing: bool = True
    datacenter: str = ""


class DnsDocument(Document):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252})$")]
    type: Literal["A", "AAAA", "SRV"] = "A"
    resolver: Ip | None = None


class DiscoverDocument(Document):
    """Exactly one of the fields."""

    consul: ConsulDocument | None = None
    dns: DnsDocument | None = None

    @model_validator(mode="after")
    def _one(self) -> DiscoverDocument:
        if (self.consul is None) == (self.dns is None):
            raise ValueError("exactly one of consul and dns")
        return self


class HostRouteDocument(Document):
    """What every VIP may say of its route, be it a service's or a gateway's."""

    fail: Literal["withdraw", "keep"] = "withdraw"
    last: Literal["withdraw", "keep"] = "withdraw"
    damping: DampingDocument | None = None
    hold_up: Drain = 0.0
    hold_down: Drain = 0.0
    communities: tuple[Community, ...] = ()
    large_communities: tuple[LargeCommunity, ...] = ()
    med: Number32 | None = None
    local_preference: Number32 | None = None
    as_path_prepend: Annotated[Whole, Field(ge=0, le=10)] = 0


class AnnounceDocument(HostRouteDocument):
    min_backends: Threshold = Share(1)
    reopen: Threshold | None = None
    when: Literal["any", "all"] = "any"
    fallback: Literal["withdraw", "keep"] = "keep"


Named = Annotated[str, Field(pattern=f"^{LABELS}$", max_length=150)]


def _named(value: Any) -> Any:
    """A lone name, or ``false`` for none at all."""
    if isinstance(value, bool):
        return {"publish": value}
    return {"name": value} if isinstance(value, str) else value


class DnsNameDocument(Document):
    name: Named | None = None
    ttl: Annotated[Duration, Field(ge=1, le=86400)] | None = None
    srv: Annotated[str, Field(pattern=r"^_[A-Za-z0-9]([A-Za-z0-9-]{0,14})\._(tcp|udp|sctp)$")] | None = None
    publish: bool = True


class ConsulNameDocument(Document):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$")] | None = None
    """As a label of DNS, which Consul makes of it."""
    tags: tuple[Annotated[str, Field(min_length=1, max_length=100)], ...] = ()
    publish: bool = True


class BackendDocument(Document):
    address: Ip
    port: Port | None = None
    weight: Annotated[Whole, Field(ge=0, le=65535)] = 100
    drain: bool = False
    forward: Forward | None = None
    tunnel_port: TunnelPort | None = None
    check: dict[str, Any] | None = None
    max_connections: Count = 0
    min_connections: Count = 0
    fallback: bool = False
    override: Annotated[Whole, Field(ge=0, le=65535)] | None = None


class ServiceDocument(Document):
    vip: Annotated[
        tuple[Ip, ...],
        BeforeValidator(one_or_many, json_schema_input_type=list[Ip] | Ip),
        Field(min_length=1, max_length=MAX_VIPS),
    ]
    port: Port | None = None
    protocol: Literal["tcp", "udp", "sctp"] | None = None
    fwmark: Annotated[Whole, Field(ge=1, lt=2**32)] | None = None
    scheduler: Literal[SCHEDULERS] = "mh"  # type: ignore[valid-type]
    scheduler_flags: (
        Annotated[tuple[str, ...], BeforeValidator(one_or_many, json_schema_input_type=list[str] | str)] | None
    ) = None
    forward: Forward = "tunnel"
    tunnel_port: TunnelPort = 6080
    persistence: PersistenceDocument | None = None
    one_packet: bool | None = None
    check: dict[str, Any] = Field(default_factory=dict)
    backends: dict[str, BackendDocument] = Field(default_factory=dict)
    backends_from: DiscoverDocument | None = None
    announce: AnnounceDocument = AnnounceDocument()
    max_failed: CountedShare | None = None
    slow_start: Literal["history"] | Drain = 0.0
    drain: Drain = 30.0
    dns: (
        Annotated[DnsNameDocument, BeforeValidator(_named, json_schema_input_type=DnsNameDocument | Named | bool)]
        | None
    ) = None
    consul: (
        Annotated[ConsulNameDocument, BeforeValidator(_named, json_schema_input_type=ConsulNameDocument | Named | bool)]
        | None
    ) = None
