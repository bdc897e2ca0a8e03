"""keepalived's real servers and sorry server to backends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from anycastlb.core.importers.documents import Note, Real, Virtual, number, weight
from anycastlb.core.importers.keepalived_checks import CHECKERS, aimed, check, last
from anycastlb.core.importers.keepalived_targets import host
from anycastlb.core.importers.keepalived_text import Statement, attempt
from anycastlb.core.model import Address, endpoint

METHODS = {"NAT": "nat", "DR": "dr", "TUN": "tunnel"}


@dataclass(frozen=True, slots=True)
class Method:
    """How packets reach a server."""

    forward: str
    tunnel_port: int | None = None
    """Of GUE."""


def servers(statement: Statement, virtual: Virtual, method: Method, notes: list[Note]) -> list[Real]:
    """The real servers, each once, and the last sorry server, unless it is one of them."""
    reals: list[Real] = []
    seen: set[tuple[Address, int]] = set()
    for real, line in _reals(statement, virtual, method, notes):
        if (real.address, real.port) in seen:
            at = endpoint(real.address, real.port)
            notes.append(line.note(f"{line.keyword} {at} is one of the real servers already; left out"))
        else:
            seen.add((real.address, real.port))
            reals.append(real)
    return reals


def _reals(
    statement: Statement, virtual: Virtual, method: Method, notes: list[Note]
) -> Iterator[tuple[Real, Statement]]:
    for line in statement.inside():
        if line.keyword == "real_server":
            own = method_of(line, ("lvs_method",), method, notes)
            if at := attempt(notes, None, _endpoint, line, virtual, own, notes):
                upper, lower = _connections(line, notes)
                checkers = [inner for inner in line.inside() if inner.keyword in CHECKERS]
                checked = check(checkers, (line, statement), virtual.vips, notes)
                written = _written_port(line)
                if written != at[1]:
                    checked = aimed(checked, written)
                yield Real(
                    *at, own.forward, _weight(line, notes), own.tunnel_port, upper, lower, checked
                ), line  # fmt: skip
    if sorry := last(statement, "sorry_server"):
        own = method_of(statement, ("sorry_server_lvs_method",), method, notes)
        if at := attempt(notes, None, _endpoint, sorry, virtual, own, notes):
            yield Real(*at, own.forward, 1, own.tunnel_port, check={"type": "none"}, fallback=True), sorry


def _endpoint(line: Statement, virtual: Virtual, method: Method, notes: list[Note]) -> tuple[Address, int]:
    """Where a server listens: only NAT can change the port. Raises ``UnreadableInput``."""
    at, port = host(line, notes), _written_port(line)
    if port and port != virtual.port and method.forward != "nat":
        notes.append(line.note(f"port {port}: {method.forward} leaves the port as it is; {virtual.port} instead"))
        port = virtual.port
    return at, port or virtual.port


def _written_port(line: Statement) -> int:
    """The port in a server's line, where keepalived sends its checks; 0 if there is none. Raises
    ``UnreadableInput``."""
    return number(line.words[2], line.line, "a port", 0, 65535) if len(line.words) > 2 else 0


def _weight(line: Statement, notes: list[Note]) -> int:
    """keepalived's own reading: 1 by default and for a negative number, 0 for what is no number."""
    share = 1
    for given in (inner for inner in line.inside() if inner.keyword == "weight"):
        otherwise = share if given.argument[:1] == "-" else 0
        share = attempt(notes, otherwise, number, given.argument, given.line, "a weight", 0)
    return weight(share, line.line, notes)


def _connections(line: Statement, notes: list[Note]) -> tuple[int, int]:
    """The upper and the lower threshold; the kernel refuses a lower one that is above."""
    upper, lower = (
        attempt(notes, 0, number, given.argument, given.line, "a number of connections")
        if (given := last(line, keyword))
        else 0
        for keyword in ("uthreshold", "lthreshold")
    )
    if lower > upper:
        notes.append(line.note(f"lthreshold {lower} is above uthreshold {upper}, which the kernel refuses; left out"))
        lower = 0
    return upper, lower


def method_of(statement: Statement, keywords: tuple[str, ...], default: Method, notes: list[Note]) -> Method:
    """The forwarding method that a block asks for last, in words that keepalived accepts."""
    method = default
    for line in statement.inside():
        if line.keyword in keywords:
            method = _method(line, method, notes)
    return method


def _method(line: Statement, otherwise: Method, notes: list[Note]) -> Method:
    kind, *words = (*line.words[1:], "")[:8]
    if kind not in METHODS:
        notes.append(
            line.note(f"expected NAT, DR or TUN after {line.keyword}, not {kind!r:.40}; {otherwise.forward} instead")
        )
        return otherwise
    given = dict(pairwise(words))
    name = given.get("type", "ipip") if kind == "TUN" else "ipip"
    for word in ("csum", "remcsum"):
        if word in words:
            notes.append(line.note(f"{word}: {name} is sent without checksums here"))
    if name == "gre":
        return Method("gre")
    if name == "ipip":
        return Method(METHODS[kind])
    # keepalived passes over a type that it cannot take: what was asked for before stays, and else it is ipip.
    instead = otherwise if otherwise.forward in ("gue", "gre", "tunnel") else Method("tunnel")
    if name != "gue":
        notes.append(line.note(f"tunnel type {name!r:.40} is not known; {instead.forward} instead"))
        return instead
    port = given.get("port", "")
    at = attempt(notes, None, number, port, line.line, "a GUE port", 1, 65535)
    return Method("gue", at) if at else instead
