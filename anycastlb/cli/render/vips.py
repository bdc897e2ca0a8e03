"""The VIPs of ``anycastlb status``, with their services and backends. Pure: a part of the view in, lines out."""

from __future__ import annotations

from typing import Any

from anycastlb.cli.render import cluster, http
from anycastlb.cli.render.style import BAD, BOLD, DIM, GOOD, PLAIN, WARN, Line, Part, clean, length, sign, wrap
from anycastlb.serving.views.format import span

NARROW = 16
"""A last column that would get less than this goes to a line of its own."""


def vip_lines(view: dict[str, Any], vip: dict[str, Any], columns: int) -> list[Line]:
    mark, style, state = _standing(view, vip)
    line: Line = [(mark, style), (" ", PLAIN), (vip["vip"], BOLD), ("  ", PLAIN), (state, style)]
    line += cluster.announced(view, vip)
    lines = wrap(line, columns, 4)
    for name in vip.get("gateways", ()):
        lines += http.gateway_lines(view, name, columns)
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
    return wrap(line, columns, 4) + backend_lines(service["backends"], columns)


def backend_lines(backends: list[dict[str, Any]], columns: int) -> list[Line]:
    """One row a backend, as columns."""
    lines: list[Line] = []
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
    parts = []
    if backend["refused"]:
        parts.append(f"{'HAProxy' if 'server' in backend else 'the kernel'} refused it: {backend['refused']}")
    if last:
        detail, took, ago = last["detail"], span(last["duration_seconds"]), span(last["age_seconds"])
        parts.append(f"{detail} {took}" if last["ok"] else f"{detail}, {ago} ago")
        if check["streak"]:
            parts.append(f"rising {check['streak']}/{check['rise']}" if last["ok"] else _failing(check))
    parts += backend["notes"]
    if backend["leaves_in_seconds"] is not None:
        parts.append(f"its flows end within {span(backend['leaves_in_seconds'])}")
    if (problem := (check["via"] or {}).get("problem")) and problem not in (last or {}).get("detail", ""):
        parts.append(f"the check cannot run: {problem}")
    if backend["weight"] is not None and backend["kernel_weight"] not in (None, backend["weight"]):
        parts.append(f"the kernel has {backend['kernel_weight']}")
    return "; ".join(parts), DIM if up and backend["weight"] else WARN if up else BAD


def _failing(check: dict[str, Any]) -> str:
    return f"failing {check['streak']}/{check['fall']}"
