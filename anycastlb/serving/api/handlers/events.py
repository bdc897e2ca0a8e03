"""The journal as server-sent events that go on: ``GET /v1/events`` with ``Accept: text/event-stream``.

Journal entries come as plain messages with their ``id``; a ``status`` event (``{"cycle": N}``) says that the snapshot
changed, at most once a second; ``gap`` (``{"after": A, "next": B}``) that entries between were no longer kept; comments
keep idle connections open. A stream resumes after the id in ``Last-Event-ID`` or ``?after=``.

A client has no queue of its own: it has a place in the journal, whose rings are bounded. One that does not read for
``TIMEOUT`` seconds is dropped, and can resume. Those who have come to the same place are sent the same text, which is
made once.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from anycastlb.adapters.system.journal import Journal
from anycastlb.serving.api.http import limits
from anycastlb.serving.api.http.answers import HEADERS
from anycastlb.serving.api.http.context import Context, context
from anycastlb.serving.api.http.errors import ApiError
from anycastlb.serving.views.events import event_views

TYPE = "text/event-stream"
TICK = 0.5
"""Seconds between looks at the snapshot, and at whether the reader is still connected; the journal wakes by itself."""
QUIET = 15.0
"""Seconds of silence after which a comment is sent."""
TIMEOUT = 10.0
"""Seconds that a client may leave its connection full."""
PLACES = 64
"""Places for which the text is kept; readers who keep up are all at one."""
BATCH = 100
"""Entries in one write."""


@dataclass(slots=True)
class Streams:
    """What all streams share. ``closing``: the server is going, streams must end."""

    closing: bool = False
    texts: dict[int, tuple[bytes, int]] = field(default_factory=dict)
    """By a place in the journal: the next entries as text, and the place after them."""
    last: int = -1
    """The last entry of the journal that is in ``texts``."""

    async def close(self, _: web.Application) -> None:
        self.closing = True

    def entries(self, journal: Journal, after: int) -> tuple[bytes, int]:
        """The next entries as text, and the place after them."""
        if journal.last <= after:
            return b"", after
        if self.last != journal.last or len(self.texts) >= PLACES:
            self.texts.clear()
            self.last = journal.last
        known = self.texts.get(after)
        if known is None:
            known = self.texts[after] = _entries(journal, after)
        return known


STREAMS = web.AppKey("streams", Streams)


def asked(request: web.Request) -> bool:
    """Does this request want a stream rather than a list?"""
    return limits.follows(request.method, request.rel_url.path_safe, request.headers.get("Accept", ""))


def place(text: str, where: str) -> int:
    """The id of a journal entry. Raises ``ApiError``."""
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise ApiError(400, f"{where} is not an event's id", where, "a whole number", "take the `last` of an answer")
    return int(text)


async def follow(request: web.Request) -> web.StreamResponse:
    """Send every event after the id asked for, then each new one, until the client or the server closes the stream."""
    at, streams = context(request), request.app[STREAMS]
    resumed = request.headers.get("Last-Event-ID", "")
    after = place(resumed, "Last-Event-ID") if resumed else place(request.query.get("after", "0"), "after")
    response = web.StreamResponse(headers={**HEADERS, "Content-Type": f"{TYPE}; charset=utf-8"})
    try:
        await response.prepare(request)
        await _send(request, response, b"retry: 1000\n\n")
        await _pump(request, response, at, streams, after)
    except (ConnectionError, TimeoutError):
        if request.transport is not None:
            request.transport.abort()  # what it has not read it can ask for again
    return response


async def _pump(request: web.Request, response: web.StreamResponse, at: Context, streams: Streams, after: int) -> None:
    loop = asyncio.get_running_loop()
    cycle, sent_at, spoke = -1, -1.0, loop.time()
    if after > at.journal.last:
        after = 0  # the id is of a life before this one
    while not streams.closing and not _gone(request):
        text, after = streams.entries(at.journal, after)
        now = loop.time()
        if at.snapshot().cycle != cycle and now - sent_at >= 1.0:
            cycle, sent_at = at.snapshot().cycle, now
            text += _event("status", {"cycle": cycle})
        if not text and now - spoke >= QUIET:
            text = b": still here\n\n"
        if text:
            spoke = now
            await _send(request, response, text)
        if after >= at.journal.last:
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK):
                    await at.journal.changed(after)


def _gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


async def _send(request: web.Request, response: web.StreamResponse, text: bytes) -> None:
    if _gone(request):
        raise ConnectionResetError
    async with asyncio.timeout(TIMEOUT):
        await response.write(text)


def _entries(journal: Journal, after: int) -> tuple[bytes, int]:
    records = journal.records(after)[:BATCH]
    if not records:
        return b"", journal.last
    missed = records[0].id > after + 1 and journal.missed(after)
    gap = _event("gap", {"after": after, "next": records[0].id}) if missed else b""
    items = event_views(records)["events"]
    texts = (f"id: {item['id']}\ndata: {json.dumps(item)}\n\n".encode() for item in items)
    return gap + b"".join(texts), records[-1].id


def _event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
