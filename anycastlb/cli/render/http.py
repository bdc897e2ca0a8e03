"""The HTTP tier in ``anycastlb status``: gateways under their VIPs, then routes. Pure: a view in, lines out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from anycastlb.cli.render.style import BAD, BOLD, DIM, GOOD, PLAIN, WARN, Line, count, sign, wrap

View = Mapping[str, Any]
MAX_HOSTNAMES = 3
"""Hostnames of a route that are shown; the rest is counted."""


def header(view: View, columns: int) -> list[Line]:
    """What is served, and whether HAProxy does what is wanted; nothing where there is no such tier."""
    tier = view.get("http")
    if tier is None:
        return []
    numbers = " · ".join(count(len(tier[f"{noun}s"]), noun) for noun in ("gateway", "route", "pool"))
    good = tier["haproxy"]["ok"]
    style = GOOD if good else BAD if tier["served"] else WARN
    return wrap([("http     ", DIM), (f"{numbers} · ", PLAIN), (tier["haproxy"]["reason"], style)], columns, 9)


def gateway_lines(view: View, name: str, columns: int) -> list[Line]:
    """A gateway under one of its VIPs."""
    found = (one for one in (view.get("http") or {}).get("gateways", ()) if one["gateway"] == name)
    lines: list[Line] = []
    for gateway in found:
        line: Line = [
            ("  ", PLAIN),
            (name, BOLD),
            (f"  gateway · {gateway['protocol']} {gateway['port']} · ", DIM),
            (gateway["reason"], GOOD if gateway["open"] else BAD),
        ]
        lines += wrap(line, columns, 4)
        for one in gateway["certificates"] if view["http"]["haproxy"]["ok"] else ():
            if (text := certificate_trouble(one)) is not None:
                lines += wrap(
                    [("    ", PLAIN), sign(False), (f" certificate {one['certificate']}: {text}", BAD)], columns, 6
                )
    return lines


def certificate_trouble(certificate: View) -> str | None:
    """Why it is not served as it should be; None if it is."""
    if certificate["refused"]:
        return f"HAProxy refused it: {certificate['refused']}"
    if certificate["fingerprint"] is None:
        return "this node does not have it"
    return None if certificate["served"] else "HAProxy does not have this node's version yet"


def route_lines(view: View, columns: int) -> list[Line]:
    """Every route with where its requests go."""
    tier = view.get("http")
    if not tier or not tier["served"] or not tier["routes"]:
        return []
    lines: list[Line] = [[], [("routes", DIM)]]
    for route in tier["routes"]:
        hosts = ", ".join(route["hostnames"][:MAX_HOSTNAMES])
        if len(route["hostnames"]) > MAX_HOSTNAMES:
            hosts += f" and {len(route['hostnames']) - MAX_HOSTNAMES} more"
        to = f" → {', '.join(route['pools'])}" if route["pools"] else ""
        good = route["open"] and route["current"] and not route["refused"]
        line: Line = [
            ("  ", PLAIN),
            sign(good),
            (f" {route['route']}", BOLD),
            (f"  {hosts}{to} · ", DIM),
            (_state(route), GOOD if good else BAD),
        ]
        lines += wrap(line, columns, 4)
    return lines


def _state(route: View) -> str:
    if route["refused"]:
        return f"HAProxy refused it: {route['refused']}"
    if route["open"] and not route["current"]:
        return f"{route['reason']}; HAProxy does not have its rules yet"
    text: str = route["reason"]
    return text


def troubles(view: View) -> Iterator[str]:
    """Everything of the tier that is down or refused; nothing where this node does not serve it."""
    tier = view.get("http")
    if not tier or not tier["served"]:
        return
    if not tier["haproxy"]["ok"] and tier["gateways"]:
        yield "HAProxy does not do what is wanted"
    yield from (f"gateway {one['gateway']} is down" for one in tier["gateways"] if not one["open"])
    yield from (f"route {one['route']} is down" for one in tier["routes"] if not one["open"] or one["refused"])
    for gateway in tier["gateways"]:
        yield from (
            f"certificate {one['certificate']} is not served"
            for one in gateway["certificates"]
            if certificate_trouble(one) is not None
        )
    for pool in tier["pools"]:
        if not pool["serves"]:
            yield f"pool {pool['pool']} is down"
        for backend in pool["backends"]:
            if backend["up"] is False or backend["refused"]:
                yield f"{pool['pool']}/{backend['backend']} is down"
