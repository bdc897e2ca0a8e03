"""Answers garbage over HTTP to whoever asks: ``python -m tests.lab.liar ADDRESS PORT SEED``; standard library only."""

from __future__ import annotations

import asyncio
import random
import sys

ANSWERS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Consul-Index: 7\r\n\r\n{}",
    b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\nX-Consul-Index: 7\r\n\r\n[{"Key": 5}]',
    b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n[",
    b"HTTP/1.1 200 OK\r\nContent-Length: 20000\r\nX-Consul-Index: 7\r\n\r\n" + b"[" * 20_000,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nno chunk\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\nX-Consul-Index: -9999999999999999999999\r\n\r\n[]",
    b"HTTP/1.1 999 \r\n\r\n<html>",
    b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 9\r\n\r\nNo leader",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"",
)


async def serve(address: str, port: int, chance: random.Random) -> None:
    async def lie(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(chance.choice([*ANSWERS, chance.randbytes(3000)]))
        writer.close()

    async with await asyncio.start_server(lie, address, port) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), random.Random(int(sys.argv[3]))))
