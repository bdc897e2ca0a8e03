"""What rules cost a request, beside what people write by hand: ``python -m tests.bench.rules``.

1,000 hostnames, each with its own route, as the driver gives them to a real HAProxy. The peers are HAProxies of the
same release with configurations of their own: *plain* sends every request to one pool, and *by hand* has three
``use_backend`` lines for each hostname, as people write them. All of them send to the same server. 24 connections are
kept alive and never idle, and hostnames, paths and agents are drawn at random.

The figures are CPU time of HAProxy's worker for a request, the lowest of the rounds, which take turns: a busy machine
can only add to it. *Catastrophic* patterns are those that take exponential time to see that they do not match; the peer
has the same patterns without our bound. A *neighbour* of theirs asks the same thread for something plain at the same
moment: what it waits is compared with what it waits beside requests of the same size for the pattern ``^b``, in turns.

It needs neither root nor a kernel of its own. Exits 1 if a promise does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import anycastlb
from anycastlb.adapters.drivers.haproxy.installation import Installation
from anycastlb.core.catalog.http.route import parse_route
from anycastlb.core.http.entries import compile_graph
from anycastlb.core.http.evaluate import walk
from anycastlb.core.http.graph import Graph
from anycastlb.core.http.request import Request
from anycastlb.core.http.routes import graph_of
from anycastlb.core.http.static import engine_row
from anycastlb.core.model import Balancing, HttpRoute, HttpServer, HttpSite, SiteKey
from tests.rig import haproxy as rig
from tests.support import haproxy
from tests.support.haproxy import LOOPBACK, RELEASES, Haproxy, gateway
from tests.support.haproxy_rows import Wanted, at, server
from tests.support.haproxy_world import World
from tests.support.ports import free_port

HOSTS = 1000
POOLS = ("shop", "blog", "api")
AGENTS = 150
"""Distinct patterns of agents, and as many of paths."""
CONNECTIONS = 24
BATCHES = 10
"""Of one request on each connection, in a round: few, so that some rounds are disturbed by nobody."""
SPLIT = 417 * CONNECTIONS
"""Clients, of which a tenth goes to another pool, by chance or for good."""
SHARED = [{"name": "shop", "weight": 90}, {"name": "blog", "weight": 10}]
STRAYS = 4.0
"""Standard deviations that their share may be off: chance has it so once in 16,000 times."""
SUBJECT = "a" * 30 + "!"
LONG = "a" * 15_000 + "!"
"""About as much as a header may hold in a gateway unless it sets ``header_bytes``."""
CATASTROPHIC = (
    "^(a+)+$", "^(a*)*$", "^(a|a)+$", "^(a|aa)+$", "^(a+)*b$", "^([a-z]+)*$", "^(.*)*$b", "(a*)*b", "^(a?){20}a{20}$",
    "^(([a-z])+.)+[A-Z]$", "^(\\w+\\s?)*$", "^(\\w*)+$", "^((a|b|aa)+)+$", "(.*a){15}!b", "^(a+)+(a+)+$",
    "(x+x+)+y|^(a+a+)+b",
    "^([a-zA-Z0-9])(([\\-.]|[_]+)?([a-zA-Z0-9]+))*(@){1}$", "^(a|a?)+$", "^(?:a+)+(?:b+)+$", "^(.+)+(.+)+x$",
)  # fmt: skip
PROMISES = (
    ("prefixes", "plain", 2.5, 2.0),
    ("prefixes, rewritten", "plain", 3.0, 2.0),
    ("ELB's graph", "plain", 3.3, 2.5),
    ("ELB's graph", "by hand", 0.15, 0.15),
)
"""At most so many times what the peer costs. The last is what was aimed at: it is printed, and decides nothing."""
ORDINARY = "^b"
TURNS = 10
"""Requests for each pattern that a neighbour asks beside."""
BOUND = 2000.0
"""Microseconds that one request may take at most, whatever the pattern and its subject are."""
ORIGIN = """
defaults
  mode http
  timeout client 1h
  timeout server 1h
  timeout connect 3s
frontend origin
  bind 127.0.0.1:{port}
  http-request return status 200 content-type text/plain string done
"""
PEER = """
global
  stats socket {socket} mode 660 level admin expose-fd listeners
  nbthread 1
defaults
  mode http
  timeout client 60s
  timeout server 60s
  timeout connect 3s
  option forwardfor
frontend web
  bind 127.0.0.1:{port}
{rules}
  default_backend shop
{backends}
"""


@dataclass
class Tried:
    """A HAProxy, and the requests that it is asked."""

    port: int
    pid: int
    requests: Iterator[bytes]
    world: World
    costs: list[float] = field(default_factory=list)
    links: list[socket.socket] = field(default_factory=list)

    def round(self, batches: int = BATCHES) -> None:
        """One more figure: microseconds of CPU for a request."""
        before = cpu(self.pid)
        self.ask(batches)
        self.costs.append((cpu(self.pid) - before) / batches / CONNECTIONS)

    def ask(self, batches: int) -> None:
        if not self.links:
            self.links = [socket.create_connection(("127.0.0.1", self.port)) for _ in range(CONNECTIONS)]
        for _ in range(batches):
            for link in self.links:
                link.sendall(next(self.requests))
            for link in self.links:
                answered(link)

    @property
    def cost(self) -> float:
        return min(self.costs)


def answered(link: socket.socket) -> None:
    answer = b""
    while not answer.endswith(b"done"):
        piece = link.recv(65536)
        if not piece:
            raise SystemExit(f"bench: no whole answer: {answer!r}")
        answer += piece


def cpu(pid: int) -> float:
    """Microseconds that a process has run."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e3


def prefixes(number: int, *filters: Any) -> dict[str, Any]:
    rules = [
        {
            "matches": [{"path": {"value": f"/part{part}"}}],
            "filters": list(filters),
            "backendRefs": [{"name": POOLS[part % len(POOLS)]}],
        }
        for part in range(4)
    ]
    return {"rules": [*rules, {"filters": list(filters), "backendRefs": [{"name": "shop"}]}]}


REWRITE = {"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/new"}}}


def patterns(number: int) -> tuple[str, str]:
    """Of a hostname: that of agents, and that of paths."""
    return rf"agent{number % AGENTS}/(\S+)$", rf"^/part{number % AGENTS}/(\S+)$"


def elb(number: int) -> dict[str, Any]:
    agent, path = patterns(number)
    rules = {
        "r1": {"type": "ua", "args": {"pattern": agent, "succ": "r2", "fail": "r4"}},
        "r2": {"type": "path", "args": {"regex": True, "pattern": path, "succ": "r3", "fail": "r4"}},
        "r3": {"type": "backend", "args": {"servername": "blog"}},
        "r4": {"type": "backend", "args": {"servername": "shop"}},
    }
    return {"graph": {"init": "r1", "rules": rules}}


def by_hand() -> Iterator[str]:
    for number in range(HOSTS):
        agent, path = patterns(number)
        here = f"{{ req.hdr(host) -i {host(number)} }}"
        yield f"  use_backend blog if {here} {{ req.fhdr(user-agent) -m reg -i {agent} }} {{ path -m reg {path} }}"
        yield f"  use_backend shop if {here} {{ req.fhdr(user-agent) -m reg -i {agent} }}"
        yield f"  use_backend api if {here}"


def host(number: int) -> str:
    return f"s{number}.example"


def asked(chance: random.Random) -> Iterator[bytes]:
    """Requests to every hostname, of which half are for the first rule of ELB's graph."""
    for number in range(HOSTS):
        for fitting in (True, False):
            part = number % AGENTS if fitting else chance.randrange(1000, 2000)
            yield request(host(number), f"/part{part % 4}/{chance.random()}", f"agent{part}/{chance.randrange(999)}")
            yield request(host(number), f"/part{part}/{chance.random()}", f"agent{part}/{chance.randrange(999)}")


def request(name: str, path: str, agent: str, *more: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", f"Host: {name}", f"User-Agent: {agent}", "Accept: */*", *more, "", ""]
    return "\r\n".join(lines).encode()


def decided(name: str, document: Any) -> Graph:
    route = parse_route(f"routes/{name}", name, {"gateways": ["web"], "hostnames": [name], **document})
    if not isinstance(route, HttpRoute):
        raise SystemExit(f"bench: {route}")
    return graph_of(route)


def wanted(
    documents: Mapping[str, Any], port: int, servers: Mapping[str, HttpServer], names: Iterable[str] = POOLS
) -> Wanted:
    """What a node would want of these routes, each by its hostname, and of pools of such names and servers."""
    graphs = [decided(name, document) for name, document in documents.items()]
    pools: dict[str, Any] = {name: SimpleNamespace(balancing=Balancing()) for name in names}
    row = engine_row([gateway(port)], graphs, pools)
    assert row.config
    compiled = [compile_graph(graph) for graph in graphs]
    return Wanted(
        row.config,
        row.digest,
        {at(one.name, name): one_server for one in row.config.sections for name, one_server in servers.items()},
        {SiteKey("web", name): HttpSite(one.root, one.entries) for name, one in zip(documents, compiled, strict=True)},
    )


def peer(port: int, files: Installation, rules: Iterable[str], pools: Mapping[str, int]) -> str:
    """A configuration that somebody might have written: its rules, and the port of the server of each pool."""
    backends = "".join(f"backend {name}\n  server s 127.0.0.1:{one}\n" for name, one in pools.items())
    return PEER.format(port=port, socket=files.socket, rules="\n".join(rules), backends=backends)


class Bench:
    """HAProxies of one release, all of which end with it."""

    def __init__(self, program: Path, folder: Path, stack: AsyncExitStack) -> None:
        self._program, self._folder, self._stack = program, folder, stack
        self._count = 0
        self.origin = free_port()

    def files(self) -> Installation:
        self._count += 1
        return replace(haproxy.installation(self._folder / str(self._count), str(self._program)), threads=1)

    @staticmethod
    def _endless(requests: Sequence[bytes]) -> Iterator[bytes]:
        """At random, the same ones each time."""
        chance = random.Random(2)
        return iter(lambda: chance.choice(requests), b"")

    async def ours(self, documents: Mapping[str, Any], requests: Sequence[bytes] = ()) -> Tried:
        files = self.files()
        world = World(self.real(files), files, free_port())
        self._stack.callback(world.runtime.close)
        await world.start(wanted(documents, world.port, {"s": server(self.origin)}))
        return Tried(world.port, await world.worker(), self._endless(requests), world)

    async def peer(self, rules: Iterable[str], requests: Sequence[bytes] = ()) -> Tried:
        port, files = free_port(), self.files()
        text = peer(port, files, rules, dict.fromkeys(POOLS, self.origin))
        world = World(await self.written(text, files), files, port)
        self._stack.callback(world.runtime.close)
        return Tried(port, await world.worker(), self._endless(requests), world)

    def real(self, files: Installation) -> Haproxy:
        """One that is to be started, and is stopped at the end."""
        real = Haproxy(files)
        self._stack.callback(real.stop)
        return real

    async def written(self, text: str, files: Installation | None = None) -> Haproxy:
        """One that runs with a configuration as it stands."""
        real = self.real(files or self.files())
        real.files.directory.mkdir(parents=True, exist_ok=True)
        real.files.config.write_text(text)
        real.start()
        await real.started()
        return real


async def costs(bench: Bench, rounds: int) -> dict[str, Tried]:
    requests = list(asked(random.Random(1)))
    every = range(HOSTS)
    tried = {
        "plain": await bench.peer((), requests),
        "by hand": await bench.peer(by_hand(), requests),
        "prefixes": await bench.ours({host(n): prefixes(n) for n in every}, requests),
        "prefixes, rewritten": await bench.ours({host(n): prefixes(n, REWRITE) for n in every}, requests),
        "ELB's graph": await bench.ours({host(n): elb(n) for n in every}, requests),
    }
    for one in tried.values():
        one.ask(2)  # so that the connections to its server are there
    for turn in range(rounds):
        for name, one in tried.items():
            if name != "by hand" or turn % 10 == 0:
                one.round()
    return tried


async def shares(bench: Bench) -> dict[str, Share]:
    """What becomes of a pool of weight 10 beside one of 90, by each way of choosing between them."""
    found = {}
    for name, sticky in (("chance", None), ("cookie", {"cookie": "uid"}), ("source", "source")):
        document = {"rules": [{"backendRefs": SHARED, **({"sticky": sticky} if sticky else {})}]}
        ours, graph = await bench.ours({host(0): document}), decided(host(0), document)
        users = [(user, ip_address("127.1.0.1") + user if name == "source" else LOOPBACK) for user in range(SPLIT)]
        ours.requests = (request(host(0), "/", "x", f"Cookie: uid=user-{user}") for user, _ in users)
        if name == "source":
            for _, source in users:
                ask_once(ours.port, next(ours.requests), str(source))
        else:
            ours.ask(SPLIT // CONNECTIONS)
        expected = 0
        for user, source in users:
            cookie = ("cookie", f"uid=user-{user}")
            ends = walk(graph, Request("GET", host(0), "/", "", (cookie,), source)).ends
            expected += len(ends) == 1 and getattr(ends[0][1], "pool", "") == "blog"
        found[name] = Share(await counted(ours, SPLIT), expected if sticky else None)
    return found


@dataclass(frozen=True)
class Share:
    """How many of ``SPLIT`` requests went to the pool of weight 10."""

    count: int
    expected: int | None
    """By the evaluator, which knows where each client belongs. None: chance decides."""

    @property
    def off(self) -> float:
        """Standard deviations."""
        return abs(self.count - 0.1 * SPLIT) / math.sqrt(0.1 * 0.9 * SPLIT)

    @property
    def held(self) -> bool:
        return self.off <= STRAYS and self.expected in (None, self.count)


async def counted(ours: Tried, every: int) -> int:
    (text,) = await ours.world.runtime.ask(["show stat -1 2 -1"])
    head, *rows = (line.split(",") for line in text.strip().splitlines())
    counts = {row[0].partition(":")[0]: int(row[head.index("stot")]) for row in rows}
    if counts["shop"] + counts["blog"] != every:
        raise SystemExit(f"bench: not all requests were counted: {counts}")
    return counts["blog"]


def ask_once(port: int, text: bytes, source: str = "127.0.0.1") -> None:
    """Over a connection of its own, as a client of that address."""
    with closing(socket.create_connection(("127.0.0.1", port), source_address=(source, 0))) as link:
        link.sendall(text)
        answered(link)


async def catastrophes(bench: Bench) -> tuple[list[tuple[str, float, float]], list[Neighbours]]:
    """Each pattern, and microseconds of CPU for a request: at most here, and of the peer; and who waits for them."""
    found, neighbours = [], []
    documents = {
        f"p{number}.example": {
            "rules": [
                {
                    "matches": [{"headers": [{"name": "x", "type": "RegularExpression", "value": one}]}],
                    "backendRefs": [{"name": "blog"}],
                },
                {"backendRefs": [{"name": "shop"}]},
            ]
        }
        for number, one in enumerate((*CATASTROPHIC, ORDINARY))
    }
    ours = await bench.ours(documents)
    lines = (
        f"  use_backend blog if {{ req.hdr(host) p{number}.example }} {{ req.fhdr(x) -m reg '{one}' }}"
        for number, one in enumerate(CATASTROPHIC)
    )
    peer = await bench.peer(lines)
    for number, one in enumerate(CATASTROPHIC):
        costs = {tried.port: [once(tried, number, text) for text in texts]
                 for tried, texts in ((ours, (SUBJECT, LONG, SUBJECT, LONG)), (peer, (SUBJECT,)))}  # fmt: skip
        found.append((one, max(min(costs[ours.port][::2]), min(costs[ours.port][1::2])), min(costs[peer.port])))
    for name, subject in (("short", SUBJECT), ("long", LONG)):
        neighbours.append(Neighbours(name, *beside_patterns(ours, subject)))
    return found, neighbours


@dataclass(frozen=True)
class Neighbours:
    """Microseconds that plain requests took beside others with a short or long subject."""

    subject: str
    catastrophic: list[float]
    ordinary: list[float]

    @property
    def more(self) -> float:
        return median(self.catastrophic) - median(self.ordinary)

    @property
    def ratio(self) -> float:
        """Of the 99th of a hundred."""
        late, usual = (sorted(times)[-1 - len(times) // 100] for times in (self.catastrophic, self.ordinary))
        return late / usual


def beside_patterns(ours: Tried, subject: str) -> tuple[list[float], list[float]]:
    plain = request("nobody.example", "/", "none")
    waits: tuple[list[float], list[float]] = [], []
    first, second = (socket.create_connection(("127.0.0.1", ours.port)) for _ in range(2))
    with closing(first), closing(second):
        for _ in range(TURNS):
            for number in range(len(CATASTROPHIC)):
                for took, pattern in zip(waits, (number, len(CATASTROPHIC)), strict=True):
                    first.sendall(f"GET / HTTP/1.1\r\nHost: p{pattern}.example\r\nX: {subject}\r\n\r\n".encode())
                    began = time.perf_counter()
                    second.sendall(plain)
                    second.recv(65536)
                    took.append((time.perf_counter() - began) * 1e6)
                    answered(first)
    return waits


def once(tried: Tried, number: int, text: str) -> float:
    before = cpu(tried.pid)
    ask_once(tried.port, f"GET / HTTP/1.1\r\nHost: p{number}.example\r\nX: {text}\r\n\r\n".encode())
    return cpu(tried.pid) - before


async def measure(release: str, rounds: int) -> int:
    """How many promises are broken."""
    program = rig.find(release)
    if program is None:
        sys.exit(f"{release} is not there: python3 tests/rig/haproxy.py")
    with tempfile.TemporaryDirectory(prefix="alb.") as folder:
        async with AsyncExitStack() as stack:
            bench = Bench(program, Path(folder), stack)
            await bench.written(ORIGIN.format(port=bench.origin))
            tried = await costs(bench, rounds)
            (patterns, neighbours), found = await catastrophes(bench), await shares(bench)
    print(f"\nHAProxy of {release}: CPU us a request, the lowest of {rounds} rounds; {HOSTS:,} hostnames")
    for name, one in tried.items():
        print(f"  {name:22}{one.cost:9.1f}")
    broken = 0
    for name, peer, promised, aim in PROMISES:
        ratio = tried[name].cost / tried[peer].cost
        broken += ratio > promised
        verdict = "" if ratio <= promised else "  BROKEN"
        print(f"  {name:22} to {peer:10}{ratio:8.2f} x, promised {promised:g}, aimed at {aim:g}{verdict}")
    worst, ours, _ = max(patterns, key=lambda one: one[1])
    _, _, unbound = max(patterns, key=lambda one: one[2])
    broken += ours > BOUND
    print(f"  the worst of {len(patterns)} catastrophic patterns, {worst}: {ours:.0f} us, promised {BOUND:g}"
          f"{'' if ours <= BOUND else '  BROKEN'}; without a bound the worst is {unbound:.0f} us")  # fmt: skip
    for one in neighbours:
        broken += one.more > BOUND
        verdict = "" if one.more <= BOUND else "  BROKEN"
        print(f"  a plain request beside them, {one.subject} subjects: median {one.more:+.0f} us to what it takes"
              f" beside others, promised {BOUND:g}{verdict}; p99 {one.ratio:.2f} x")  # fmt: skip
    for name, share in found.items():
        broken += not share.held
        known = "" if share.expected is None else f", {share.expected:,} by the evaluator"
        print(f"  a share of 10 % by {name}: {share.count:,} of {SPLIT:,} clients{known}: {share.off:.1f} standard"
              f" deviations off, promised {STRAYS:g}{'' if share.held else '  BROKEN'}")  # fmt: skip
    return broken


def of_releases(name: str, about: str, rounds: int, measure: Callable[[str, int], Coroutine[Any, Any, int]]) -> int:
    """Measure each HAProxy that was asked for on the command line; 1 if a promise is broken."""
    parser = argparse.ArgumentParser(prog=f"python -m tests.bench.{name}", description=about.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--release", choices=RELEASES, action="append", help="one of them; both, unless given")
    options = parser.parse_args()
    print(f"anycastlb {anycastlb.__version__}, Python {sys.version.split()[0]}")
    broken = [asyncio.run(measure(release, options.rounds)) for release in options.release or RELEASES]
    return 1 if any(broken) else 0


if __name__ == "__main__":
    sys.exit(of_releases("rules", __doc__, 50, measure))
