"""Requests to a real API over a socket: each gets an answer in the API's own shape, or is hung up on."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections import Counter
from contextlib import suppress
from typing import Any

from anycastlb.adapters.sources.memory import MemorySource
from anycastlb.settings import parse
from tests.fuzz.documents import BACKENDS, service
from tests.fuzz.mutation import TEXTS, Mutator
from tests.support import scene
from tests.support.serving import Served, serving
from tests.support.waiting import PATIENCE

NODE = '[node]\nvip_ranges = ["192.0.2.0/24", "2001:db8::/32"]\n[api]\nrate = 1000000\nmax_requests = 1000'
PATHS = {
    "GET": ("/v1/services/s0", "/v1/services/s1/backends/b1", "/v1/defaults", "/v1/services", "/v1/export",
            "/v1/status", "/v1/why/192.0.2.1", "/v1/why/s0/b1", "/v1/checks", "/v1/problems", "/v1/nodes",
            "/v1/history", "/v1/whoami", "/metrics", "/healthz", "/readyz", "/", "/service", "/service/s0",
            "/service/s0/b1", "/v1/openapi.json"),
    "PUT": ("/v1/services/s0", "/v1/services/s9", "/v1/services/s0/backends/b1", "/v1/services/s0/backends/b9",
            "/v1/defaults", "/v1/services", "/service/s8", "/service/s0/b8"),
    "PATCH": ("/v1/services/s0", "/v1/services/s1", "/v1/services/s0/backends/b1", "/v1/defaults", "/service/s0/b1"),
    "DELETE": ("/v1/services/s9", "/v1/services/s0/backends/b9", "/v1/services", "/service/s8", "/service/s0/b8"),
    "POST": ("/v1/import", "/v1/import?mode=replace", "/v1/plan", "/v1/nodes/lb2/drain", "/v1/nodes/lb2/undrain",
             "/v1/services/s0/backends/b1/drain", "/v1/confirm"),
}  # fmt: skip
METHODS = (*PATHS, "HEAD", "OPTIONS", "TRACE", "get", "X" * 300)
STATUSES = {200, 201, 204, 207, 304, 400, 401, 403, 404, 405, 408, 409, 411, 412, 413, 414, 415, 422, 429, 431, 503}
"""503: /readyz, and what a store refuses. 500 is a fault of ours."""
TOGETHER = 16
"""Requests at the same time."""
SERVICES = tuple(service(n) for n in range(5))


def request(mutator: Mutator) -> bytes:
    chance = mutator.chance
    method = chance.choice(list(PATHS))
    path = chance.choice(PATHS[method])
    if chance.random() < 0.1:
        method = chance.choice(METHODS)
    if chance.random() < 0.2:
        path += chance.choice(
            ["/", "%00", "/..", "?mode=replace", "?mode=x", "?a=%ff", "?limit=-1", "/%2e%2e/x", "//", "?" * 50]
        )
    if chance.random() < 0.1:
        odd = chance.choice(TEXTS).encode(errors="surrogatepass").replace(b"\n", b"").replace(b" ", b"%20")
        path = f"/v1/services/{odd.decode('latin-1')}"
    bodies: list[Any] = [*SERVICES, dict(BACKENDS["b1"]), {"catalog": {"services/s0": SERVICES[0]}},
    {"s0": SERVICES[0]},
                         ["s0"], {"reason": "x", "deadline": "1m"}, None]  # fmt: skip
    body = chance.choice(bodies)
    data = b"" if body is None else mutator.written(mutator.mutant(body) if chance.random() < 0.7 else body)
    headers = {
        "Host": "localhost",
        "Content-Type": "application/json",
        "Content-Length": str(len(data)),
        "Connection": "close",
    }
    for name, values in (
        ("If-Match", ["*", '"x"', "W/", '"', ",,,"]),
        ("If-None-Match", ["*", '"x"', '"' * 400]),
        ("Accept", ["text/event-streamx", "*/*;q=x", "text/html"]),
        ("Accept-Encoding", ["gzip", "gzip;q=0, *", "\x7f"]),
        ("Authorization", ["Bearer x", "Basic !!", ""]),
        ("Content-Type", ["text/plain", "application/json; charset=\x80", "application/merge-patch+json"]),
        ("Transfer-Encoding", ["chunked", "x"]),
        ("Origin", ["http://evil.example", "null"]),
        ("Content-Length", ["-1", "1x", "99999999999"]),
    ):
        if chance.random() < 0.06:
            headers[name] = chance.choice(values)
    head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    whole = head.encode("latin-1", errors="replace") + b"\r\n" + data
    return mutator.damaged(whole) if chance.random() < 0.2 else whole


def judge(answer: bytes, sent: bytes) -> int:
    """The status of an answer. Raises AssertionError for one that the API should not give."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    assert status in STATUSES, answer[:2000]
    assert b"Traceback" not in answer, answer[:2000]
    whole = b"content-encoding" not in head.lower() and b"chunked" not in head.lower()
    if status >= 400 and body and whole and b"application/json" in head.lower() and not sent.startswith(b"HEAD"):
        view = json.loads(body, parse_constant=lambda name: 1 / 0)
        gorb = b"/service/" in sent[:200]
        assert gorb or not isinstance(view, dict) or "error" in view or "ready" in view, view
    return status


def complete(data: bytes) -> bool:
    """Is that a whole request, which needs an answer and no second one? The end of any other may be waited for."""
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = re.findall(rb"\r\nContent-Length: (\d+)", head)
    closes = b"\r\nConnection: close\r\n" in head + b"\r\n"
    return closes and lengths == [b"%d" % len(body)] and b"Transfer-Encoding" not in head


async def ask(served: Served, data: bytes) -> bytes:
    """All that comes back until the other end is done. Of what is no whole request, what comes back in a while."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    answer = bytearray()
    try:
        writer.write(data)
        with suppress(*([] if complete(data) else [TimeoutError])):
            async with asyncio.timeout(10 * PATIENCE if complete(data) else 0.3):
                while piece := await reader.read(1 << 20):
                    answer += piece
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()
    return bytes(answer)


async def fuzz(seed: int, seconds: float, only: int | None, limit: int = 10**9) -> tuple[Counter[int], list[str]]:
    """How many answers there were of each status (0: hung up on), and what was found."""
    known = {f"services/s{n}": json.dumps(document) for n, document in enumerate(SERVICES)}
    statuses: Counter[int] = Counter()
    finds: list[str] = []
    async with serving(scene.trouble(), store=MemorySource(**known), settings=parse(NODE)) as served:
        end = time.monotonic() + seconds
        numbers = iter(range(limit) if only is None else (only,))

        async def ask_on() -> None:
            for n in numbers:
                data = request(Mutator(random.Random(f"{seed} {n}")))
                try:
                    answer = await ask(served, data)
                    statuses[judge(answer, data) if answer else 0] += 1
                except Exception as exc:
                    finds.append(f"python -m tests.fuzz --seed {seed} --only {n} requests: {exc!r}\n{data[:500]!r}")
                if time.monotonic() > end or len(finds) >= 5:
                    return

        await asyncio.gather(*(ask_on() for _ in range(TOGETHER)))
        healthy = await ask(
            served, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
        if b" 200 " not in healthy[:20]:
            finds.append(f"afterwards the API does not answer: {healthy[:200]!r}")
    return statuses, finds


def run(seed: int, seconds: float, only: int | None) -> bool:
    began = time.process_time()
    statuses, finds = asyncio.run(fuzz(seed, seconds, only))
    for find in finds:
        print(f"requests: {find}", flush=True)
    count, spent = sum(statuses.values()), time.process_time() - began
    each = 1000 * spent / max(count, 1)
    told = f"{count} cases, {each:.2f} ms each, answers {dict(sorted(statuses.items()))}, {len(finds)} finds"
    print(f"requests: {told}", flush=True)
    return not finds
