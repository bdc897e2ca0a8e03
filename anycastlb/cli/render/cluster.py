"""The other nodes in the picture of ``anycastlb status``. Pure: a part of the view in, lines out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from anycastlb.cli.render.style import BAD, BOLD, DIM, GOOD, PLAIN, WARN, Line, Part, count, sign, wrap
from anycastlb.serving.views.format import span

MAX_NAMES = 10
"""Nodes shown one by one, those in trouble first; the rest is counted."""
NAMED = 4
"""Nodes named in a row."""


def header(cluster: dict[str, Any], columns: int) -> list[Line]:
    """The nodes, one a line."""
    if cluster["alone"]:
        return wrap([("cluster  ", DIM), (f"this node alone: {cluster['alone']}", PLAIN)], columns, 9)
    if not cluster["follows"]:
        return []
    nodes = cluster["nodes"]
    alive = sum(node["alive"] for node in nodes)
    line: Line = [("cluster  ", DIM), _alive(alive, nodes)]
    lasting = span(cluster["since_seconds"])
    if not cluster["connected"]:
        error = f": {cluster['error']}" if cluster["error"] else ""
        line.append((f" · NOT CONNECTED for {lasting}, the others as last known{error}", BAD))
    elif not cluster["published"]:
        line.append((" · this node is not published yet", WARN))
    lines = wrap(line, columns, 9)
    first = sorted(nodes, key=lambda node: (not node["self"], _state(node)[0] is True))
    picked = [node for node in nodes if any(node is item for item in first[:MAX_NAMES])]
    names = max(len(node["name"]) for node in picked)
    for node in picked:
        good, text, style = _state(node)
        row: Line = [(" " * 9, PLAIN), sign(good), (f" {node['name']:<{names}}  ", BOLD if node["self"] else PLAIN)]
        lines += wrap([*row, (text, style)], columns, 13 + names)
    if len(nodes) > len(picked):
        lines.append([(f"           and {len(nodes) - len(picked)} more", DIM)])
    return lines


def announced(view: dict[str, Any], vip: dict[str, Any]) -> list[Part]:
    """Who else announces a VIP; empty for a node that knows of no other."""
    cluster = view.get("cluster") or {}
    if len(cluster.get("nodes", ())) < 2:
        return []
    names = [name for name in cluster["announcers"].get(vip["vip"], ()) if name != view["node"]["name"]]
    if names:
        return [(f" · {'also' if vip['announced'] else 'announced'} by {_named(names)}", PLAIN)]
    if vip["announced"]:
        return [(" · by this node alone", WARN)]
    return [] if vip["leaving"] else [(" · announced by no node", BAD)]


def alarms(cluster: dict[str, Any]) -> list[str]:
    """Where nodes differ."""
    texts = []
    budget = cluster.get("budget")
    if budget and budget["exceeded"]:
        names = _named(budget["drained"])
        texts.append(
            f"DRAINED TOO MANY: {names} at once, and max_drained is {budget['max_drained']} (anycastlb undrain)"
        )
    if cluster["catalogs_differ"]:
        texts.append(f"DIFFER: the nodes have different catalogs in force: {_parties(cluster['catalogs_differ'])}")
    differs = cluster["differs"]
    texts += [
        f"DIFFER {item['service']}: the nodes have different tables: {_parties(item['nodes'])}" for item in differs
    ]
    if len(texts) > MAX_NAMES:
        texts = [
            *texts[:MAX_NAMES],
            f"and {count(len(texts) - MAX_NAMES, 'more difference')} (anycastlb status --json)",
        ]
    return texts


def progress(drain: dict[str, Any]) -> str:
    """How far a node that leaves has come, with what still comes to it."""
    parts = [drain["reason"]]
    parts += [f"{drain['packets_per_second']:g} packets/s"] if drain["packets_per_second"] is not None else []
    parts += [f"{count(drain['connections'], 'connection')}"] if drain["connections"] is not None else []
    parts += [f"about {span(drain['eta_seconds'])} more"] if drain["eta_seconds"] is not None else []
    parts += [f"until {drain['deadline']} at most"] if drain["deadline"] else []
    return " · ".join(parts)


def _alive(alive: int, nodes: Sequence[dict[str, Any]]) -> Part:
    if len(nodes) == 1:
        return "no other node is known", PLAIN
    return f"{alive} of {count(len(nodes), 'node')} alive", GOOD if alive == len(nodes) else BAD


def _state(node: dict[str, Any]) -> tuple[bool | None, str, str]:
    """Is it well, in words, and their style."""
    here = "this node · " if node["self"] else ""
    if not node["alive"]:
        return False, node["error"] or f"gone for {span(node['age_seconds'])}{_last(node)}", BAD
    if node["error"]:
        return False, f"unreadable: {node['error']}", BAD
    text = f"{here}announces {node['announced']} of {count(node['vips'], 'VIP')}"
    if node["stopping"]:
        return None, f"{text} · stopping", WARN
    if node["drained"]:
        stage = (node.get("drain") or {}).get("stage", "drained")
        return None, f"{text} · {'drained' if stage == 'drained' else f'draining ({stage})'}", WARN
    if not node["ready"]:
        return False, f"{text} · not ready: {'; '.join(node['missing'])}", BAD
    return True, text, PLAIN


def _last(node: dict[str, Any]) -> str:
    if node["stopping"]:
        return ", after it had stopped"
    return f", it announced {node['announced']} of {count(node['vips'], 'VIP')}"


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _parties(parties: dict[str, list[str]]) -> str:
    return "; ".join(
        f"{_named(names)} {'has' if len(names) == 1 else 'have'} {key[:8]}" for key, names in parties.items()
    )
