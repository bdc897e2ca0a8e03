"""What the worst peers send to an API: ``python barrage.py UID PORT COUNT SEED`` throws it at 127.0.0.1 as that user.

Garbage, heads and bodies that are huge or never end, wrong tokens, writes without rights, pipelining, TLS where there
is none, hanging up at any moment; and 2,000 connections that say nothing at all. Prints how often each status came
back, as JSON. Of itself it writes nothing: as an unprivileged user it may not.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from collections import Counter
from collections.abc import Callable

AT_ONCE = 50
IDLE = 2000
PATHS = ["/", "/v1/status", "/v1/confirm", "/v1/services/web", "/metrics", "/v1/import", "/v1/services", "/%00%ff"]
METHODS = ["GET", "PUT", "POST", "DELETE", "PATCH", "HEAD", "BREW"]


def noise(dice: random.Random, token: bool = True) -> tuple[bytes, float]:
    """One attempt, and the seconds to wait for an answer: a moment where it is not to be had.

    ``token``: always with a wrong one, for a caller who could write without any.
    """
    head = f"{dice.choice(METHODS)} {dice.choice(PATHS)} HTTP/1.1\r\nHost: localhost\r\n".encode()
    if token or dice.random() < 0.3:
        head += f"Authorization: Bearer wrong-{dice.random()}\r\n".encode()
    body = b'{"vip": "192.0.2.66", "port": 80}'
    kinds: list[Callable[[], bytes]] = [
        lambda: dice.randbytes(dice.randrange(5000)),
        lambda: head + b"Connection: close\r\n\r\n",
        lambda: head + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body,
        lambda: head + b"Content-Length: 100000\r\n\r\n" + b"x" * dice.randrange(100_000),
        lambda: head + b"Transfer-Encoding: chunked\r\n\r\n" + dice.choice([b"ffffff\r\n", b"-1\r\n", b"5\r\nab"]),
        lambda: head + b"X: " + b"y" * dice.randrange(60_000) + b"\r\n\r\n",
        lambda: head[: dice.randrange(len(head))],
        lambda: (head + b"\r\n") * dice.randrange(1, 20),
        lambda: b"\x16\x03\x01" + dice.randbytes(300),
        lambda: head.replace(b"localhost", dice.randbytes(8).hex().encode() + b".evil") + b"Connection: close\r\n\r\n",
    ]
    data = dice.choice(kinds)()
    ends = b"Connection: close" in data or data.startswith(b"\x16")
    return data, 10.0 if ends and dice.random() < 0.9 else dice.choice([0.0, 0.02, 0.1])


async def attempt(port: int, data: bytes, patience: float, tally: Counter[str]) -> None:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError as exc:
        tally[type(exc).__name__] += 1
        return
    answer = b""
    try:
        writer.write(data)
        async with asyncio.timeout(patience):
            while piece := await reader.read(65536):
                answer = answer or piece
    except (TimeoutError, OSError):
        pass
    finally:
        writer.transport.abort()
    tally[answer[9:12].decode(errors="replace") if answer else "none"] += 1


async def main(port: int, count: int, seed: int) -> None:
    dice, tally = random.Random(seed), Counter[str]()
    idle = []
    for _ in range(min(IDLE, count // 5)):
        try:
            idle.append(await asyncio.open_connection("127.0.0.1", port))
        except OSError as exc:
            tally[type(exc).__name__] += 1
    healthy: Counter[str] = Counter()
    await attempt(port, b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 5.0, healthy)
    left = iter(range(count))

    async def work() -> None:
        for _ in left:
            await attempt(port, *noise(dice, token=False), tally)

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    for _, writer in idle:
        writer.transport.abort()
    print(json.dumps({"healthy": healthy, "tally": tally}))


if __name__ == "__main__":
    os.setgroups([])
    os.setgid(int(sys.argv[1]))
    os.setuid(int(sys.argv[1]))
    asyncio.run(main(*map(int, sys.argv[2:])))
