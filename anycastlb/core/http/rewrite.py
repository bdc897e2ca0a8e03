"""What the filters of a leaf make of a request. Pure; each function says how HAProxy is asked for the same."""

from __future__ import annotations

import re

from anycastlb.core.http.graph import Leaf
from anycastlb.core.http.patterns import pattern
from anycastlb.core.http.request import Request, Target
from anycastlb.core.model import PathRewrite, Redirect

DEFAULT_PORTS = {"http": 80, "https": 443}


def sent_path(leaf: Leaf, path: str) -> str:
    """The path that the pool of a leaf is asked for."""
    return rewritten(leaf.rewrite.path if leaf.rewrite else None, path, leaf.segments)


def rewritten(change: PathRewrite | None, path: str, segments: int) -> str:
    """The path after a change. ``segments``: how many the prefix has that matched, if it is to be replaced."""
    if change is None:
        return path
    if change.kind == "full":
        return change.value
    if change.kind == "regex":
        match = pattern(change.pattern).search(path)
        return path if match is None else expanded(change.value, match)
    parts = path.split("/")
    if len(parts) <= segments + 1:
        return change.value or "/"
    return one_slash(f"{change.value}/{'/'.join(parts[segments + 1 :])}")


def expanded(template: str, match: re.Match[bytes]) -> str:
    """The path that a template makes of a match, as ``map_regm`` does; it begins with one slash."""

    def group(reference: re.Match[str]) -> str:
        return (match.group(int(reference[1])) or b"").decode("latin-1")

    return one_slash(re.sub(r"\\(\d)", group, template))


def one_slash(path: str) -> str:
    """The path with exactly one slash at its beginning: ``//a`` would be another host in a redirect."""
    return "/" + path.lstrip("/")


def location(leaf: Leaf, redirect: Redirect, request: Request, target: Target, path: str) -> str:
    """Where a request is redirected to. ``target``: the gateway's own scheme and port; ``path`` as the walk ends."""
    scheme = redirect.scheme or target.scheme
    port = redirect.port or (None if redirect.scheme else target.port)
    where = (redirect.host or request.host) + ("" if port in (None, DEFAULT_PORTS[scheme]) else f":{port}")
    query = f"?{request.query}" if request.query else ""
    return f"{scheme}://{where}{rewritten(redirect.path, path, leaf.segments)}{query}"
