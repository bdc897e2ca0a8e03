"""BGP routers that take everything: ``python -m tests.bench.routers COUNT PORT``, on 127.0.1.1 and the next addresses.

They say what they see on stdout, one JSON object a line with a time of the machine's monotonic clock: how many
prefixes each of them has, once in a while, and every single prefix that is withdrawn. A line ``flap N`` on stdin ends
the session of router N, which ExaBGP then opens again.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
import time
from ipaddress import ip_network

OPEN, UPDATE, KEEPALIVE = 1, 2, 4
AS = 65000


class Router:
    """One passive speaker that holds the prefixes it was sent."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.prefixes: set[bytes] = set()
        self.writer: asyncio.StreamWriter | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.prefixes, self.writer = set(), writer
        alive = asyncio.get_running_loop().create_task(self._live(writer))
        try:
            while True:
                head = await reader.readexactly(19)
                length, kind = struct.unpack("!HB", head[16:])
                body = await reader.readexactly(length - 19)
                if kind == OPEN:
                    writer.write(message(OPEN, self._open()) + message(KEEPALIVE))
                elif kind == UPDATE:
                    self._update(body)
        except (asyncio.IncompleteReadError, OSError):
            return
        finally:
            alive.cancel()
            writer.close()

    async def _live(self, writer: asyncio.StreamWriter) -> None:
        while True:
            await asyncio.sleep(10)
            writer.write(message(KEEPALIVE))

    def _open(self) -> bytes:
        capabilities = bytes([1, 4, 0, 1, 0, 1, 65, 4]) + struct.pack("!I", AS)
        options = bytes([2, len(capabilities)]) + capabilities
        return struct.pack("!BHH4sB", 4, AS, 90, bytes([127, 0, 1, self.number]), len(options)) + options

    def _update(self, body: bytes) -> None:
        (size,) = struct.unpack_from("!H", body)
        (attributes,) = struct.unpack_from("!H", body, 2 + size)
        gone, new = body[2 : 2 + size], body[4 + size + attributes :]
        for prefix in cut(gone):
            self.prefixes.discard(prefix)
            tell({"router": self.number, "withdrawn": str(ip_network((prefix[1:].ljust(4, b"\0"), prefix[0])))})
        self.prefixes.update(cut(new))


def cut(packed: bytes) -> list[bytes]:
    """Prefixes as BGP packs them: a length in bits, and as many bytes as that needs."""
    prefixes, at = [], 0
    while at < len(packed):
        end = at + 1 + (packed[at] + 7) // 8
        prefixes.append(packed[at:end])
        at = end
    return prefixes


def message(kind: int, body: bytes = b"") -> bytes:
    return b"\xff" * 16 + struct.pack("!HB", 19 + len(body), kind) + body


def tell(what: dict[str, object]) -> None:
    print(json.dumps({"at": time.monotonic(), **what}), flush=True)


async def main(count: int, port: int) -> None:
    routers = [Router(number) for number in range(1, count + 1)]
    for router in routers:
        await asyncio.start_server(router.serve, f"127.0.1.{router.number}", port)
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    asyncio.get_running_loop().call_soon(report, routers, {})
    while line := await commands.readline():
        flapping = routers[int(line.split()[1]) - 1].writer
        if flapping is not None:
            flapping.transport.abort()


def report(routers: list[Router], before: dict[int, int]) -> None:
    """Say how many prefixes each router has, when that has changed."""
    now = {router.number: len(router.prefixes) for router in routers}
    if now != before:
        tell({"prefixes": list(now.values())})
    asyncio.get_running_loop().call_later(0.02, report, routers, now)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
