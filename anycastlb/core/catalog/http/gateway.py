"""The document of a gateway to a ``Gateway``, or every problem in it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from anycastlb.core.catalog.contradictions import Limits, outside_ranges
from anycastlb.core.catalog.http.gateway_schema import GatewayDocument
from anycastlb.core.catalog.service import parse_path_attributes
from anycastlb.core.fields import problems
from anycastlb.core.model import Address, Announce, Damping, Gateway, HttpLimits, Problem, ServiceKey, Tls


def parse_gateway(key: str, name: str, document: Mapping[str, Any]) -> Gateway | tuple[Problem, ...]:
    try:
        parsed = GatewayDocument.model_validate(document)
    except ValidationError as exc:
        return problems(exc, key)
    if (parsed.tls is None) == (parsed.protocol == "http"):
        return _gateway(name, parsed)
    missing = "missing; expected certificates, as the protocol is https"
    return (Problem(key, "tls", missing if parsed.tls is None else "expected none, as the protocol is http"),)


def judge_gateway(key: str, gateway: Gateway, limits: Limits, certificates: frozenset[str] | None) -> Iterator[Problem]:
    """What is wrong with it on this node. ``certificates``: the names of those that the node has; None if that is not
    known."""
    for path, expected in outside_ranges(gateway.vips, limits):
        yield Problem(key, path, expected)
    for place, certificate in enumerate(gateway.tls.certificates if gateway.tls else ()):
        if certificates is not None and certificate not in certificates:
            expected = f"expected the name of a file in this node's certificate_dir, not {certificate}"
            yield Problem(key, f"tls.certificates.{place}", expected)


def every_port(vip: Address) -> ServiceKey:
    """The claim of a service that leaves no port of a VIP to a gateway."""
    return ServiceKey("tcp", vip, 0)


def gateway_mark(vip: Address) -> tuple[str, Address]:
    """What all gateways of a VIP mark, and such a service bars."""
    return "gateways", vip


def _gateway(name: str, parsed: GatewayDocument) -> Gateway:
    announce = parsed.announce
    return Gateway(
        name=name,
        vips=tuple(dict.fromkeys(parsed.vip)),
        port=parsed.port,
        tls=Tls(**dict(parsed.tls)) if parsed.tls else None,
        spread=parsed.spread,
        limits=HttpLimits(**dict(parsed.limits)),
        forwarded_for=parsed.forwarded_for,
        when=announce.when,
        announce=Announce(
            when="any" if announce.when == "any" else "all",
            fail=announce.fail,
            last=announce.last,
            damping=Damping(**dict(announce.damping)) if announce.damping else None,
            hold_up=announce.hold_up,
            hold_down=announce.hold_down,
            route=parse_path_attributes(announce),
        ),
        drain=parsed.drain,
    )
