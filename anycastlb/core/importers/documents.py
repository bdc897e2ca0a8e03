"""What converters make: service documents of the catalog, built from a few plain values; notes; one error.

It writes down what would otherwise be our default and differ: flags, one-packet scheduling, a check.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_address
from typing import Any, TypeAlias

from anycastlb.core.fields import is_unicast
from anycastlb.core.model import Address, AnycastlbError, endpoint

Documents: TypeAlias = dict[str, dict[str, Any]]
"""Key in the catalog (``services/web``) -> document."""
MAX_WEIGHT = 65535


class UnreadableInput(AnycastlbError):
    """A text that cannot be what it was taken for; the message names the line and what was expected."""

    def __init__(self, line: int, what: str, name: str = "") -> None:
        place = f"line {line}" if line else ""
        super().__init__(f"{' '.join(filter(None, (name, place)))}: {what}" if name or place else what)
        self.line, self.what, self.name = line, what, name


@dataclass(frozen=True, slots=True, order=True)
class Note:
    """Something that was not carried over, or not exactly."""

    line: int
    what: str
    name: str = ""
    """The included file the line is in; empty for the text itself."""

    def __str__(self) -> str:
        place = " ".join(filter(None, (self.name, f"line {self.line}" if self.line else "")))
        return f"{place}: {self.what}" if place else self.what


@dataclass(slots=True)
class Real:
    """A backend."""

    address: Address
    port: int
    forward: str
    weight: int = 1
    tunnel_port: int | None = None
    upper: int = 0
    lower: int = 0
    check: Mapping[str, Any] | None = None
    fallback: bool = False


@dataclass(slots=True)
class Virtual:
    """A service with a port and one or more VIPs."""

    protocol: str
    vips: tuple[Address, ...]
    port: int
    scheduler: str
    flags: tuple[str, ...] = ()
    one_packet: bool = False
    persistence: int = 0
    """Seconds; 0 = none."""
    netmask: int | None = None
    """A prefix length."""
    announce: dict[str, Any] = field(default_factory=dict)
    reals: list[Real] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.protocol}-{self.vips[0]}-{self.port}"


def document(virtual: Virtual) -> dict[str, Any]:
    """The service document. What all backends have in common is written in the service."""
    forward = _commonest(real.forward for real in virtual.reals) or "tunnel"
    check = _common([real.check for real in virtual.reals if not real.fallback])
    vips = [str(vip) for vip in virtual.vips]
    made: dict[str, Any] = {"vip": vips if len(vips) > 1 else vips[0], "port": virtual.port}
    if virtual.protocol != "tcp":
        made["protocol"] = virtual.protocol
    made["scheduler"] = virtual.scheduler
    if virtual.flags or virtual.scheduler == "mh":
        made["scheduler_flags"] = list(virtual.flags)
    made["forward"] = forward
    if virtual.persistence:
        made["persistence"] = {"timeout": f"{virtual.persistence}s"}
        if virtual.netmask is not None:
            made["persistence"]["netmask"] = virtual.netmask
    if virtual.one_packet or (virtual.protocol == "udp" and virtual.scheduler == "mh"):
        made["one_packet"] = virtual.one_packet
    if check is not None:
        made["check"] = dict(check)
    made["backends"] = {
        endpoint(real.address, real.port): _backend(real, virtual.port, forward, check) for real in virtual.reals
    }
    if virtual.announce:
        made["announce"] = virtual.announce
    return made


def _backend(real: Real, port: int, forward: str, check: Mapping[str, Any] | None) -> dict[str, Any]:
    made: dict[str, Any] = {"address": str(real.address), "weight": real.weight}
    if real.port != port:
        made["port"] = real.port
    if real.forward != forward:
        made["forward"] = real.forward
    if real.tunnel_port is not None:
        made["tunnel_port"] = real.tunnel_port
    if real.upper:
        made["max_connections"] = real.upper
    if real.lower:
        made["min_connections"] = real.lower
    if real.check is not None and real.check != check:
        # One of the same type would be merged over the service's: what it leaves out must be its default.
        made["check"] = (
            {**dict.fromkeys(check or ()), **real.check} if _same_type(real.check, check) else {**real.check}
        )
    if real.fallback:
        made["fallback"] = True
    return made


def _same_type(one: Mapping[str, Any], other: Mapping[str, Any] | None) -> bool:
    return other is not None and one.get("type") == other.get("type")


def _commonest(values: Iterable[str]) -> str | None:
    """The commonest value, the first of equals."""
    counted = Counter(values)
    return max(counted, key=counted.__getitem__, default=None)


def _common(checks: Sequence[Mapping[str, Any] | None]) -> Mapping[str, Any] | None:
    """The commonest check, the first of equals; None if no backend has one."""
    given = [check for check in checks if check is not None]
    words = [json.dumps(check, sort_keys=True) for check in given]
    commonest = _commonest(words)
    return None if commonest is None else given[words.index(commonest)]


def address(text: str, line: int, hint: str = "") -> Address:
    """Raises ``UnreadableInput``."""
    try:
        parsed = ip_address(text)
    except ValueError:
        raise UnreadableInput(line, f"expected an IPv4 or IPv6 address, not {text!r:.60}{hint}") from None
    if not is_unicast(parsed):
        raise UnreadableInput(line, f"expected a unicast address without a zone, not {text!r:.60}")
    return parsed


def number(text: str, line: int, what: str, low: int = 0, high: int = 2**31 - 1) -> int:
    """A number as strtoul(3) takes it, with a sign or without. Raises ``UnreadableInput``."""
    digits = text.removeprefix("+")
    if digits.isascii() and digits.isdigit() and len(digits) <= 10 and low <= int(digits) <= high:
        return int(digits)
    raise UnreadableInput(line, f"expected {what}, a number from {low} to {high}, not {text!r:.60}")


def prefix(text: str, line: int) -> int:
    """A persistence netmask: a prefix length, or an IPv4 mask. Raises ``UnreadableInput``."""
    if text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) <= 128:
        return int(text)
    try:
        bits = f"{int(IPv4Address(text)):032b}"
    except ValueError:
        bits = ""
    if not bits.rstrip("0") or "0" in bits.rstrip("0"):
        raise UnreadableInput(line, f'expected a netmask such as "255.255.255.0" or a prefix length, not {text!r:.60}')
    return bits.count("1")


def weight(value: int, line: int, notes: list[Note]) -> int:
    """A weight we can have; a larger one is cut, and noted."""
    if value > MAX_WEIGHT:
        notes.append(Note(line, f"weight {value} is above the largest weight here; {MAX_WEIGHT} instead"))
    return min(value, MAX_WEIGHT)
