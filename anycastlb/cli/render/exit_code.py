"""Is a node well? What ``status`` ends with 2 for, in words. Pure: the answer of ``/v1/status`` in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from anycastlb.cli.render import http

STALE = 60.0
"""Seconds without a cycle after which a node counts as stuck."""


def troubles(view: dict[str, Any]) -> Iterator[str]:
    """Everything that is down, withdrawn, quarantined or stuck. A backend that is meant to have no flows is well."""
    node, catalog, speaker = view["node"], view["catalog"], view["speaker"]
    if node["age_seconds"] is None or node["age_seconds"] > STALE:
        yield "the node has not looked at itself"
    yield from (f"the node is {word}" for word in ("drained", "stopping") if node[word])
    if not catalog["connected"]:
        yield "the catalog source is not connected"
    if catalog["held"]:
        yield "a catalog is held"
    if not speaker["connected"]:
        yield "the BGP bridge is not connected"
    yield from (f"BGP session {one['peer']} is {one['state']}" for one in speaker["sessions"] if one["state"] != "up")
    for vip in view["vips"]:
        yield from _vip(vip)
    yield from http.troubles(view)
    yield from (f"{problem['key']} is quarantined" for problem in view["problems"])
    yield from (f"{failure['object']} was refused" for failure in view["failures"])


def _vip(vip: dict[str, Any]) -> Iterator[str]:
    if vip["leaving"]:
        return
    if not vip["open"] or not vip["announced"] or vip["rejected"]:
        yield f"{vip['vip']} is withdrawn"
    for service in vip["services"]:
        if not service["open"] or service["refused"]:
            yield f"{service['service']} on {vip['vip']} is down"
        for backend in service["backends"]:
            if backend["up"] is False or backend["refused"]:
                yield f"{service['service']}/{backend['backend']} is down"
