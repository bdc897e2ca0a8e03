"""``dns``: up if a DNS question gets an answer with the expected rcode and, if asked for, the expected content.

A new question with a new id each time, over UDP or TCP; an answer that was cut to fit a datagram is fetched again over
TCP. An answer with another id or to another question is no answer. Without ``answer`` the rcode alone decides, so that
an empty NOERROR is up.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator

from anycastlb.adapters.checks.probe.outcome import Down, Found
from anycastlb.adapters.checks.probe.patterns import Pattern, Search, mismatch
from anycastlb.adapters.checks.probe.sockets import connect, error_text
from anycastlb.core.fields import Document, shown
from anycastlb.core.model import Check, ProbePath

if TYPE_CHECKING:
    from anycastlb.adapters.checks.probe.dns_message import DnsAnswer


def _name(value: Any) -> str:
    from anycastlb.adapters.checks.probe import dns_message

    try:
        return dns_message.name(value if isinstance(value, str) else "")
    except ValueError:
        raise ValueError(f'a domain name such as "www.example.org", not {shown(value)}') from None


def _type(value: Any) -> str:
    from anycastlb.adapters.checks.probe import dns_message

    try:
        return dns_message.record_type(str(value))
    except ValueError:
        raise ValueError(f'a record type to ask for such as "A", "TXT" or "TYPE65", not {shown(value)}') from None


def _rcode(value: Any) -> str:
    from anycastlb.adapters.checks.probe import dns_message

    try:
        return dns_message.rcode("" if isinstance(value, bool) else str(value))
    except ValueError:
        raise ValueError(f'an rcode such as "NOERROR", "NXDOMAIN" or 3, not {shown(value)}') from None


class Params(Document):
    name: Annotated[str, BeforeValidator(_name)]
    """The name to ask for, with or without the final dot; always taken as fully qualified."""
    qtype: Annotated[str, BeforeValidator(_type)] = "A"
    """The record type to ask for: ``A``, ``AAAA``, ``TXT``, ``SOA``, ``TYPE65``, ..."""
    protocol: Literal["udp", "tcp"] = "udp"
    """Over UDP, an answer that was cut off is fetched again over TCP."""
    rcode: Annotated[str, BeforeValidator(_rcode)] = "NOERROR"
    """The rcode to expect, by name or number."""
    answer: Pattern | None = None
    """Text to find in one record of the answer section, in the form of a zone file (``10 mail.example.org.``)."""
    recursion: bool = True
    """Ask for recursion. An authoritative server does not mind."""


async def probe(check: Check, probe_path: ProbePath | None) -> Found:
    from anycastlb.adapters.checks.probe.dns_message import make_question, parsed

    params = check.params
    assert isinstance(params, Params)
    question = make_question(params.name, params.qtype, params.recursion)
    try:
        if params.protocol == "udp":
            answer = parsed(question, await _by_datagram(check, probe_path, question.to_wire()))
        if params.protocol == "tcp" or answer.cut:
            answer = parsed(question, await _by_stream(check, probe_path, question.to_wire()))
    except OSError as exc:
        raise Down(error_text(exc)) from exc
    return judged(answer, params)


def judged(answer: DnsAnswer, params: Params) -> Found:
    """Raises ``Down``."""
    if answer.rcode != params.rcode:
        raise Down(f"{answer.rcode}, expected {params.rcode}")
    records = shown("; ".join(answer.records), 120)
    if params.answer is not None and not any(_holds(params.answer, record) for record in answer.records):
        if not answer.records:
            raise Down(f"{answer.rcode} without an answer; expected one that holds {shown(params.answer)}")
        raise Down(f"the answer {records} {mismatch(params.answer)}")
    return Found(f"{answer.rcode}: {records}" if answer.records else f"{answer.rcode}, no records")


def _holds(pattern: str, record: str) -> bool:
    search = Search(pattern)
    return search.feed(record.encode()) or search.end()


async def _by_datagram(check: Check, probe_path: ProbePath | None, wire: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    with await connect(check.address, check.port, probe_path, socket.SOCK_DGRAM) as sock:
        await loop.sock_sendall(sock, wire)
        return await loop.sock_recv(sock, 65535)


async def _by_stream(check: Check, probe_path: ProbePath | None, wire: bytes) -> bytes:
    with await connect(check.address, check.port, probe_path) as sock:
        await asyncio.get_running_loop().sock_sendall(sock, len(wire).to_bytes(2, "big") + wire)
        length = int.from_bytes(await _exactly(sock, 2), "big")
        return await _exactly(sock, length)


async def _exactly(sock: socket.socket, length: int) -> bytes:
    loop, received = asyncio.get_running_loop(), b""
    while len(received) < length:
        piece = await loop.sock_recv(sock, length - len(received))
        if not piece:
            raise Down(f"the connection was closed after {len(received)} of {length} bytes")
        received += piece
    return received
