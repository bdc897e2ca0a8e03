"""The protocol between the daemon and the bridge: one JSON object a line, encoded and strictly decoded.

Both sides send the whole, never a difference, so that a lost or repeated message costs nothing::

    daemon -> bridge   {"set": {"serial": 7, "hold": 15.0, "routes": {"192.0.2.10": {"med": 50}}}}
                       {"beat": 7}                       alive, and set 7 is still what is wanted
    bridge -> daemon   {"report": {"serial": 7, "ready": true, "version": "5.0.15", "announced": {...},
                                   "rejected": {"192.0.2.11": "why"}, "sessions": [...]}}

Pure: no socket, no clock. Whatever the bytes are, decoding gives a message or raises ``ProtocolError``, nothing else.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address
from typing import Any

from anycastlb.core.model import EMPTY, Address, AnycastlbError, Network, Route, Session

MAX_LINE = 16 * 1024 * 1024
"""Longest line either side reads, in bytes: about 100,000 routes."""
CACHED = 1 << 15
"""Addresses whose text is cached: the same ones pass again and again, and IPv6 is slow to read and write."""
DECODED = 1 << 12
"""Routes whose decoded form is remembered."""
MAX_HOLD = 600.0
MAX_COMMUNITIES = 64
MAX_PREPEND = 32
STATES = ("up", "down", "connected", "unknown")


_decoded: dict[str, Route] = {}


class ProtocolError(AnycastlbError):
    """The peer has sent something that is no message; the connection must be dropped."""


@dataclass(frozen=True, slots=True)
class RouteSet:
    """Every route the daemon wants announced from now on."""

    serial: int
    """Grows with every set of one daemon; at least 1."""
    hold: float
    """Seconds the routes outlive the daemon's last message."""
    routes: Mapping[Address, Route]


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The daemon lives and still wants the set of this serial."""

    serial: int


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that the bridge knows."""

    serial: int = 0
    """The last set of this connection that was dealt with entirely; 0 = none yet."""
    ready: bool = False
    """Does the bridge know what ExaBGP announces? If not, ``announced`` means nothing."""
    version: str = ""
    announced: Mapping[Address, Route] = field(default_factory=lambda: EMPTY)
    """Routes ExaBGP has acknowledged, towards at least one neighbor."""
    rejected: Mapping[Address, str] = field(default_factory=lambda: EMPTY)
    sessions: tuple[Session, ...] = ()


def encode(message: RouteSet | Heartbeat | Report) -> bytes:
    """One line, with its newline."""
    if isinstance(message, Heartbeat):
        document: dict[str, Any] = {"beat": message.serial}
    elif isinstance(message, RouteSet):
        document = {"set": {"serial": message.serial, "hold": message.hold, "routes": _routes_object(message.routes)}}
    else:
        sessions = [{"peer": s.peer, "state": s.state, "since": s.since, "reason": s.reason} for s in message.sessions]
        document = {
            "report": {
                "serial": message.serial,
                "ready": message.ready,
                "version": message.version,
                "announced": _routes_object(message.announced),
                "rejected": {str(vip): reason for vip, reason in message.rejected.items()},
                "sessions": sessions,
            }
        }
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def decode_order(line: bytes) -> RouteSet | Heartbeat:
    """Decode what the daemon says. Raises ``ProtocolError``."""
    kind, body = _only(line, ("set", "beat"))
    if kind == "beat":
        return Heartbeat(_integer(body, "beat", 1))
    _fields(body, "set", {"serial", "hold", "routes"})
    hold = _number(body["hold"], "hold")
    if not 0 < hold <= MAX_HOLD:
        raise ProtocolError(f"hold: expected seconds up to {MAX_HOLD:g}, not {hold}")
    return RouteSet(_integer(body["serial"], "serial", 1), hold, _routes(body["routes"], "routes"))


def decode_report(line: bytes) -> Report:
    """Decode what the bridge says. Raises ``ProtocolError``."""
    _, body = _only(line, ("report",))
    _fields(body, "report", {"serial", "ready", "version", "announced", "rejected", "sessions"})
    if not isinstance(body["ready"], bool):
        raise ProtocolError("ready: expected true or false")
    if not isinstance(body["sessions"], list):
        raise ProtocolError("sessions: expected a list")
    return Report(
        serial=_integer(body["serial"], "serial", 0),
        ready=body["ready"],
        version=_text(body["version"], "version"),
        announced=_routes(body["announced"], "announced"),
        rejected=_reasons(body["rejected"], "rejected"),
        sessions=tuple(map(_session, body["sessions"])),
    )


def fault(vip: Address, route: Route, ranges: Sequence[Network]) -> str:
    """Say why this route may not leave the node (it is outside the ranges, or an attribute does not fit); else ""."""
    if not within(vip, ranges):
        return f"{vip} is outside vip_ranges ({', '.join(map(str, ranges))}): it is never announced"
    for name, values, parts, limit in (
        ("communities", route.communities, 2, 2**16),
        ("large_communities", route.large_communities, 3, 2**32),
    ):
        if len(values) > MAX_COMMUNITIES:
            return f"{vip}: {name}: expected at most {MAX_COMMUNITIES}, not {len(values)}"
        for value in values:
            numbers = re.fullmatch(":".join([r"([0-9]{1,10})"] * parts), value)
            if not numbers or any(int(number) >= limit for number in numbers.groups()):
                return f"{vip}: {name}: expected {parts} numbers below {limit} joined by colons, not {value[:40]!r}"
    for name, number, limit in (
        ("med", route.med, 2**32),
        ("local_preference", route.local_preference, 2**32),
        ("as_path_prepend", route.as_path_prepend, MAX_PREPEND + 1),
    ):
        if number is not None and not 0 <= number < limit:
            return f"{vip}: {name}: expected a number from 0 to {limit - 1}, not {number}"
    return ""


def within(vip: Address, ranges: Sequence[Network]) -> bool:
    return any(vip in network for network in ranges)  # an address of the other family is in no network


def _routes_object(routes: Mapping[Address, Route]) -> dict[str, Mapping[str, Any]]:
    return {_written(vip): _attributes(route) for vip, route in routes.items()}


@lru_cache(maxsize=CACHED)
def _written(vip: Address) -> str:
    return str(vip)


@lru_cache(maxsize=1 << 10)
def _attributes(route: Route) -> Mapping[str, Any]:
    """The attributes that are set; the rest is left out."""
    lists = {
        "communities": list(route.communities),
        "large_communities": list(route.large_communities),
        "as_path_prepend": route.as_path_prepend,
    }
    kept: dict[str, Any] = {name: value for name, value in lists.items() if value}
    if route.med is not None:
        kept["med"] = route.med
    if route.local_preference is not None:
        kept["local_preference"] = route.local_preference
    return kept


def _only(line: bytes, kinds: tuple[str, ...]) -> tuple[str, Any]:
    """Decode the line, and return the one member of the object in it."""
    expected = " or ".join(f'{{"{kind}": ...}}' for kind in kinds)
    try:
        document = json.loads(line.decode())
    except (ValueError, RecursionError):
        raise ProtocolError(f"expected {expected}, one JSON object a line, not {line[:60]!r}") from None
    if not isinstance(document, dict) or len(document) != 1 or next(iter(document)) not in kinds:
        raise ProtocolError(f"expected {expected}, not {line[:60]!r}")
    kind, body = next(iter(document.items()))
    return kind, body


def _fields(body: Any, where: str, names: set[str]) -> None:
    if not isinstance(body, dict) or set(body) != names:
        given = sorted(map(repr, body))[:10] if isinstance(body, dict) else type(body).__name__
        raise ProtocolError(f"{where}: expected an object with {', '.join(sorted(names))}, not {given}")


def _by_vip(body: Any, where: str) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise ProtocolError(f"{where}: expected an object with one member a VIP, not {type(body).__name__}")
    return body


def _reasons(body: Any, where: str) -> dict[Address, str]:
    return {_vip(key, where): _text(value, f"{where} {key[:60]}") for key, value in _by_vip(body, where).items()}


def _routes(body: Any, where: str) -> dict[Address, Route]:
    """Equal routes become one object, in all messages: thousands of VIPs share a handful of them."""
    routes = {}
    for key, value in _by_vip(body, where).items():
        text = str(value)
        if (route := _decoded.get(text)) is None:
            if len(_decoded) >= DECODED:
                _decoded.clear()
            route = _decoded[text] = _route(value, f"{where} {key[:60]}")
        routes[_vip(key, where)] = route
    return routes


def _vip(text: str, where: str) -> Address:
    try:
        return _address(text)
    except ValueError:
        raise ProtocolError(f"{where}: expected an IPv4 or IPv6 host address without zone, not {text[:60]!r}") from None


@lru_cache(maxsize=CACHED)
def _address(text: str) -> Address:
    if "%" in text:
        raise ValueError
    return ip_address(text)


def _route(body: Any, where: str) -> Route:
    """Decode a route of the right types; whether its values fit is the business of ``fault``."""
    if not isinstance(body, dict):
        raise ProtocolError(f"{where}: expected an object of attributes, not {type(body).__name__}")
    if unknown := set(body) - {"communities", "large_communities", "med", "local_preference", "as_path_prepend"}:
        raise ProtocolError(f"{where}: unknown attribute {min(unknown)[:60]!r}")

    def number(name: str) -> int | None:
        return _integer(body[name], f"{where} {name}") if name in body else None

    return Route(
        communities=_texts(body.get("communities", []), f"{where} communities"),
        large_communities=_texts(body.get("large_communities", []), f"{where} large_communities"),
        med=number("med"),
        local_preference=number("local_preference"),
        as_path_prepend=number("as_path_prepend") or 0,
    )


def _session(body: Any) -> Session:
    _fields(body, "session", {"peer", "state", "since", "reason"})
    if body["state"] not in STATES:
        raise ProtocolError(f"session state: expected one of {', '.join(STATES)}")
    return Session(
        _text(body["peer"], "peer"), body["state"], _number(body["since"], "since"), _text(body["reason"], "reason")
    )


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ProtocolError(f"{where}: expected a list of strings, not {type(value).__name__}")
    return tuple(_text(item, where) for item in value)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise ProtocolError(f"{where}: expected a string of printable characters, not {type(value).__name__}")
    return value


def _integer(value: Any, where: str, least: int | None = None) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or (least is not None and value < least):
        at_least = "" if least is None else f" of at least {least}"
        raise ProtocolError(f"{where}: expected a whole number{at_least}, not {str(value)[:60]!r}")
    return value


def _number(value: Any, where: str) -> float:
    try:
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(float(value)):
            return float(value)
    except OverflowError:
        pass
    raise ProtocolError(f"{where}: expected a number, not {str(value)[:60]!r}")
