"""``anycastlb status``: the answer of ``/v1/status`` as a picture for a terminal of 80 columns.

Pure: a view in, lines out. What needs attention stands at the bottom, where the eye is when the command has ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from anycastlb.cli.render import cluster, http
from anycastlb.cli.render.attention import MAX_ENTRIES, alarms, draining
from anycastlb.cli.render.style import BAD, BOLD, DIM, GLUE, GOOD, PLAIN, WARN, Line, count, sign, wrap
from anycastlb.cli.render.vips import backend_lines, vip_lines
from anycastlb.serving.views.format import span

STALE = 60.0
"""Seconds without a cycle after which the picture is called old."""


def status_lines(view: dict[str, Any], columns: int) -> list[Line]:
    """The whole picture, as lines of at most ``columns`` characters wherever words allow it."""
    lines = _header(view, columns)
    for vip in view["vips"]:
        lines += [[], *vip_lines(view, vip, columns)]
    if not view["vips"]:
        lines += [[], [("no VIPs: the catalog names no service", DIM)]]
    lines += http.route_lines(view, columns) + pool_lines(view, columns)
    bottom = draining(view, columns) + alarms(view, columns)
    return lines + ([[], *bottom] if bottom else [])


def pool_lines(view: dict[str, Any], columns: int) -> list[Line]:
    """Every pool with its backends, as services have them."""
    tier, lines = view.get("http"), list[Line]()
    for pool in tier["pools"] if tier and tier["served"] else ():
        shade = GOOD if pool["serves"] else BAD
        head: Line = [(pool["pool"], BOLD), (f"  pool · {pool['balance']} · ", DIM), (pool["reason"], shade)]
        lines += [[], *wrap(head, columns, 2), *backend_lines(pool["backends"], columns)]
    return lines


def _header(view: dict[str, Any], columns: int) -> list[Line]:
    node, vips = view["node"], view["vips"]
    announced = sum(vip["announced"] for vip in vips)
    title: Line = [
        (f"anycastlb {node['version']}", DIM),
        (" on ", DIM),
        (node["name"], BOLD),
        (f" · {announced} of {count(len(vips), 'VIP')} announced", GOOD if announced == len(vips) else WARN),
    ]
    return [
        *wrap(title, columns),
        *_banners(node, columns),
        *_catalog(view["catalog"], columns),
        *_speaker(view, columns),
        *cluster.header(view["cluster"], columns),
        *http.header(view, columns),
        *_names(view.get("names", ()), columns),
    ]


def _banners(node: dict[str, Any], columns: int) -> list[Line]:
    banners, drain = [], node.get("drain")
    stage = drain["stage"] if drain and not node["stopping"] else ""
    if drain and stage in ("waiting", "graceful", "withdrawn"):
        banners.append(f"DRAINING: {cluster.progress(drain)}")
    if node["stopping"]:
        banners.append("STOPPING: routes are withdrawn, flows are draining")
    if node["drained"] and stage not in ("waiting", "graceful", "withdrawn"):
        banners.append(f"DRAINED: this node announces nothing until the key drain/{node['name']} is deleted")
    age = node["age_seconds"]
    if age is None:
        banners.append("STARTING: the first cycle has not finished")
    elif age > STALE:
        banners.append(f"STUCK: the last cycle ended {span(age)} ago; this picture is old")
    return [line for text in banners for line in wrap([(text, BAD)], columns, 2)]


def _catalog(catalog: dict[str, Any], columns: int) -> list[Line]:
    source = catalog["source"] or "catalog source"
    line: Line = [("catalog  ", DIM), (f"{source} · ", PLAIN)]
    if catalog["connected"]:
        line.append((f"connected for {span(catalog['since_seconds'])}", GOOD))
    else:
        error = f": {catalog['error']}" if catalog["error"] else ""
        line.append((f"NOT CONNECTED for {span(catalog['since_seconds'])}{error}", BAD))
    index = f" · index{GLUE}{catalog['index']}" if catalog["index"] else ""
    line.append((f"{index} · {count(catalog['services'], 'service')}", PLAIN))
    if catalog["cached"]:
        line.append((" · from the copy on disk", WARN))
    return wrap(line, columns, 9)


def _speaker(view: dict[str, Any], columns: int) -> list[Line]:
    speaker = view["speaker"]
    up = sum(session["state"] == "up" for session in speaker["sessions"])
    line: Line = [("bgp      ", DIM)]
    if speaker["connected"]:
        version = f"ExaBGP {speaker['version']} · " if speaker["version"] else ""
        line += [(version, PLAIN), (f"{up} of {count(len(speaker['sessions']), 'session')} up", GOOD if up else BAD)]
    else:
        line.append(("BRIDGE NOT CONNECTED: is ExaBGP running?", BAD))
    lines = wrap(line, columns, 9)
    for session in speaker["sessions"]:
        good = session["state"] == "up"
        reason = f": {session['reason']}" if session["reason"] else ""
        text = f" {session['peer']}  {session['state']} for {span(session['since_seconds'])}{reason}"
        lines += wrap([(" " * 9, PLAIN), sign(good), (text, PLAIN if good else BAD)], columns, 11)
    return lines


def _names(places: Sequence[dict[str, Any]], columns: int) -> list[Line]:
    """Where names are written: what stands there, and what keeps it from being so."""
    lines = []
    for place in places:
        line: Line = [("names    ", DIM), (f"{place['place']} · ", PLAIN)]
        if place["error"]:
            line.append((f"AWAY for {span(place['since_seconds'])}: {place['error']}", BAD))
        elif not place["seen"]:
            line.append(("not looked at yet", WARN))
        else:
            line.append((count(place["rows"], "record" if place["table"] == "dns_records" else "registration"), PLAIN))
        lines += wrap(line, columns, 9)
        for refused in place["refused"][:MAX_ENTRIES]:
            lines += wrap(
                [(" " * 9, PLAIN), sign(False), (f" {refused['object']}: {refused['reason']}", BAD)], columns, 11
            )
    return lines
