"""Requests that never pause, over every kind of connection, each accounted for."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from tests.support.http_clients import Http2Client, WebSocket
from tests.support.origin import Client, Reply
from tests.support.waiting import PATIENCE

Kind = Literal["kept", "new", "h2", "websocket"]
PLAIN: Mapping[Kind, int] = {"kept": 4, "new": 2}
EVERY: Mapping[Kind, int] = {"kept": 2, "new": 1, "h2": 1, "websocket": 1}
"""How many clients of each kind: HTTP/1.1 on connections that are kept, and on a new one for each request; HTTP/2 by
TLS; websockets, whose connection ends with HAProxy's worker at the earliest."""
BETWEEN = 4
"""Requests, at least, of each client between two changes."""
HOST = "shop.example"


@dataclass
class Load:
    """``secure``: the port for HTTP/2."""

    port: int
    secure: int = 0
    path: str = "/"
    pause: float = 0.0
    """Seconds of each client between two requests."""
    answered: dict[tuple[Kind, int], int] = field(default_factory=dict)
    repeated: int = 0
    """Requests by HTTP/2 that the server said it did not look at."""
    lost: list[str] = field(default_factory=list)
    running: list[asyncio.Future[None]] = field(default_factory=list)
    check: Callable[[str, str], str] = lambda head, body: ""
    """What is wrong with the head and the body of an answer."""

    @property
    def totals(self) -> Counter[Kind]:
        totals: Counter[Kind] = Counter()
        for (kind, _), count in self.answered.items():
            totals[kind] += count
        return totals

    async def client(self, kind: Kind, number: int) -> None:
        self.answered[kind, number] = 0
        asker: Asker | None = None
        while True:
            asker = asker or ASKERS[kind](self)
            try:
                wrong = await asker.ask()
            except (OSError, EOFError) as exc:
                wrong = repr(exc)
            except asyncio.CancelledError:
                asker.close()
                raise
            self.answered[kind, number] += 1
            if wrong:
                self.lost.append(f"{kind} {number}: {wrong}")
                asker.close()
                asker = None
            await asyncio.sleep(self.pause)

    def wrong(self, reply: Reply) -> str:
        return self.check(reply.head, reply.body) if reply.status == 200 else f"status {reply.status}"

    async def goes_on(self) -> None:
        """Until every client has got some more answers."""
        more = {client: count + BETWEEN for client, count in self.answered.items()}
        async with asyncio.timeout(PATIENCE):
            while any(self.answered[client] < count for client, count in more.items()) and not self.lost:
                assert not any(client.done() for client in self.running), self.running
                await asyncio.sleep(0.001)


class Asker(Protocol):
    """One client. ``ask`` says what is wrong with an answer; it raises OSError or EOFError if there is none."""

    async def ask(self) -> str: ...

    def close(self) -> None: ...


class Kept:
    def __init__(self, load: Load) -> None:
        self._load, self._client = load, Client(load.port)

    async def ask(self) -> str:
        return self._load.wrong(await self._client.get(self._load.path, HOST))

    def close(self) -> None:
        self._client.close()


class New(Kept):
    async def ask(self) -> str:
        reply = await self._client.get(self._load.path, HOST, "GET", "Connection: close")
        self._client.close()
        return self._load.wrong(reply)


class Http2:
    def __init__(self, load: Load) -> None:
        self._load, self._client = load, Http2Client(load.secure, HOST)

    async def ask(self) -> str:
        repeated = self._client.repeated
        status, _ = await self._client.get(self._load.path, HOST)
        self._load.repeated += self._client.repeated - repeated
        return "" if status == 200 else f"status {status}"

    def close(self) -> None:
        self._client.close()


class Echoing:
    def __init__(self, load: Load) -> None:
        self._load, self._socket, self._sent = load, WebSocket(load.port), 0

    async def ask(self) -> str:
        self._sent += 1
        text = f"{self._sent:08d}".encode()
        echoed = await self._socket.echo(text, self._load.path, HOST)
        return "" if echoed == text else f"{echoed!r} for {text!r}"

    def close(self) -> None:
        self._socket.close()


ASKERS: Mapping[Kind, Callable[[Load], Asker]] = {"kept": Kept, "new": New, "h2": Http2, "websocket": Echoing}


@contextlib.asynccontextmanager
async def loaded(load: Load, clients: Mapping[Kind, int] = PLAIN) -> AsyncIterator[Load]:
    """Clients ask while the block lasts; none of their requests may be lost."""
    asking = [load.client(kind, number) for kind, count in clients.items() for number in range(count)]
    load.running = [asyncio.ensure_future(client) for client in asking]  # noqa: TID251
    await asyncio.sleep(0)
    await load.goes_on()
    yield load
    await load.goes_on()
    for one in load.running:
        one.cancel()
    await asyncio.gather(*load.running, return_exceptions=True)
    assert not load.lost, f"{len(load.lost)} of {load.totals.total()}: {load.lost[:3]}"
