"""Two nodes, a router, a client and four backends in network namespaces: where flows are moved from node to node.

client 10.9.0.2 - router - lan 10.0.0.0/24 - nodes .11 and .12, backends .21 to .24
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from anycastlb import settings
from tests.lab import lateness
from tests.lab.namespaces import Namespace, address, connect, delete
from tests.support.daemon import Daemon

VIP = "192.0.2.10"
PORTS = range(8001, 8007)
NODES = {"a": "10.0.0.11", "b": "10.0.0.12"}
BACKENDS = {f"s{n}": f"10.0.0.2{n}" for n in range(1, 6)}
CLIENTS = [f"10.9.0.{n}" for n in range(2, 22)]
PATIENCE = 4.0
"""Seconds in which a connection that lives says something back, not counting what the machine lost: enough for several
retransmissions."""


class Site:
    """Nodes run what ``ipvs`` (lines of ``[ipvs]``) says; a node takes flows once it is routed to."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        names = ("client", "router", *NODES, *BACKENDS)
        self.machines = {name: Namespace(f"move-{name}") for name in names}
        self.daemons: dict[str, Daemon] = {}
        self.sockets: list[socket.socket] = []

    def build(self) -> None:
        for machine in self.machines.values():
            machine.create()
        router, client = self.machines["router"], self.machines["client"]
        router.ip("link add lan type bridge", "link set lan up", "addr add 10.0.0.1/24 dev lan")
        connect(client, "wan", router, "outside")
        address(client, "wan", *(f"{own}/24" for own in CLIENTS))
        address(router, "outside", "10.9.0.1/24")
        client.ip("route add default via 10.9.0.1")
        for name, own in {**NODES, **BACKENDS}.items():
            machine = self.machines[name]
            connect(machine, "lan", router, f"to-{name}")
            address(machine, "lan", f"{own}/24")
            router.ip(f"link set dev to-{name} master lan up")
            machine.ip("route add default via 10.0.0.1")
        for name in BACKENDS:
            # Replies of dr come from the VIP, and go straight to the router.
            own = ("route add default via 10.0.0.1 table 100", f"rule add from {VIP} lookup 100")
            self.machines[name].ip(f"addr add {VIP}/32 dev lo", *own)

    def start(self, ipvs: str) -> None:
        for name in NODES:
            text = f'[node]\nvip_ranges = ["192.0.2.0/24"]\nstate_dir = "{self._state_dir / name}"\n[ipvs]\n{ipvs}'
            with self.machines[name].inside():
                self.daemons[name] = Daemon(settings.parse(text))

    async def put(self, *nodes: str, **documents: dict[str, Any]) -> None:
        """Both nodes, or these, serve these services: ``web={"port": 80, ...}``."""
        wanted = {name: {"vip": VIP, "check": {"type": "none"}, **document} for name, document in documents.items()}
        for name in nodes or NODES:
            with self.machines[name].inside():
                self.daemons[name].want(**wanted)
                assert await self.daemons[name].cycle() == []

    def route(self, node: str, replies: str = "") -> None:
        """The router sends the VIP's packets to this node; replies of ``nat`` go through it, or through that one."""
        self.machines["router"].ip(f"route replace {VIP}/32 via {NODES[node]}")
        for name in BACKENDS:
            self.machines[name].ip(f"route replace default via {NODES[replies or node]}")

    def kill(self, node: str) -> None:
        self.machines[node].ip("link set lan down")

    def entries(self, node: str) -> int:
        """Established connections the node knows of."""
        with self.machines[node].inside():
            lines = Path("/proc/thread-self/net/ip_vs_conn").read_text().splitlines()[1:]
        return sum("ESTABLISHED" in line or " UDP " in line for line in lines if not line.startswith("TCP 00000000"))

    async def open(self, port: int, count: int, patience: float = 60.0) -> list[socket.socket]:
        """So many connections of which nothing but the handshake was ever sent."""
        loop, opened = asyncio.get_running_loop(), []
        for number in range(count):
            with self.machines["client"].inside():
                sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            self.sockets.append(sock)
            sock.bind((CLIENTS[number % len(CLIENTS)], 0))
            await asyncio.wait_for(loop.sock_connect(sock, (VIP, port)), patience)
            opened.append(sock)
        return opened

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()
        for daemon in self.daemons.values():
            daemon.die()
        delete(tuple(self.machines.values()))


async def until(condition: Callable[[], bool], within: float = 600.0) -> bool:
    """Wait for it; False if it does not come."""
    loop = asyncio.get_running_loop()
    end = loop.time() + within
    while not condition():
        if loop.time() > end:
            return False
        await asyncio.sleep(0.05)
    return True


class Echo(asyncio.Protocol):
    """Says everything back. ``transports``: those of all connections that were made."""

    def __init__(self, transports: list[asyncio.Transport]) -> None:
        self._transports = transports

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._transports.append(transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


async def ended(servers: Sequence[asyncio.Server], transports: list[asyncio.Transport]) -> None:
    """Close the servers, and every connection of theirs while the event loop still runs."""
    for server in servers:
        server.close()
    for _ in range(3):  # a connection that was just accepted is made, and closed; asyncio tells the server
        await asyncio.sleep(0)
        for transport in transports:
            transport.abort()


@asynccontextmanager
async def site(state_dir: Path, ipvs: str = "") -> AsyncIterator[Site]:
    """A site with its nodes started and its backends listening."""
    made = Site(state_dir)
    servers, transports = list[asyncio.Server](), list[asyncio.Transport]()
    try:
        made.build()
        made.start(ipvs)
        for name in BACKENDS:
            with made.machines[name].inside():
                socks = [socket.create_server(("0.0.0.0", port), backlog=512) for port in PORTS]
            servers += [
                await asyncio.get_running_loop().create_server(lambda: Echo(transports), sock=sock) for sock in socks
            ]
        yield made
    finally:
        await ended(servers, transports)
        made.close()


async def alive(sockets: Sequence[socket.socket]) -> int:
    """How many of these connections still carry data there and back."""
    loop = asyncio.get_running_loop()

    async def ping(sock: socket.socket) -> bool:
        try:
            await loop.sock_sendall(sock, b"ping")
            return await loop.sock_recv(sock, 16) == b"ping"
        except OSError:
            return False

    order = random.Random(7).sample(sockets, len(sockets))  # not that of their making, which rr would repeat
    since = lateness.now()
    waiting = {loop.create_task(ping(sock)) for sock in order}
    every = list(waiting)
    while waiting and time.monotonic() - since - lateness.lost(since) < PATIENCE:
        _, waiting = await asyncio.wait(waiting, timeout=0.2)
    for task in waiting:
        task.cancel()
    return sum(task.done() and task.result() for task in every)
