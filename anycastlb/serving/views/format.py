"""How reasons, durations and rows of the kernel tables are shown: in the same words in API, commands and web page.

Pure; decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from anycastlb.core.model import Address, Reason, Route, VirtualService

TABLE_NOUNS: Mapping[str, str] = {
    "sysctls": "sysctl",
    "config": "ipvs setting",
    "addresses": "address",
    "services": "service",
    "destinations": "destination",
    "routes": "route",
    "dns_records": "record",
    "consul_services": "registration",
    "http_engine": "haproxy",
    "http_certificates": "certificate",
    "http_servers": "server",
    "http_sites": "hostname",
}


UNDECIDED = Reason("undecided", "not decided yet")
"""What to say of an object that no decision has judged yet."""


def reason_fields(reason: Reason) -> dict[str, str]:
    """A reason in an answer: the text for people, and beside it the code for programs."""
    return {"reason": reason.text, "reason_code": reason.code}


def span(seconds: float | None) -> str:
    """A duration in one unit, as an operator says it: ``3 ms``, ``12 s``, ``5 min``, ``3 h``, ``2 d``."""
    if seconds is None or not math.isfinite(seconds):
        return "ever"
    if 0 < seconds < 0.00095:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 0.9995:
        return f"{max(0, round(seconds * 1000))} ms"
    for unit, size, limit in (("s", 1, 120), ("min", 60, 120 * 60), ("h", 3600, 48 * 3600)):
        if seconds < limit:
            return f"{max(1, int(seconds / size))} {unit}"
    return f"{int(seconds / 86400)} d"


def host_route(vip: Address) -> str:
    """``192.0.2.10/32`` or ``2001:db8::10/128``."""
    return f"{vip}/{vip.max_prefixlen}"


def virtual(service: VirtualService) -> str:
    """``mh (mh-fallback, mh-port)``, with persistence and one-packet named when they are set."""
    text = service.scheduler
    if service.flags:
        text += f" ({', '.join(sorted(service.flags))})"
    if service.persistence:
        text += f", persistent {service.persistence} s"
        if service.persistence_prefix:
            text += f" /{service.persistence_prefix}"
    return text + (", one packet" if service.one_packet else "")


def attributes(route: Route) -> str:
    """The BGP attributes of a route that are set; empty for a plain one."""
    parts = []
    if route.communities or route.large_communities:
        parts.append("communities " + " ".join((*route.communities, *route.large_communities)))
    if route.med is not None:
        parts.append(f"med {route.med}")
    if route.local_preference is not None:
        parts.append(f"local preference {route.local_preference}")
    if route.as_path_prepend:
        parts.append(f"own AS prepended {route.as_path_prepend} times")
    return ", ".join(parts)


def fields_of(row: Any) -> Any:
    """A row of the machine as JSON: what is compared of it, by name; a plain value (a sysctl) and None as they are."""
    if row is None or isinstance(row, (str, int)):
        return row
    return {field.name: _plain(getattr(row, field.name)) for field in fields(row) if field.compare}


def _plain(value: Any) -> Any:
    if isinstance(value, (IPv4Address, IPv6Address)):
        return str(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return list(value) if isinstance(value, tuple) else value
