"""Why does this request go there? The chain of ``why URL``, in the form of every other ``why``.

Pure. What is known of VIPs and pools besides the documents comes as links from the caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anycastlb.core.http.explain import End, Explanation
from anycastlb.core.http.request import Request
from anycastlb.serving.views.links import Link, link


def request_view(
    url: str,
    request: Request,
    found: Explanation,
    vips: list[Link],
    pools: Mapping[str, Link],
    asked: Mapping[str, bool],
) -> dict[str, Any]:
    """``vips``: of the gateway. ``pools``: a link of each pool by name, with the backends that do not serve under it.
    ``asked``: what HAProxy answered to questions of ``found``, by their keys."""
    ended = [pools[end.pool]["ok"] if end.pool in pools else None for end in found.ends if end.pool]
    changes = dict.fromkeys(change for end in found.ends for change in end.changes)
    chain = [
        *vips,
        link("route", True, found.route, f"hostname {found.hostname}"),
        link("rule", bool(found.rule), found.rule or "none", "; ".join(found.tests)),
        *(link("filter", True, "", change) for change in changes),
        *(pools[end.pool] if end.pool in pools else link("pool", None, end.pool, "") for end in found.ends if end.pool),
        *(link("passed", None, passed.rule, passed.why) for passed in found.passed),
        *(
            link("haproxy", asked[question.key] == question.found, question.pattern, _answered(asked[question.key]))
            for question in found.questions
            if question.key in asked
        ),
    ]
    held = [one["ok"] for one in (*vips, *(one for one in chain if one["what"] == "haproxy"))]
    ok = bool(found.rule) and False not in (*ended, *held)
    return _view(url, request, ok, _answer(found), chain)


def no_site_view(url: str, request: Request, vips: list[Link]) -> dict[str, Any]:
    """The answer where no route has the host."""
    chain = [*vips, link("route", False, "none", f"no route has the hostname {request.host} or a wildcard for it")]
    return {
        "object": f"{request.method} {url}",
        "kind": "request",
        "ok": False,
        "answer": "answered with 404",
        "chain": chain,
    }


def _view(url: str, request: Request, ok: bool, answer: str, chain: list[Link]) -> dict[str, Any]:
    return {"object": f"{request.method} {url}", "kind": "request", "ok": ok, "answer": answer, "chain": chain}


def _answer(found: Explanation) -> str:
    if len(found.ends) == 1:
        return _where(found.ends[0])
    parts = [f"{end.pool} ({end.share * 100:g} %)" for end in found.ends]
    return f"goes to {', '.join(parts[:-1])} or {parts[-1]}"


def _where(end: End) -> str:
    if end.pool:
        return f"goes to {end.pool}"
    return f"answered with {end.status}" + "".join(f", {change}" for change in end.changes)


def _answered(found: bool) -> str:
    return "HAProxy itself says that it matches" if found else "HAProxy itself says that it does not match"
