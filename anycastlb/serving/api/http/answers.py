"""Large answers: made one at a time outside of the event loop, and shared by all who ask for the same meanwhile.

A picture of ten thousand backends takes a worker thread tens of milliseconds and is ten megabytes. So it is made at
most once in ``SHARED`` seconds while nothing has changed, compressed once, and sent to nobody who has it already.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from hashlib import blake2b
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

from anycastlb.core.identity import same_objects
from anycastlb.core.model import Inputs, Snapshot
from anycastlb.serving.pieces import Pieces, Text, gzipped, length, pieces
from anycastlb.serving.views.status_text import StatusTexts

SHARED = 1.0
"""Seconds for which an answer is given to others, if nothing but the time has changed."""
LARGE = 16 * 1024
"""Bytes from which an answer is compressed for those who take it so, unless they sit at the same machine's socket."""
CHUNK = 64 * 1024
"""Bytes that are sent in one go."""
LEVEL = 1
"""Of the compression: the next one takes twice as long, and saves a tenth."""
UNASKED = 60.0
"""Seconds without a question after which the texts of the last answers are forgotten, which are as large as they."""
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


@dataclass(frozen=True, slots=True, eq=False)
class Document:
    """One answer. ``tag`` is equal for as long as it says the same, but for ages."""

    body: Pieces
    tag: str


@dataclass(frozen=True, slots=True, eq=False)
class _Shared:
    document: Document
    made_from: tuple[object, ...]
    at: float


class Answers:
    """The large answers of one node."""

    def __init__(self) -> None:
        self.texts = StatusTexts()
        """For what ``get`` makes, which is one thing at a time."""
        self._turn = asyncio.Lock()
        self._shared: dict[str, _Shared] = {}
        self._packed: tuple[Text, Pieces] = (), ()
        """The body that was compressed last, and what became of it."""
        self._rest: asyncio.TimerHandle | None = None

    async def get(self, name: str, made_from: tuple[object, ...], now: float, make: Callable[[], Document]) -> Document:
        """The answer of that name, made from these values: one that is known, or a new one. ``now``: of the node."""
        async with self._turn:
            known = self._shared.get(name)
            if known is not None and 0 <= now - known.at < SHARED and same_objects(known.made_from, made_from):
                return known.document
            shared = _Shared(await asyncio.to_thread(make), made_from, now)
        self._shared[name] = shared
        loop = asyncio.get_running_loop()
        loop.call_later(SHARED, self._forget, name, shared)
        if self._rest is not None:
            self._rest.cancel()
        self._rest = loop.call_later(UNASKED, self._forget_texts)
        return shared.document

    async def send(self, request: web.Request, document: Document, status: int = 200) -> web.Response:
        """The answer to a request, or that the one it has is still right."""
        headers = {**HEADERS, "ETag": f'W/"{document.tag}"', "Vary": "Accept-Encoding"}
        if any(tag.value in (document.tag, "*") for tag in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        body, coding = await self.pack(request, document.body)
        return written(body, status, {**headers, **coding})

    async def pack(self, request: web.Request, body: Text) -> tuple[Text, Mapping[str, str]]:
        """The body as the peer is to get it, and the headers that say so."""
        if _is_small(body) or not packs(request):
            return body, {}
        async with self._turn:
            if self._packed[0] is not body:
                self._packed = body, await asyncio.to_thread(gzipped, body, LEVEL)
            return self._packed[1], {"Content-Encoding": "gzip"}

    def _forget(self, name: str, shared: _Shared) -> None:
        if self._shared.get(name) is shared:
            del self._shared[name]
        if self._packed[0] is shared.document.body:
            self._packed = (), ()

    def _forget_texts(self) -> None:
        self.texts = StatusTexts()


class Body(Payload):
    """A body that is sent piece by piece: as one, it would be copied while nothing else runs."""

    _autoclose = True

    def __init__(self, body: Text) -> None:
        super().__init__(body)
        self._size = length(body)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return b"".join(self._value).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        for piece in self._value:
            for begin in range(0, len(piece), CHUNK):
                await writer.write(memoryview(piece)[begin : begin + CHUNK])
                await asyncio.sleep(0)


def _is_small(body: Text) -> bool:
    size = length(body)
    return size is not None and size < LARGE


def written(
    body: Text, status: int = 200, headers: Mapping[str, str] = HEADERS, content_type: str = "application/json"
) -> web.Response:
    """An answer with this body."""
    content = b"".join(body) if _is_small(body) else Body(body)
    return web.Response(body=content, status=status, headers={"Content-Type": content_type, **headers})


def packs(request: web.Request) -> bool:
    """Does the peer take an answer compressed, and is it worth it? Not through the unix socket."""
    transport = request.transport
    if transport is None or not isinstance(transport.get_extra_info("peername"), tuple):
        return False
    codings = (coding.replace(" ", "").split(";") for coding in request.headers.get("Accept-Encoding", "").split(","))
    return any(coding[0].lower() == "gzip" and coding[1:] not in (["q=0"], ["q=0.0"]) for coding in codings)


def parts_of(snapshot: Snapshot) -> tuple[object, ...]:
    """The parts of a snapshot; two snapshots of the same parts say the same, whenever each was put together."""
    own = (getattr(snapshot, field.name) for field in fields(Snapshot) if field.name != "inputs")
    return (*own, *(getattr(snapshot.inputs, field.name) for field in fields(Inputs)))


def encoded(view: Any) -> Pieces:
    """The JSON of a view. It is written item by item, since the encoder lets nobody else run meanwhile."""
    return pieces(text.encode() for text in _written(view, depth=2))


def _written(view: Any, depth: int) -> Iterator[str]:
    if not depth or not view or not isinstance(view, (dict, list)):
        yield json.dumps(view)
        return
    named = isinstance(view, dict)
    yield "{" if named else "["
    for place, item in enumerate(view):
        yield ", " if place else ""
        if named:
            yield f"{json.dumps(item)}: "
        yield from _written(view[item] if named else item, depth - 1)
    yield "}" if named else "]"


def document(view: Any) -> Document:
    """A view as an answer."""
    body = encoded(view)
    digest = blake2b(digest_size=12)
    for piece in body:
        digest.update(piece)
    return Document(body, digest.hexdigest())
