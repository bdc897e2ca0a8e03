"""A real HTTP server that keeps what it is asked, and answers what the test lays before it."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web


@dataclass
class Request:
    method: str
    path: str
    """As it came over the wire, with its query."""
    body: Any
    headers: dict[str, str]

    @property
    def said(self) -> tuple[str, str, Any]:
        return self.method, self.path, self.body


@dataclass
class Recorder:
    answers: dict[str, tuple[int, Any]] = field(default_factory=dict)
    """``GET /v1/status`` -> status and body; without one a write is answered with its own body as the document."""
    etag: str = '"1"'
    asked: list[Request] = field(default_factory=list)
    url: str = ""

    @property
    def written(self) -> list[tuple[str, str, Any]]:
        """All but what was only read."""
        return [request.said for request in self.asked if request.method != "GET"]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        text = await request.text()
        body = json.loads(text) if text else None
        self.asked.append(Request(request.method, request.raw_path, body, dict(request.headers)))
        name = f"{request.method} {request.raw_path}"
        status, found = self.answers.get(name) or self.answers.get(name.partition("?")[0]) or (None, None)
        if status is None:
            missing = {"error": {"what": f"there is no {name}", "where": "", "expected": "", "mend": "ask for another"}}
            if request.method == "GET":
                return web.json_response(missing, status=404)
            status, found = 200, {"changed": True, "document": body}
        if isinstance(found, bytes):
            return web.Response(body=found, status=status, content_type="text/event-stream")
        return web.json_response(found, status=status, headers={"ETag": self.etag})


@asynccontextmanager
async def recording(
    answers: dict[str, tuple[int, Any]] | None = None, socket: Path | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Recorder]:
    recorder = Recorder(dict(answers or {}))
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", recorder.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        if socket is not None:
            await web.UnixSite(runner, str(socket)).start()
            recorder.url = f"unix://{socket}"
        else:
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
            recorder.url = f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
        yield recorder
    finally:
        await runner.cleanup()


def error(what: str, **more: Any) -> dict[str, Any]:
    """The body of a refusal."""
    told = {"where": "", "expected": "", "mend": ""}
    problems = more.pop("problems", None)
    view: dict[str, Any] = {"error": {"what": what, **told, **more}}
    return view if problems is None else {**view, "problems": problems}
