"""As much of Consul's key-value store as the catalog's source reads: ``python -m tests.bench.kv SERVICES EACH KEYS``.

It runs in a process of its own, so that its work is not counted as ours. It prints its port. ``KEYS`` is ``inline`` for
backends in the service's document, or ``keys`` for one key a backend. A PUT replaces a value and wakes whoever waits.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

PREFIX = "anycastlb/"
CHECK = {"type": "http", "path": "/health", "interval": "10s"}


def documents(services: int, each: int, shape: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The keys below the prefix, in Consul's order of age."""
    for service in range(services):
        numbers = range(service * each, (service + 1) * each)
        backends = {f"b{n}": {"address": address(n), "weight": 100} for n in numbers}
        vip = f"192.{service // 62500}.{service // 250 % 250}.{service % 250 + 1}"
        document = {"vip": vip, "port": 80, "forward": "dr", "check": CHECK}
        key = f"services/s{service}"
        yield key, document if shape == "keys" else {**document, "backends": backends}
        if shape == "keys":
            yield from ((f"{key}/backends/{name}", backend) for name, backend in backends.items())


def address(backend: int) -> str:
    return f"127.{1 + backend // 62500}.{backend // 250 % 250}.{backend % 250 + 1}"


class Store:
    def __init__(self) -> None:
        self.index = 100
        self._items: dict[str, str] = {}
        self._ages: dict[str, int] = {}
        self._changed = asyncio.Event()
        self._never = asyncio.Event()

    def put(self, key: str, value: bytes) -> None:
        self.index += 1
        item = {
            "LockIndex": 0,
            "Key": PREFIX + key,
            "Flags": 0,
            "Value": base64.b64encode(value).decode(),
            "CreateIndex": self._ages.setdefault(key, self.index),
            "ModifyIndex": self.index,
        }
        self._items[key] = json.dumps(item, separators=(",", ":"))
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def answer(self, path: str, query: dict[str, str]) -> bytes:
        below = path.removeprefix("/v1/kv/" + PREFIX)
        if "index" in query and (not below.startswith("services") or int(query["index"]) >= self.index):
            await (self._changed.wait() if below.startswith("services") else self._never.wait())
        if "keys" in query:
            body = json.dumps(sorted({self._shortened(key, below) for key in self._items if key.startswith(below)}))
        else:
            body = "[" + ",".join(self._items[key] for key in sorted(self._items)) + "]"
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nX-Consul-Index: {self.index}\r\n"
        return f"{head}Content-Type: application/json\r\n\r\n{body}".encode()

    def _shortened(self, key: str, below: str) -> str:
        """A key up to the next slash below what is listed, as with ``separator=/``."""
        name, slash, _ = key.removeprefix(below).partition("/")
        return PREFIX + below + name + slash

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                method, target, _ = head.split("\r\n")[0].split()
                path = urlsplit(target).path
                if method == "PUT":
                    length = int(head.lower().split("content-length:")[1].split()[0])
                    self.put(path.removeprefix("/v1/kv/" + PREFIX), await reader.readexactly(length))
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue")
                else:
                    query = {name: values[0] for name, values in parse_qs(urlsplit(target).query, True).items()}
                    writer.write(await self.answer(path, query))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


async def main(services: int, each: int, shape: str) -> None:
    store = Store()
    for key, document in documents(services, each, shape):
        store.put(key, json.dumps(document).encode())
    server = await asyncio.start_server(store.serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
