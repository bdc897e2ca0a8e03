"""``gateway list`` and ``route list``. Pure: documents and the answer of ``/v1/status`` in, lines out.

A row is not wrapped, so that grep and awk see it whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from anycastlb.cli.ipvsadm_options import written
from anycastlb.cli.render.style import BAD, BOLD, DIM, GOOD, PLAIN, WARN, Line

View = Mapping[str, Any]


def gateways(documents: Mapping[str, View], view: View) -> list[Line]:
    """One line a gateway."""
    vips = {vip["vip"]: vip for vip in view["vips"]}
    rows: list[tuple[Sequence[str], str]] = []
    for name, document in documents.items():
        addresses = _several(document.get("vip"))
        places = " ".join(written(str(address), document.get("port")) for address in addresses)
        certificates = ",".join(_several((document.get("tls") or {}).get("certificates"))) or "-"
        state, style = _announced([vips.get(str(address)) for address in addresses])
        rows.append(((name, str(document.get("protocol", "")), places, certificates, state), style))
    head = ("ID", "Prot", "LocalAddress:Port", "Certificates", "State")
    return [*_table(head, rows, "no gateways"), *_problems("gateways", view)]


def routes(documents: Mapping[str, View], view: View) -> list[Line]:
    """One line a route."""
    rows: list[tuple[Sequence[str], str]] = []
    for name, document in documents.items():
        hosts = ",".join(_several(document.get("hostnames"))) or name
        rows.append(((name, ",".join(_several(document.get("gateways"))), hosts, " ".join(_pools(document))), PLAIN))
    return [*_table(("ID", "Gateways", "Hostnames", "Services"), rows, "no routes"), *_problems("routes", view)]


def _several(value: Any) -> list[str]:
    return [] if value is None else list(map(str, value)) if isinstance(value, list) else [str(value)]


def _announced(vips: Sequence[View | None]) -> tuple[str, str]:
    """In words, and how they look."""
    known = [vip for vip in vips if vip is not None]
    announced = sum(vip["announced"] for vip in known)
    if known and announced == len(vips):
        return "announced", GOOD
    reason = next((f", {vip['reason']}" for vip in known if not vip["announced"]), "")
    if announced:
        return f"{announced} of {len(vips)} VIPs announced{reason}", WARN
    return f"not announced{reason}", BAD


def _pools(document: View) -> list[str]:
    """The services that it sends requests to, each once."""
    rules = document.get("rules") or []
    refs = [ref.get("name") for rule in rules for ref in rule.get("backendRefs") or []]
    graph = (document.get("graph") or {}).get("rules") or {}
    refs += [rule.get("args", {}).get("servername") for rule in graph.values()]
    return list(dict.fromkeys(str(name) for name in refs if name)) or ["-"]


def _table(head: Sequence[str], rows: Sequence[tuple[Sequence[str], str]], none: str) -> list[Line]:
    if not rows:
        return [[(none, DIM)]]
    widths = [max(len(cells[column]) for cells in (head, *(cells for cells, _ in rows))) for column in range(len(head))]
    lines: list[Line] = [_row(head, widths, DIM, DIM)]
    return lines + [_row(cells, widths, BOLD, style) for cells, style in rows]


def _row(cells: Sequence[str], widths: Sequence[int], first: str, last: str) -> Line:
    middle = [
        (f"{cell:<{width}} ", DIM if first == DIM else PLAIN)
        for cell, width in zip(cells[1:-1], widths[1:-1], strict=True)
    ]
    return [(f"{cells[0]:<{widths[0]}} ", first), *middle, (cells[-1], last)]


def _problems(kind: str, view: View) -> list[Line]:
    """The documents of that kind that cannot be used."""
    return [
        [("! ", BAD), (f"PROBLEM {one['key']}: {one['path'] + ': ' if one['path'] else ''}{one['expected']}", BAD)]
        for one in view["problems"]
        if one["key"].startswith(f"{kind}/")
    ]
