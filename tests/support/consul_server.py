"""A Consul that answers what the test's script says, and so misbehaves on demand."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

PATIENCE = 180.0


KV = "/v1/kv/anycastlb/"


class Request:
    def __init__(self, head: str) -> None:
        first, *rest = head.split("\r\n")
        self.method, target, _ = first.split()
        self.path = urlsplit(target).path
        self.query = {
            name: value[0] for name, value in parse_qs(urlsplit(target).query, keep_blank_values=True).items()
        }
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in rest if line)}

    @property
    def waits(self) -> bool:
        return "index" in self.query

    @property
    def names(self) -> bool:
        """Does it wait for a part of the tree to be gone?"""
        return self.waits and self.path == KV


def answer(body: str | bytes, index: int | str | None = 1, status: int = 200, **headers: str) -> bytes:
    raw = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(raw)}", "Content-Type: application/json"]
    lines += [f"X-Consul-Index: {index}"] if index is not None else []
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + raw


class Server:
    """Answers each request with what ``script`` makes of it: bytes, closing after ``HANG UP``; None never answers."""

    def __init__(self) -> None:
        self.script: Callable[[Request], bytes | None] = lambda request: None if request.waits else keys()
        self.requests: list[Request] = []
        self.connections = 0
        self.address = ""
        self._over = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                request = Request((await reader.readuntil(b"\r\n\r\n")).decode())
                self.requests.append(request)
                said = self.script(request)
                if said is None:
                    await self._over.wait()
                    break
                writer.write(said)
                await writer.drain()
                if said.endswith(b"HANG UP"):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def close(self) -> None:
        self._over.set()


def keys(index: int | str = 1, **values: str | None) -> bytes:
    """A recursive read: ``services__web="{}"`` is the key ``services/web``."""
    items = [
        {
            "Key": "anycastlb/" + name.replace("__", "/"),
            "Value": None if value is None else base64.b64encode(value.encode()).decode(),
            "CreateIndex": 1,
            "ModifyIndex": 1,
            "LockIndex": 0,
            "Flags": 0,
        }
        for name, value in values.items()
    ]
    return answer(json.dumps(items), index) if items else answer("", index, 404)


@asynccontextmanager
async def listening() -> AsyncIterator[Server]:
    """A server at ``address``, until the block ends."""
    server = Server()
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.address = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    yield server
    server.close()
    listener.close()
