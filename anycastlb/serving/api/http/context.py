"""What every handler of the API may use, as the application hands it over; and the caller of a request.

A handler reads the latest ``Snapshot`` and the journal, and writes to the catalog's ``Store``. It never touches a
driver.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web

from anycastlb.adapters.sources import Store
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.fields import Document
from anycastlb.core.http.explain import MapQuestion
from anycastlb.core.model import Snapshot
from anycastlb.serving.api.http.answers import HEADERS, Answers, document, encoded, parts_of, written
from anycastlb.serving.history import History
from anycastlb.serving.pieces import Text
from anycastlb.settings import Settings

Scrape = Callable[[str], Awaitable[tuple[Text, str]]]
"""The value of an Accept header -> the metrics as text, and their content type."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request, and what they may do."""

    name: str
    """In words, for events: ``uid 0 (root) through the socket``, ``token deploy``, ``127.0.0.1``."""
    rights: Literal["none", "read", "write"]


@dataclass(frozen=True, slots=True)
class Context:
    """What the handlers share.

    ``confirm`` lets a held catalog through and returns whether there was one. ``alive_at`` is when the reconciler last
    gave a sign of life; ``bound`` seconds later the node counts as stuck.
    """

    snapshot: Callable[[], Snapshot]
    journal: Journal
    confirm: Callable[[], bool]
    scrape: Scrape
    settings: Settings
    store: Store
    check_types: Mapping[str, type[Document]]
    alive_at: Callable[[], float]
    source: str = ""
    """In words, where the catalog comes from."""
    bound: float = 30.0
    clock: Callable[[], float] = time.monotonic
    statistics: Callable[[], Awaitable[Mapping[Any, Any]]] | None = None
    """The kernel's own counters by service and destination key (``metrics.Statistics``); raises ``DriverError``."""
    history: History = field(default_factory=History)
    ask_haproxy: Callable[[Sequence[MapQuestion]], Awaitable[Mapping[str, bool]]] | None = None
    """What HAProxy finds in its maps, by the keys of the questions; nothing if it does not answer. None: it is off."""
    certificate_ends: Callable[[], Mapping[str, float]] | None = None
    """When each certificate of this node ends, by its name, in seconds of the wall clock. None: it serves none."""
    answers: Answers = field(default_factory=Answers)
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """The writes of this node come one after the other, so that they do not make one another decide anew. What keeps
    them right is the store."""


CONTEXT = web.AppKey("context", Context)
CALLER = web.RequestKey("caller", Caller)


def context(request: web.Request) -> Context:
    return request.app[CONTEXT]


def caller(request: web.Request) -> Caller:
    """Who sent the request; set by the guard before any handler runs."""
    return request[CALLER]


async def built(view: Callable[[], Any], status: int = 200, headers: Mapping[str, str] = HEADERS) -> web.Response:
    """The answer made in a worker thread: a view of thousands of backends must not hold up the event loop."""
    body = await asyncio.to_thread(lambda: encoded(view()))
    return written(body, status, {**HEADERS, **headers})


async def shared(request: web.Request, view: Callable[[], Any], *made_from: object) -> web.Response:
    """The same for what is read: made from these objects and the snapshot, and shared by all who ask (``answers``)."""
    at = context(request)
    parts = (*parts_of(at.snapshot()), *made_from)
    picture = await at.answers.get(request.path_qs, parts, at.clock(), lambda: document(view()))
    return await at.answers.send(request, picture)


def answer(view: Any, status: int = 200, headers: Mapping[str, str] = HEADERS) -> web.Response:
    return web.json_response(view, status=status, headers={**HEADERS, **headers})
