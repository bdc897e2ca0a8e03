"""The fields of a service that are good each by itself, but do not go together, or not with this node's settings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from anycastlb.core.catalog.scheduler import FLAGS
from anycastlb.core.catalog.schema import ServiceDocument
from anycastlb.core.fields import Document, shown
from anycastlb.core.model import Address, Backend, Network, Problem, Service, Share


class Limits(Document):
    """What this node allows: only VIPs and firewall marks of its own ranges."""

    vip_ranges: tuple[Any, ...]
    fwmark_ranges: tuple[tuple[int, int], ...] = ()


def contradictions(parsed: ServiceDocument, limits: Limits) -> Iterator[tuple[str, str]]:
    """Each field that does not go together with another one or with the limits, and what is expected of it."""
    yield from outside_ranges(parsed.vip, limits)
    if parsed.fwmark:
        if parsed.port is not None or parsed.protocol is not None:
            yield "fwmark", "expected either fwmark, or port and protocol, not both"
        if not any(low <= parsed.fwmark <= high for low, high in limits.fwmark_ranges):
            yield "fwmark", f"expected a mark inside this node's fwmark_ranges, not {parsed.fwmark}"
    elif parsed.port is None:
        yield "port", "missing; expected a port from 1 to 65535 (0 = every port, with persistence), or fwmark"
    elif parsed.port == 0 and not parsed.persistence:
        yield "port", "expected a port from 1 to 65535; 0 (every port) needs persistence"
    if parsed.one_packet and parsed.protocol != "udp":
        yield "one_packet", "expected protocol udp: one-packet scheduling is for datagrams"
    if parsed.dns and parsed.dns.srv and not parsed.port:
        yield "dns.srv", "expected a service with a port, which an SRV record tells; this one has none"
    reopen, least = parsed.announce.reopen, parsed.announce.min_backends
    if reopen and _unit(reopen) != _unit(least):
        yield "announce.reopen", f"expected the same kind of threshold as min_backends ({least}), not {reopen}"
    elif reopen and _amount(reopen) < _amount(least):
        yield "announce.reopen", f"expected at least min_backends ({least}), not {reopen}"
    for flag in parsed.scheduler_flags or ():
        if not re.fullmatch(r"flag-[123]", flag) and FLAGS.get(flag) != parsed.scheduler:
            names = [name for name, scheduler in FLAGS.items() if scheduler == parsed.scheduler]
            offer = ", ".join([*names, "flag-1", "flag-2", "flag-3"])
            yield "scheduler_flags", f"expected flags of {parsed.scheduler} ({offer}), not {shown(flag)}"
    netmask = parsed.persistence.netmask if parsed.persistence else None
    if netmask and netmask > 32 and any(vip.version == 4 for vip in parsed.vip):
        yield "persistence.netmask", f"expected a prefix length up to 32 for an IPv4 VIP, not {netmask}"


def outside_ranges(vips: Sequence[Address], limits: Limits) -> Iterator[tuple[str, str]]:
    """Each address that cannot be a VIP of this node, and what is expected of it."""
    for place, vip in enumerate(vips):
        if mapped := getattr(vip, "ipv4_mapped", None):
            yield f"vip.{place}", f"expected the IPv4 address itself ({mapped}), not {vip}"
        elif not _allowed(vip, limits.vip_ranges):
            ranges = ", ".join(map(str, limits.vip_ranges))
            yield f"vip.{place}", f"expected an address inside this node's vip_ranges ({ranges}), not {vip}"


def _allowed(vip: Address, ranges: Sequence[Network]) -> bool:
    return any(vip.version == network.version and vip in network for network in ranges)


def _unit(share: Share) -> str:
    return "weight" if share.weight is not None else "count" if share.percent is None else "percent"


def _amount(share: Share) -> float:
    return share.weight if share.weight is not None else share.count if share.percent is None else share.percent


def clash(other: str) -> str:
    """What is expected of a backend whose endpoint another one has."""
    return f"expected an address and port of its own; {other} has the same"


def clashes(backends: Sequence[Backend]) -> Iterator[tuple[str, str]]:
    """Each backend whose endpoint an earlier one has, and what is expected of it."""
    seen: dict[tuple[Address, int], str] = {}
    for backend in backends:
        other = seen.setdefault((backend.address, backend.port), backend.name)
        if other != backend.name:
            yield f"backends.{backend.name}", clash(other)


def unreachable(key: str, service: Service) -> tuple[Problem, ...]:
    """The backends that cannot serve a VIP of the other address family although no other backend can.

    The catalog refuses a document that names them all itself. Where keys or discoveries bring backends, the service
    goes on: its other VIPs need them, and what one key brings or takes must not stop the rest.
    """
    first = {vip.version: vip for vip in reversed(service.vips)}  # all VIPs of a family have the same backends
    return tuple(
        Problem(
            key,
            f"backends.{backend.name}",
            f"expected an IPv{vip.version} address for VIP {vip} with {backend.forward}",
        )
        for vip in service.vips
        if vip is first[vip.version] and not service.members(vip)
        for backend in service.backends
    )
