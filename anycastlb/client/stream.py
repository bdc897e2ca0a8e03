"""Follow the events of a node, also over its restarts: by server-sent events, else by asking again and again.

No event comes twice, and no event that the node still keeps is left out.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

from anycastlb.client.errors import NoAnswer, Strange, Unavailable, Unreachable
from anycastlb.client.shapes import Event
from anycastlb.client.transport import Transport
from anycastlb.core.backoff import Backoff

PATH = "/v1/events"
INTERVAL = 0.5
"""Seconds between two requests to a node that has no stream."""
MAX_SILENCE = 60.0
"""Seconds without a byte, not even a comment, after which a stream is opened again."""
BACKOFF = Backoff(first=INTERVAL, longest=5.0)
"""The wait between two attempts to reach a node that does not answer."""


class Reader:
    """Turns the lines of a ``text/event-stream`` into the data of its events."""

    def __init__(self) -> None:
        self._data: list[str] = []

    def feed(self, line: str) -> str | None:
        """Take one line, without its line end. Returns the data of the event that this line ends, if it ends one."""
        if not line:
            data, self._data = self._data, []
            return "\n".join(data) if data else None
        name, _, value = line.partition(":")
        if name == "data":
            self._data.append(value.removeprefix(" "))
        return None


async def once(transport: Transport, after: int) -> tuple[list[Event], int]:
    """The events above ``after`` that the node keeps, and the last id that it has given."""
    view = (await transport.ask("GET", PATH, {"after": after})).body
    try:
        return list(view["events"]), int(view["last"])
    except (KeyError, TypeError, ValueError):
        raise Strange(f"{transport.place} does not answer as anycastlb does: check --api") from None


async def follow(transport: Transport, after: int, lost: Callable[[Exception], None] | None) -> AsyncIterator[Event]:
    """Every event above ``after``, for ever.

    A request that fails is repeated until it succeeds, and ``lost`` is called with the error. Without ``lost``, the
    first request must succeed.
    """
    begun, failures = lost is not None, 0
    while True:
        try:
            events, last = await once(transport, after)
            if last < after:  # the node was restarted, and counts from 1 again
                after = 0
                continue
            begun, failures = True, 0
            for event in events:
                after = max(after, event["id"])
                yield event
            streamed = False
            async for event in _streamed(transport, after):
                streamed = True
                if event["id"] > after:
                    after = event["id"]
                    yield event
            if not streamed:
                await asyncio.sleep(INTERVAL)
        except (Unreachable, NoAnswer, Unavailable) as exc:
            if not begun:
                raise
            if lost is not None:
                lost(exc)
            await asyncio.sleep(BACKOFF.delay(failures))
            failures += 1


async def _streamed(transport: Transport, after: int) -> AsyncIterator[Event]:
    """The events of the stream until it ends; none if the node has no stream."""
    headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
    reader = Reader()
    try:
        async with transport.stream(f"{PATH}?after={after}", headers, MAX_SILENCE) as body:
            async for line in body:
                data = reader.feed(line.decode(errors="replace").rstrip("\r\n"))
                if data is not None and (event := _event(data)) is not None:
                    yield event
    except (Strange, NoAnswer):  # the node has no stream, or it fell silent
        return


def _event(data: str) -> Event | None:
    try:
        event: Any = json.loads(data)
    except ValueError:
        return None
    return cast(Event, event) if isinstance(event, dict) and isinstance(event.get("id"), int) else None
