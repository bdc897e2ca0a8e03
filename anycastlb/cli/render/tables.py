"""``service list`` and ``server list``: services and backends with health and state, as ``ipvsadm -Ln`` lays them out.

Pure: the answer of ``/v1/status`` in, lines out. A row is not wrapped, so that grep and awk see it whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from anycastlb.cli.ipvsadm_options import written
from anycastlb.cli.render.style import BAD, BOLD, DIM, GOOD, PLAIN, WARN, Line, Part

HEAD = ("ID", "Prot", "LocalAddress:Port", "Scheduler", "Flags", "State")
UNDER = ("", "->", "RemoteAddress:Port", "Forward", "Weight", "Health")
Row = tuple[Sequence[str], str]
"""The cells, and the style of the last."""


def services(view: dict[str, Any], only: str = "") -> list[dict[str, Any]]:
    """Every service on every of its VIPs, with what is known of the VIP: what ``-o json`` prints."""
    rows = []
    for vip in view["vips"]:
        about = {name: vip[name] for name in ("vip", "announced", "leaving", "rejected")}
        about["closed"] = "" if vip["open"] else vip["reason"]
        rows += [{**about, **service} for service in vip["services"] if not only or service["service"] == only]
    rows += [_pool(pool) for pool in (view.get("http") or {}).get("pools", ()) if not only or pool["pool"] == only]
    return sorted(rows, key=lambda row: (row["service"], row["vip"]))


def _pool(pool: dict[str, Any]) -> dict[str, Any]:
    """A pool as a service that has no VIP."""
    about = {"vip": "", "announced": False, "leaving": False, "rejected": "", "closed": "", "refused": ""}
    kind = {"protocol": "pool", "scheduler": pool["balance"], "flags": []}
    return {**pool, **about, **kind, "service": pool["pool"], "open": pool["serves"]}


def backends(view: dict[str, Any], only: str = "") -> list[dict[str, Any]]:
    """Every backend of every service, one after the other."""
    return [
        {"service": service["service"], "vip": service["vip"], **backend}
        for service in services(view, only)
        for backend in service["backends"]
    ]


def listed(view: dict[str, Any], only: str = "") -> list[Line]:
    """The table, then the documents that cannot be used."""
    rows: list[Row] = [(HEAD, DIM), (UNDER, DIM)]
    for service in services(view, only):
        rows.append((_service(service), _standing(service)))
        for backend in service["backends"]:
            rows.append((_backend(backend), _health(backend)))
    lines = [] if len(rows) == 2 else list(_aligned(rows))
    for problem in view["problems"]:
        if not only or problem["key"].split("/")[1:2] in ([only], [f"{only}.json"], [f"{only}.toml"], [f"{only}.yaml"]):
            path = f"{problem['path']}: " if problem["path"] else ""
            lines.append([("! ", BAD), (f"PROBLEM {problem['key']}: {path}{problem['expected']}", BAD)])
    return lines or [[("no services", DIM)]]


def _aligned(rows: list[Row]) -> Iterator[Line]:
    widths = [max(len(cells[column]) for cells, _ in rows) for column in range(len(HEAD) - 1)]
    for number, (cells, style) in enumerate(rows):
        head = number < 2
        parts: list[Part] = []
        for column, width in enumerate(widths):
            bold = column == 0 and not head
            parts.append((f"{cells[column]:<{width}} ", DIM if head else BOLD if bold else PLAIN))
        yield [*parts, (cells[-1], style)]


def _service(service: dict[str, Any]) -> tuple[str, ...]:
    if service["protocol"] == "pool":
        return service["service"], "POOL", "-", service["scheduler"], "", service["reason"]
    flags = ",".join(service["flags"])
    marked = service["protocol"] == "fwmark"
    at = service["key"].partition(" ")[2] if marked else written(service["vip"], service["port"])
    if marked:
        at = f"{service['vip']} mark {at}"
    state = "leaving" if service["leaving"] else "announced" if service["announced"] else "not announced"
    text = f"{state}, {service['reason']}"
    if service["closed"] and service["closed"] != service["reason"] and not service["leaving"]:
        text += f"; {service['closed']}"
    if service["rejected"]:
        text += f"; its route is rejected: {service['rejected']}"
    if service["refused"]:
        text += f"; the kernel refused it: {service['refused']}"
    protocol = {"fwmark": "FWM"}.get(service["protocol"], service["protocol"].upper())
    return service["service"], protocol, at, service["scheduler"], f"({flags})" if flags else "", text


def _standing(service: dict[str, Any]) -> str:
    if service["leaving"]:
        return WARN
    if service["protocol"] == "pool":
        return GOOD if service["open"] else BAD
    return GOOD if service["announced"] and service["open"] and not service["refused"] else BAD


def _backend(backend: dict[str, Any]) -> tuple[str, ...]:
    place = written(backend["address"], backend["port"])
    weight = "?" if backend["weight"] is None else str(backend["weight"])
    if backend["weight"] is not None and backend["weight"] != backend["nominal_weight"]:
        weight += f"/{backend['nominal_weight']}"
    named = "" if backend["backend"] in (place, backend["address"]) else f"{backend['backend']}: "
    return "", "->", place, backend["forward"] or "-", weight, named + _state(backend)


def _state(backend: dict[str, Any]) -> str:
    word = {True: "up", False: "down", None: "not checked yet"}[backend["up"]]
    if backend["drain"]:
        word = f"drain, {word}"
    if backend["fallback"]:
        word += ", fallback"
    last = backend["check"]["last"]
    text = f"{word}, {last['detail']}" if last and last["detail"] else word
    who = "HAProxy" if "server" in backend else "the kernel"
    return f"{text}; {who} refused it: {backend['refused']}" if backend["refused"] else text


def _health(backend: dict[str, Any]) -> str:
    if backend["refused"] or backend["up"] is False:
        return BAD
    return GOOD if backend["up"] and backend["weight"] else WARN
