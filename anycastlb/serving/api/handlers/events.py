"""The journal as server-sent events that go on: ``GET /v1/events`` with ``Accept: text/event-stream``.

Journal entries come as plain messages with their ``id``; a ``status`` event (``{"cycle": N}``) says that the snapshot
changed, at most once a second; ``gap`` (``{"after": A, "next": B}``) that entries between were no longer kept; comments
keep idle connections open. A stream resumes after the id in ``Last-Event-ID`` or ``?after=``.

A client has no queue of its own: it has a place in the journal, whose rings are bounded. One that does not read for
``TIMEOUT`` seconds is dropped, and can resume. Those who have come to the same place are sent the same text, which is
made once. Nobody is woken while nothing happens, and many are woken a few at a time, so that other work comes between.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from anycastlb.adapters.system.journal import Journal
from anycastlb.core.events import Event
from anycastlb.core.identity import same_objects
from anycastlb.serving.api.http import limits
from anycastlb.serving.api.http.answers import HEADERS
from anycastlb.serving.api.http.context import Context
from anycastlb.serving.api.http.errors import ApiError
from anycastlb.serving.views.events import event_views

TYPE = "text/event-stream"
TICK = 0.5
"""Seconds between looks at the snapshot, and at whether the readers are still connected, for all of them together."""
SPACING = 1.0
"""Seconds between two ``status`` events at least."""
QUIET = 15.0
"""Seconds of silence after which a comment is sent."""
TIMEOUT = 10.0
"""Seconds that a client may leave its connection full."""
PLACES = 64
"""Places for which the text is kept; readers who keep up are all at one."""
BATCH = 100
"""Entries in one write."""
AT_ONCE = 50
"""Readers who are woken in one turn of the event loop: about 5 ms of writing."""


@dataclass(slots=True, eq=False)
class Reader:
    """One open stream."""

    request: web.Request
    news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def gone(self) -> bool:
        transport = self.request.transport
        return transport is None or transport.is_closing()


@dataclass(slots=True, eq=False)
class Streams:
    """What all streams share. ``closing``: the server is going, streams must end."""

    at: Context
    closing: bool = False
    status: bytes = b""
    """The latest ``status`` event."""
    texts: dict[int, tuple[bytes, int]] = field(default_factory=dict)
    """By a place in the journal: the next entries as text, and the place after them."""
    last: int = -1
    """The last entry of the journal that is in ``texts``."""
    _readers: dict[Reader, None] = field(default_factory=dict)
    _waking: list[Reader] = field(default_factory=list)
    """Those who are still to be woken for the last news."""
    _shown: tuple[object, ...] = ()
    """What the latest ``status`` event is about."""
    _next_status: float = 0.0
    _tick: asyncio.TimerHandle | None = None

    def join(self, request: web.Request) -> Reader:
        reader = Reader(request)
        self._readers[reader] = None
        if self._tick is None:
            self._look()
        return reader

    def leave(self, reader: Reader) -> None:
        del self._readers[reader]
        if not self._readers and self._tick is not None:
            self._tick.cancel()
            self._tick = None

    def stir(self, event: Event | None = None) -> None:
        """There is news; wake everybody."""
        if not self._waking and self._readers:
            asyncio.get_running_loop().call_soon(self._wake)
        self._waking = list(self._readers)

    def _wake(self) -> None:
        for reader in self._waking[:AT_ONCE]:
            reader.news.set()
        del self._waking[:AT_ONCE]
        if self._waking:
            asyncio.get_running_loop().call_soon(self._wake)

    def _look(self) -> None:
        """See what nobody tells, for as long as there are readers: a new snapshot, and connections that are gone."""
        loop, snapshot = asyncio.get_running_loop(), self.at.snapshot()
        shown = snapshot.cycle, snapshot.inputs.cluster
        if loop.time() >= self._next_status and not same_objects(shown, self._shown):
            self._shown, self._next_status = shown, loop.time() + SPACING
            self.status = _event("status", {"cycle": snapshot.cycle})
            self.stir()
        for reader in self._readers:
            if reader.gone:
                reader.news.set()
        self._tick = loop.call_later(TICK, self._look)

    async def close(self, _: web.Application) -> None:
        self.closing = True
        self.stir()

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
    streams = request.app[STREAMS]
    resumed = request.headers.get("Last-Event-ID", "")
    after = place(resumed, "Last-Event-ID") if resumed else place(request.query.get("after", "0"), "after")
    response = web.StreamResponse(headers={**HEADERS, "Content-Type": f"{TYPE}; charset=utf-8"})
    reader = streams.join(request)
    try:
        await response.prepare(request)
        await _send(reader, response, b"retry: 1000\n\n")
        await _pump(reader, response, streams, after)
    except (ConnectionError, TimeoutError):
        if request.transport is not None:
            request.transport.abort()  # what it has not read it can ask for again
    finally:
        streams.leave(reader)
    return response


async def _pump(reader: Reader, response: web.StreamResponse, streams: Streams, after: int) -> None:
    loop, journal = asyncio.get_running_loop(), streams.at.journal
    status, spoke = b"", loop.time()
    if after > journal.last:
        after = 0  # the id is of a life before this one
    while not streams.closing and not reader.gone:
        reader.news.clear()
        text, after = streams.entries(journal, after)
        if streams.status is not status:
            status = streams.status
            text += status
        if not text and loop.time() - spoke >= QUIET:
            text = b": still here\n\n"
        if text:
            spoke = loop.time()
            await _send(reader, response, text)
        if after >= journal.last:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(spoke + QUIET):
                    await reader.news.wait()


async def _send(reader: Reader, response: web.StreamResponse, text: bytes) -> None:
    if reader.gone:
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
