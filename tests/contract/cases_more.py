"""``dns``, ``udp``, ``syslog``, ``grpc`` and ``agent`` in the contract suite."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import dns.flags
import dns.message
import dns.rrset
import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from tests.contract.cases import Case
from tests.contract.cases_web import authority, tls
from tests.support.servers import datagrams, saying, serving, silent


@dataclass(frozen=True)
class Trusting(Case):
    """A type that finds some of the bad servers healthy, and says so in its documentation."""

    healthy: tuple[str, ...] = ()

    def up(self, server: str) -> bool:
        return server in self.healthy


# ---------------------------------------------------------------- good servers


def answered(wire: bytes, cut: bool = False) -> bytes:
    """What a name server with one A record for every name says."""
    question = dns.message.from_wire(wire)
    answer = dns.message.make_response(question)
    if cut:
        answer.flags |= dns.flags.TC
    elif question.question[0].rdtype == dns.rdatatype.A:
        answer.answer.append(dns.rrset.from_text(question.question[0].name, 60, "IN", "A", "192.0.2.1"))
    return answer.to_wire()


def _names(host: str) -> AbstractAsyncContextManager[int]:
    return datagrams(lambda asked: [answered(asked)], host)


async def _names_by_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    wire = answered(await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big")))
    for piece in (len(wire).to_bytes(2, "big")[:1], len(wire).to_bytes(2, "big")[1:], wire[:7], wire[7:]):
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0)


@asynccontextmanager
async def _cutting(host: str) -> AsyncIterator[int]:
    """Cuts off every answer over UDP; the whole one comes over TCP, on the same port."""
    async with serving(_names_by_stream, host) as port:
        loop, kind = asyncio.get_running_loop(), socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(kind, socket.SOCK_DGRAM) as sock:
            sock.bind((host, port))
            sock.setblocking(False)

            def answer() -> None:
                wire, peer = sock.recvfrom(65535)
                sock.sendto(answered(wire, cut=True), peer)

            loop.add_reader(sock, answer)
            try:
                yield port
            finally:
                loop.remove_reader(sock)


def _echo(asked: bytes) -> Iterable[bytes]:
    return [b"echo of " + asked]


@asynccontextmanager
async def health_server(host: str, secure: bool = False) -> AsyncIterator[int]:
    """The health service of gRPC's own library: the server and ``up`` serve, ``down`` does not."""
    server = grpc.server(ThreadPoolExecutor(4))
    service = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(service, server)
    service.set("up", health_pb2.HealthCheckResponse.SERVING)
    service.set("down", health_pb2.HealthCheckResponse.NOT_SERVING)
    where = f"[{host}]:0" if ":" in host else f"{host}:0"
    port = server.add_secure_port(where, _credentials()) if secure else server.add_insecure_port(where)
    server.start()
    try:
        yield port
    finally:
        await asyncio.to_thread(server.stop(0).wait)


@functools.cache
def _credentials() -> grpc.ServerCredentials:
    pem = authority().issue("www.example.org").read_bytes()
    return grpc.ssl_server_credentials([(pem, pem)])


def _secured(host: str) -> AbstractAsyncContextManager[int]:
    return health_server(host, secure=True)


# ---------------------------------------------------------------- cases

LOG = {"facility": "local7", "level": "debug"}
READS = ("silent", "half-closing", "closing")
"""Servers that take the message and go, which is all that a syslog server does."""

CASES: tuple[Case, ...] = (
    Case("dns", "dns", _names, "NOERROR: '192.0.2.1'", {"name": "www.example.org", "answer": "192.0.2"}, "udp"),
    Case("dns over tcp", "dns", lambda host: serving(_names_by_stream, host), "NOERROR: '192.0.2.1'",
         {"name": "www.example.org.", "protocol": "tcp"}),
    Case("dns cut off", "dns", _cutting, "NOERROR: '192.0.2.1'", {"name": "www.example.org"}, "udp"),
    Case("udp", "udp", lambda host: datagrams(_echo, host), "a reply of 12 bytes", {"send": "ping"}, "udp",
         content=False, unheard=True),
    Case("udp with expect", "udp", lambda host: datagrams(_echo, host), "a reply of 10 bytes",
         {"send": "hex:0aff", "expect": "re:^echo of \\n\\xff$"}, "udp"),
    Trusting("syslog", "syslog", lambda host: serving(silent, host), "sent and read", LOG, healthy=READS),
    Case("syslog unconfirmed", "syslog", lambda host: serving(silent, host), "connected and sent",
         {**LOG, "confirm": False, "framing": "octets"}, content=False),
    Case("syslog over udp", "syslog", lambda host: datagrams(lambda asked: (), host),
         "sent; over UDP nobody can tell whether it arrived", {**LOG, "protocol": "udp", "quiet": "20ms"}, "udp",
         content=False, unheard=True),
    Case("grpc", "grpc", health_server, "SERVING"),
    Case("grpc of a service in TLS", "grpc", _secured, "SERVING",
         {"service": "up", "tls": True, "host": "www.example.org", "ca_file": str(authority().file)}, tls=tls),
    Case("agent", "agent", lambda host: serving(saying(b"up 75%\n"), host), "the agent says up 75%"),
    Case("agent with send", "agent", lambda host: serving(saying(b"ready,drain\r\n"), host),
         "the agent says ready drain", {"send": "state\\n"}),
)  # fmt: skip
