"""Questions and answers of DNS, for checks of type ``dns``.

It is imported with the first check of that type: the library is 60 modules and 2.4 MB. Names and types are given as
operators write them; the functions that read them raise ValueError, and their callers say what was expected.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype

from anycastlb.adapters.checks.probe.outcome import Down
from anycastlb.core.fields import shown

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


def name(text: str) -> str:
    """A domain name with its final dot."""
    if not text.strip():
        raise ValueError("no name")
    try:
        return dns.name.from_text(text.strip()).to_text()
    except dns.exception.DNSException as exc:
        raise ValueError(str(exc)) from exc


def record_type(text: str) -> str:
    """A type that one can ask for."""
    try:
        kind = dns.rdatatype.to_text(dns.rdatatype.from_text(text.strip()))
    except dns.exception.DNSException as exc:
        raise ValueError(str(exc)) from exc
    if kind in TRANSFERS:
        raise ValueError(f"{kind} is no plain question")
    return kind


def rcode(text: str) -> str:
    """An rcode's name, from its name or its number."""
    try:
        return dns.rcode.to_text(dns.rcode.from_text(text.strip()))
    except dns.exception.DNSException as exc:
        raise ValueError(str(exc)) from exc


def make_question(name: str, kind: str, recursion: bool) -> dns.message.Message:
    """A question with an id of its own."""
    question = dns.message.make_query(name, kind)
    if not recursion:
        question.flags &= ~dns.flags.RD
    return question


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
    questions, at = [], HEADER.size
    for _ in range(count):
        name, length = dns.name.from_wire(wire, at)
        questions.append((name, *QUESTION.unpack_from(wire, at + length)))
        at += length + QUESTION.size
    return questions, at


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
