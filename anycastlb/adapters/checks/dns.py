"""``dns``: up if a DNS question gets an answer with the expected rcode and, if asked for, the expected content.

A new question with a new id each time, over UDP or TCP; an answer that was cut to fit a datagram is fetched again over
TCP. An answer with another id or to another question is no answer. Without ``answer`` the rcode alone decides, so that
an empty NOERROR is up.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
from pydantic import BeforeValidator

from anycastlb.adapters.checks import Down, Found
from anycastlb.adapters.checks.probe.patterns import Pattern, Search, mismatch
from anycastlb.adapters.checks.probe.sockets import connect, error_text
from anycastlb.core.fields import Document, shown
from anycastlb.core.model import Check, ProbePath

HEADER = struct.Struct("!6H")
"""Id, flags, and the numbers of questions, answers, authorities and additional records (RFC 1035, 4.1.1)."""
QUESTION = struct.Struct("!HH")
"""Type and class, after the name."""
RECORD = struct.Struct("!HHIH")
"""Type, class, life, and length of the data, after the name."""
KNOWN = frozenset(int(kind) for kind in dns.rdatatype.RdataType)
"""Record types that have a name."""
TRANSFERS = ("AXFR", "IXFR", "OPT", "TSIG", "TKEY")
"""Types that are no plain question."""


def _name(value: Any) -> str:
    try:
        if not isinstance(value, str) or not value.strip():
            raise ValueError
        return dns.name.from_text(value.strip()).to_text()
    except (ValueError, dns.exception.DNSException):
        raise ValueError(f'a domain name such as "www.example.org", not {shown(value)}') from None


def _type(value: Any) -> str:
    try:
        text = dns.rdatatype.to_text(dns.rdatatype.from_text(str(value).strip()))
    except (ValueError, dns.exception.DNSException):
        text = ""
    if not text or text in TRANSFERS:
        raise ValueError(f'a record type to ask for such as "A", "TXT" or "TYPE65", not {shown(value)}')
    return text


def _rcode(value: Any) -> str:
    try:
        if isinstance(value, bool):
            raise ValueError
        return dns.rcode.to_text(dns.rcode.from_text(str(value).strip()))
    except (ValueError, dns.exception.DNSException):
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
    params = check.params
    assert isinstance(params, Params)
    question = dns.message.make_query(params.name, params.qtype)
    if not params.recursion:
        question.flags &= ~dns.flags.RD
    try:
        if params.protocol == "udp":
            answer = parsed(question, await _by_datagram(check, probe_path, question.to_wire()))
        if params.protocol == "tcp" or answer.cut:
            answer = parsed(question, await _by_stream(check, probe_path, question.to_wire()))
    except OSError as exc:
        raise Down(error_text(exc)) from exc
    return judged(answer, params)


@dataclass(frozen=True, slots=True)
class DnsAnswer:
    rcode: str
    records: tuple[str, ...]
    """The answer section, in the form of a zone file without names and lives."""
    cut: bool = False
    """It did not fit into a datagram."""


def parsed(question: dns.message.Message, wire: bytes) -> DnsAnswer:
    """The answer to this question in a message as it came. Raises ``Down``."""
    if len(wire) < HEADER.size:
        raise Down(f"no DNS message in the {len(wire)} bytes that came")
    number, flags, questions, answers, _, _ = HEADER.unpack_from(wire)
    if not flags & dns.flags.QR:
        raise Down("a question came back, expected an answer")
    if number != question.id:
        raise Down(f"the answer has id {number}, expected {question.id}")
    try:
        asked, at = _questions(wire, questions)
        rcode = dns.rcode.to_text(dns.rcode.Rcode(flags & 0xF))
        # A server that cannot even read the question may send an error without it.
        wanted = question.question[0]
        if asked != [(wanted.name, wanted.rdtype, wanted.rdclass)] and (asked or rcode == "NOERROR"):
            raise Down(f"an answer to another question: {shown(' '.join(str(name) for name, *_ in asked), 120)}")
        cut = bool(flags & dns.flags.TC)
        return DnsAnswer(rcode, () if cut else tuple(_records(wire, at, answers, wanted.rdtype)), cut)
    except Down:
        raise
    except Exception as exc:  # whatever noise makes of the parser
        raise Down(f"no DNS message in the {len(wire)} bytes that came: {type(exc).__name__}") from exc


def _questions(wire: bytes, count: int) -> tuple[list[tuple[dns.name.Name, int, int]], int]:
    """The questions in a message, and where they end."""
    found, at = [], HEADER.size
    for _ in range(count):
        name, length = dns.name.from_wire(wire, at)
        found.append((name, *QUESTION.unpack_from(wire, at + length)))
        at += length + QUESTION.size
    return found, at


def _records(wire: bytes, at: int, count: int, wanted: int) -> Iterator[str]:
    """The records from this place on as text.

    Only types that were asked for or have a name are decoded: the library remembers every type that it ever met, so
    that a backend could fill the memory with numbers.
    """
    for _ in range(count):
        at += dns.name.from_wire(wire, at)[1]
        kind, family, _, length = RECORD.unpack_from(wire, at)
        at += RECORD.size
        if family == dns.rdataclass.IN and (kind == wanted or kind in KNOWN):
            yield dns.rdata.from_wire(family, kind, wire, at, length).to_text()
        at += length


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
