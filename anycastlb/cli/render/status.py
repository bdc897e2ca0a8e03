"""``anycastlb status``: the answer of ``/v1/status`` as a picture for a terminal of 80 columns.

Pure: a view in, lines out. What needs attention stands at the bottom, where the eye is when the command has ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from anycastlb.cli.render import cluster
from anycastlb.cli.render.style import (
    BAD,
    BOLD,
    DIM,
    GLUE,
    GOOD,
    PLAIN,
    WARN,
    Line,
    Part,
    clean,
    count,
    length,
    sign,
    wrap,
)
from anycastlb.serving.views.format import span

STALE = 60.0
"""Seconds without a cycle after which the picture is called old."""
MAX_ENTRIES = 10
"""How many entries of one kind stand at the bottom; the rest is counted."""
NARROW = 16
"""A last column that would get less than this goes to a line of its own."""


def status_lines(view: dict[str, Any], columns: int) -> list[Line]:
    """The whole picture, as lines of at most ``columns`` characters wherever words allow it."""
    lines = _header(view, columns)
    for vip in view["vips"]:
        lines += [[], *_vip(view, vip, columns)]
    if not view["vips"]:
        lines += [[], [("no VIPs: the catalog names no service", DIM)]]
    bottom = _draining(view, columns) + _alarms(view, columns)
    return lines + ([[], *bottom] if bottom else [])


# ---------------------------------------------------------------- the header


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
        *_names(view.get("names", ()), columns),
    ]


def _banners(node: dict[str, Any], columns: int) -> list[Line]:
    told, drain = [], node.get("drain")
    if drain and drain["stage"] in ("waiting", "graceful", "withdrawn") and not node["stopping"]:
        told.append(f"DRAINING: {cluster.progress(drain)}")
    if node["stopping"]:
        told.append("STOPPING: routes are withdrawn, flows are draining")
    if node["drained"] and not any(text.startswith("DRAINING") for text in told):
        told.append(f"DRAINED: this node announces nothing until the key drain/{node['name']} is deleted")
    age = node["age_seconds"]
    if age is None:
        told.append("STARTING: the first cycle has not finished")
    elif age > STALE:
        told.append(f"STUCK: the last cycle ended {span(age)} ago; this picture is old")
    return [line for text in told for line in wrap([(text, BAD)], columns, 2)]


def _catalog(catalog: dict[str, Any], columns: int) -> list[Line]:
    source = catalog["source"] or "catalog source"
    told: Line = [("catalog  ", DIM), (f"{source} · ", PLAIN)]
    if catalog["connected"]:
        told.append((f"connected for {span(catalog['since_seconds'])}", GOOD))
    else:
        error = f": {catalog['error']}" if catalog["error"] else ""
        told.append((f"NOT CONNECTED for {span(catalog['since_seconds'])}{error}", BAD))
    index = f" · index{GLUE}{catalog['index']}" if catalog["index"] else ""
    told.append((f"{index} · {count(catalog['services'], 'service')}", PLAIN))
    if catalog["cached"]:
        told.append((" · from the copy on disk", WARN))
    return wrap(told, columns, 9)


def _speaker(view: dict[str, Any], columns: int) -> list[Line]:
    speaker = view["speaker"]
    up = sum(session["state"] == "up" for session in speaker["sessions"])
    told: Line = [("bgp      ", DIM)]
    if speaker["connected"]:
        version = f"ExaBGP {speaker['version']} · " if speaker["version"] else ""
        told += [(version, PLAIN), (f"{up} of {count(len(speaker['sessions']), 'session')} up", GOOD if up else BAD)]
    else:
        told.append(("BRIDGE NOT CONNECTED: is ExaBGP running?", BAD))
    lines = wrap(told, columns, 9)
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
        told: Line = [("names    ", DIM), (f"{place['place']} · ", PLAIN)]
        if place["error"]:
            told.append((f"AWAY for {span(place['since_seconds'])}: {place['error']}", BAD))
        elif not place["seen"]:
            told.append(("not looked at yet", WARN))
        else:
            told.append((count(place["rows"], "record" if place["table"] == "dns_records" else "registration"), PLAIN))
        lines += wrap(told, columns, 9)
        for refused in place["refused"][:MAX_ENTRIES]:
            lines += wrap(
                [(" " * 9, PLAIN), sign(False), (f" {refused['object']}: {refused['reason']}", BAD)], columns, 11
            )
    return lines


# ---------------------------------------------------------------- VIPs, services, backends


def _vip(view: dict[str, Any], vip: dict[str, Any], columns: int) -> list[Line]:
    mark, style, told = _standing(view, vip)
    line: Line = [(mark, style), (" ", PLAIN), (vip["vip"], BOLD), ("  ", PLAIN), (told, style)]
    line += cluster.announced(view, vip)
    lines = wrap(line, columns, 4)
    for service in vip["services"]:
        lines += _service(service, columns)
    return lines


def _standing(view: dict[str, Any], vip: dict[str, Any]) -> tuple[str, str, str]:
    """The VIP's sign, its style, and its state in words."""
    speaker, lasting = view["speaker"], vip["since_seconds"]
    age = f" for {span(lasting)}" if lasting is not None else ""
    up = vip["sessions_up"]
    if vip["leaving"]:
        return "◌", WARN, vip["reason"] + (", still announced" if vip["announced"] else "")
    if not vip["open"]:
        return (
            ("◐", WARN, f"closed{age}: {vip['reason']}; still announced")
            if vip["announced"]
            else ("○", BAD, f"closed{age}: {vip['reason']}")
        )
    if vip["rejected"]:
        return "◐", BAD, f"open{age}, but its route is rejected: {vip['rejected']}"
    if not speaker["connected"]:
        return "◐", BAD, f"open{age}, but the BGP bridge is not connected"
    if not vip["announced"]:
        return "◐", WARN, f"open{age}, but ExaBGP has not acknowledged its route yet"
    if not up:
        return "◐", BAD, f"open{age}, but no BGP session is up"
    peers = ", ".join(up[:4]) + (f" and {len(up) - 4} more" if len(up) > 4 else "")
    if vip["kept"]:
        return "◐", WARN, f"announced to {peers}, open{age}: {vip['reason']}"
    return "●", GOOD, f"announced to {peers}, open{age}{_penalty(vip['damping'])}"


def _penalty(damping: dict[str, Any] | None) -> str:
    if not damping or damping["penalty"] < 1:
        return ""
    return f"; damping penalty {damping['penalty']:.0f}, suppressed above {damping['suppress']:g}"


def _service(service: dict[str, Any], columns: int) -> list[Line]:
    port = f"{service['protocol']} {service['port'] or 'every port'}"
    flags = f" ({', '.join(service['flags'])})" if service["flags"] else ""
    line: Line = [
        ("  ", PLAIN),
        (service["service"], BOLD),
        (f"  {port} · {service['scheduler']}{flags} · ", DIM),
        (service["reason"], GOOD if service["open"] else BAD),
    ]
    if service["refused"]:
        line.append((f" · the kernel refused it: {service['refused']}", BAD))
    lines = wrap(line, columns, 4)
    backends = service["backends"]
    names = max((len(backend["backend"]) for backend in backends), default=0)
    places = max((len(_place(backend)) for backend in backends), default=0)
    digits = max((len(_weight(backend)) for backend in backends), default=0)
    largest = max((backend["nominal_weight"] for backend in backends), default=0)
    cells = 10 if columns - (names + places + digits + 10 + 11) >= NARROW else 5
    for backend in backends:
        row: Line = [
            ("    ", PLAIN),
            sign(_serves(backend)),
            (f" {backend['backend']:<{names}}  {_place(backend):<{places}}  ", PLAIN),
            *_bar(backend["weight"] or 0, largest, cells),
            (f" {_weight(backend):>{digits}}  ", PLAIN),
        ]
        lines += _with_detail(row, _detail(backend), columns)
    return lines


def _with_detail(row: Line, detail: Part, columns: int) -> list[Line]:
    """The detail at the end of the row, or wrapped under it where it does not fit."""
    start = length(row)
    text = clean(detail[0])
    if start + len(text) <= columns:
        return [[*row, (text, detail[1])]]
    if columns - start >= NARROW:
        return wrap([*row, (text, detail[1])], columns, start)
    return [row, *wrap([(" " * 8, PLAIN), (text, detail[1])], columns, 8)]


def _place(backend: dict[str, Any]) -> str:
    address = backend["address"]
    return f"[{address}]:{backend['port']}" if ":" in address else f"{address}:{backend['port']}"


def _serves(backend: dict[str, Any]) -> bool | None:
    up: bool | None = backend["up"]
    return None if up and not backend["weight"] else up


def _weight(backend: dict[str, Any]) -> str:
    return "?" if backend["weight"] is None else str(backend["weight"])


def _bar(weight: int, largest: int, cells: int) -> list[Part]:
    """A weight beside the largest of its service; a backend that gets anything shows at least one cell."""
    filled = min(cells, max(1, round(cells * weight / largest))) if weight and largest else 0
    return [("█" * filled, GOOD), ("░" * (cells - filled), DIM)]


def _detail(backend: dict[str, Any]) -> Part:
    """What the last check found, and whatever else the weight depends on."""
    check, last, up = backend["check"], backend["check"]["last"], backend["up"]
    told = []
    if backend["refused"]:
        told.append(f"the kernel refused it: {backend['refused']}")
    if last:
        found, took, ago = last["detail"], span(last["duration_seconds"]), span(last["age_seconds"])
        told.append(f"{found} {took}" if last["ok"] else f"{found}, {ago} ago")
        if check["streak"]:
            told.append(f"rising {check['streak']}/{check['rise']}" if last["ok"] else _failing(check))
    told += backend["notes"]
    if backend["leaves_in_seconds"] is not None:
        told.append(f"its flows end within {span(backend['leaves_in_seconds'])}")
    if (problem := (check["via"] or {}).get("problem")) and problem not in (last or {}).get("detail", ""):
        told.append(f"the check cannot run: {problem}")
    if backend["weight"] is not None and backend["kernel_weight"] not in (None, backend["weight"]):
        told.append(f"the kernel has {backend['kernel_weight']}")
    return "; ".join(told), DIM if up and backend["weight"] else WARN if up else BAD


def _failing(check: dict[str, Any]) -> str:
    return f"failing {check['streak']}/{check['fall']}"


# ---------------------------------------------------------------- the bottom: what drains, what needs attention


def _draining(view: dict[str, Any], columns: int) -> list[Line]:
    items = [item for item in view["leaving"] if item["table"] != "addresses"]
    lines: list[Line] = []
    for item in items[:MAX_ENTRIES]:
        lines += wrap([("draining ", WARN), (f"{item['object']} for {span(item['for_seconds'])}", PLAIN)], columns, 9)
    if len(items) > MAX_ENTRIES:
        lines.append([(f"         and {len(items) - MAX_ENTRIES} more", DIM)])
    return lines


def _alarms(view: dict[str, Any], columns: int) -> list[Line]:
    told = [f"PROBLEM {_problem(problem)}" for problem in view["problems"][:MAX_ENTRIES]]
    told += _rest(len(view["problems"]), "problem")
    told += [f"FAILED {item['verb']} {item['object']}: {item['refused']}" for item in view["failures"][:MAX_ENTRIES]]
    told += _rest(len(view["failures"]), "failed change")
    told += cluster.alarms(view["cluster"])
    if held := view["catalog"]["held"]:
        told.append(_held(held))
    return [line for text in told for line in wrap([("! ", BAD), (text, BAD)], columns, 2)]


def _rest(number: int, noun: str) -> list[str]:
    return (
        [f"and {count(number - MAX_ENTRIES, f'more {noun}')} (anycastlb status --json)"] if number > MAX_ENTRIES else []
    )


def _problem(problem: dict[str, Any]) -> str:
    line = f":{problem['line']}" if problem["line"] else ""
    path = f"{problem['path']}: " if problem["path"] else ""
    return f"{problem['key']}{line}: {path}{problem['expected']}"


def _held(held: dict[str, Any]) -> str:
    lost = ", ".join(held["lost"][:MAX_ENTRIES]) + (
        f" and {len(held['lost']) - MAX_ENTRIES} more" if len(held["lost"]) > MAX_ENTRIES else ""
    )
    until, age = held["believed_in_seconds"], span(held["since_seconds"])
    otherwise = f"; if it persists it is believed in {span(until)}" if until is not None else ""
    return (
        f"HELD: the catalog lost {len(held['lost'])} of {count(held['of'], 'VIP')} at once {age} ago "
        f"and is not applied: {lost}. `anycastlb confirm` lets it through{otherwise}"
    )
