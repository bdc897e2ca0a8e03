"""What a route's document says of a request, read from the document itself: slowly, in the order of Gateway API.

It shares nothing with ``core.http`` but the syntax of regular expressions, which is RE2's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import re2

from tests.support.http_machine import WireRequest


def chosen(document: Mapping[str, Any], request: WireRequest) -> dict[str, Any] | None:
    """The rule that a request is for, as it stands in the document; None if there is none."""
    found = []
    for order, rule in enumerate(document["rules"]):
        for place, match in enumerate(rule.get("matches", [{}])):
            if meets(match, request):
                found.append((_rank(match), order, place, rule))
    return min(found, key=lambda one: one[:3])[3] if found else None


def meets(match: Mapping[str, Any], request: WireRequest) -> bool:
    kind, value = _path(match)
    if kind == "Exact":
        fits = request.path == value
    elif kind == "PathPrefix":
        fits = f"{request.path}/".startswith(f"{value.rstrip('/')}/")
    else:
        fits = _found(value, request.path)
    if "method" in match and match["method"] != request.method:
        return False
    asked = [(one, request.fetch(f"h.{one['name']}")) for one in match.get("headers", [])]
    asked += [(one, request.fetch(f"q.{one['name']}")) for one in match.get("queryParams", [])]
    return fits and all(_same(one, value) for one, value in asked)


def _same(wanted: Mapping[str, Any], value: str | None) -> bool:
    if value is None:
        return False
    return _found(wanted["value"], value) if wanted.get("type") == "RegularExpression" else value == wanted["value"]


def _found(pattern: str, text: str) -> bool:
    return re2.search(pattern.encode(), text.encode()) is not None


def _path(match: Mapping[str, Any]) -> tuple[str, str]:
    path = match.get("path", {})
    return path.get("type", "PathPrefix"), path.get("value", "/")


def _rank(match: Mapping[str, Any]) -> tuple[int, ...]:
    kind, value = _path(match)
    length = len(value.rstrip("/")) if kind == "PathPrefix" else 0
    return (
        ["Exact", "PathPrefix", "RegularExpression"].index(kind), -length, "method" not in match,
        -len(match.get("headers", [])), -len(match.get("queryParams", [])),
    )  # fmt: skip


def weights(rule: Mapping[str, Any]) -> dict[str, float]:
    """The share of requests for each pool."""
    named = {ref["name"]: ref.get("weight", 1) for ref in rule.get("backendRefs", [])}
    total = sum(named.values())
    return {name: weight / total for name, weight in named.items() if weight}


def elb_says(document: Mapping[str, Any], request: WireRequest) -> tuple[str, str]:
    """The rule of ELB's graph that decides of a request, or "403", and the path there: as elb/processor.lua goes, with
    what is wrong in there put right."""
    rules, path, name = document["rules"], request.path, document["init"]
    while rules[name]["type"] != "backend":
        args, kind = rules[name]["args"], rules[name]["type"]
        if kind == "ua":
            agent = request.fetch("h.user-agent")
            met = agent is not None and _found(f"(?i){args['pattern']}", agent)
        elif not args.get("regex"):
            met = path.startswith(args["pattern"])
        else:
            match = re2.search(args["pattern"].encode(), path.encode())
            met = match is not None
            if match is not None and args["rewrite"]:
                first = (match.group(1) or b"").decode() if match.re.groups else ""
                path = "/" + first.lstrip("/")
        name = args.get("succ" if met else "fail")
        if name is None:
            return "403", path
    return name, path
