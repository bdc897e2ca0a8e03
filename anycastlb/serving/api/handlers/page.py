"""The web page: a handful of files, read once, served with the headers that make a browser keep to them.

Anybody may have the files: they hold no data. What the page shows it asks the API for, with the caller's rights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from importlib.resources import files

from aiohttp import web

TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
)
HEADERS = {
    "Cache-Control": "no-cache",  # kept, but asked for again: an upgrade shows at once
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def routes() -> list[web.RouteDef]:
    """``/`` and every file as ``/web/NAME``; no other path leads to a file."""
    folder = files("anycastlb.serving") / "web"
    contents = {item.name: item.read_bytes() for item in folder.iterdir() if _suffix(item.name) in TYPES}
    pages = [web.get(f"/web/{name}", _serve(name, content)) for name, content in sorted(contents.items())]
    return [web.get("/", _serve("index.html", contents["index.html"])), *pages]


def _suffix(name: str) -> str:
    return name[name.rfind(".") :]


def _serve(name: str, content: bytes) -> Callable[[web.Request], Awaitable[web.Response]]:
    kind, tag = TYPES[_suffix(name)], hashlib.sha256(content).hexdigest()[:32]
    headers = {**HEADERS, "ETag": f'"{tag}"'}

    async def serve(request: web.Request) -> web.Response:
        kept = request.if_none_match or ()
        if any(etag.value in (tag, "*") for etag in kept):
            return web.Response(status=304, headers=headers)
        return web.Response(body=content, content_type=kind, charset="utf-8", headers=headers)

    return serve
