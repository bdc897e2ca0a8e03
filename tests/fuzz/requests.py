"""Requests to a real API over a socket: each gets an answer in the API's own shape, or is hung up on."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import time
from collections import Counter
from contextlib import suppress
from typing import Any

from anycastlb.adapters.sources.memory import MemorySource
from anycastlb.settings import parse
from tests.fuzz.documents import BACKENDS, service
from tests.fuzz.mutation import TEXTS, Mutator
from tests.fuzz.peer import CLOSED, KEPT, Peer, complete
from tests.fuzz.stalls import STALL, Stalls
from tests.support import scene
from tests.support.serving import serving

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
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


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
        "Connection": "close" if chance.random() < 0.05 else "keep-alive",
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
    return mutator.damaged(whole.replace(KEPT, CLOSED)) if chance.random() < 0.2 else whole


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


async def fuzz(seed: int, seconds: float, only: int | None, limit: int = 10**9) -> tuple[Counter[int], list[str]]:
    """How many answers there were of each status (0: hung up on), and what was found."""
    known = {f"services/s{n}": json.dumps(document) for n, document in enumerate(SERVICES)}
    statuses: Counter[int] = Counter()
    finds: list[str] = []
    async with serving(scene.trouble(), store=MemorySource(**known), settings=parse(NODE)) as served:
        end = time.monotonic() + seconds
        numbers = iter(range(limit) if only is None else (only,))
        stalls = Stalls()

        async def ask_on() -> None:
            peer = Peer(served.port)
            for n in numbers:
                with stalls.during(n):
                    data = request(Mutator(random.Random(f"{seed} {n}")))
                    try:
                        answer = await peer.ask(data)
                        assert answer or not complete(data), "no answer"
                        statuses[judge(answer, data) if answer else 0] += 1
                    except Exception as exc:
                        finds.append(f"{_again(seed, n)}: {exc!r}\n{data[:500]!r}")
                if time.monotonic() > end or len(finds) >= 5:
                    break
            peer.hang_up()

        with stalls.watched():
            await asyncio.gather(*(ask_on() for _ in range(TOGETHER)))
            for n in sorted(stalls.suspects):
                took = min([await _alone(stalls, served.port, seed, n) for _ in range(2)])
                if took > STALL:
                    finds.append(f"{_again(seed, n)}: {1000 * took:.0f} ms of the processor at a time")
        if b" 200 " not in (await Peer(served.port).ask(HEALTH))[:20]:
            finds.append("afterwards the API does not answer")
    return statuses, finds


async def _alone(stalls: Stalls, port: int, seed: int, number: int) -> float:
    """The longest time of the processor without a pause that this request takes while there is no other."""
    data = request(Mutator(random.Random(f"{seed} {number}")))
    gc.collect()  # the garbage of others is collected in anybody's time
    await asyncio.sleep(0)  # this step is none of the request's, nor is the making of it
    peer, stalls.longest = Peer(port), 0.0
    with suppress(AssertionError):  # judged before
        await peer.ask(data)
    peer.hang_up()
    return stalls.longest


def _again(seed: int, number: int) -> str:
    return f"python -m tests.fuzz --seed {seed} --only {number} requests"


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
