"""Commands of HAProxy's Runtime API, and what each answers when it is done. Pure.

HAProxy splits a command at spaces and semicolons, and takes a backslash for the beginning of an escape. In a payload,
which is everything up to an empty line, nothing is escaped. ``docs/decisions/0019-http-tier.md`` names the maps.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from anycastlb.adapters.drivers.haproxy.names import UnsafeName, checked
from anycastlb.core.model import Address, HttpServerKey, ServerState

PAYLOAD = 8192
"""Bytes of a payload: with the command it has to fit into one buffer of HAProxy, which is 16 kB at least."""


@dataclass(frozen=True, slots=True)
class Command:
    text: str
    done: str = ""
    """A regular expression that the answer matches somewhere if the command was carried out; empty: no answer."""

    def refusal(self, answer: str) -> str:
        """HAProxy's own line, if the command was not carried out; else empty."""
        if not answer if not self.done else re.search(self.done, answer):
            return ""
        return " ".join(answer.split()) or "HAProxy gave no answer"


def escape(argument: str) -> str:
    """A text as one argument of a command."""
    return re.sub(r"[\\ ;\"'#<]", lambda match: "\\" + match[0], argument)


def is_data(key: str, value: str) -> bool:
    """Can a line of a map hold these? HAProxy ends a key at a space, takes ``#`` for a comment, and trims a value."""
    return bool(re.fullmatch(r"(?!#)[!-~]+", key) and re.fullmatch(r"[!-~](?:[ -~]*[!-~])?", value))


def _data(key: str, value: str = "-") -> None:
    if not is_data(key, value):
        raise UnsafeName(f"expected a key without spaces and a value of printable ASCII, not {key!r} and {value!r}")


def add_entries(path: Path, entries: Iterable[tuple[str, str]]) -> Iterator[Command]:
    """Keys must not be there yet: HAProxy would keep both. Raises ``UnsafeName``, as all that follow."""
    lines: list[str] = []
    size = 0
    for key, value in entries:
        _data(key, value)
        line = f"{key} {value}\n"
        if lines and size + len(line) > PAYLOAD:
            yield Command(f"add map {path} <<\n{''.join(lines)}")
            lines, size = [], 0
        lines.append(line)
        size += len(line)
    if lines:
        yield Command(f"add map {path} <<\n{''.join(lines)}")


def set_entry(path: Path, key: str, value: str) -> Command:
    _data(key, value)
    return Command(f"set map {path} {escape(key)} {escape(value)}")


def delete_entry(path: Path, key: str) -> Command:
    _data(key)
    return Command(f"del map {path} {escape(key)}")


def add_server(key: HttpServerKey, address: Address, port: int, weight: int, maxconn: int) -> Command:
    """The new server is in ``maint``."""
    bound = f" maxconn {maxconn:d}" if maxconn else ""
    where = f"[{address}]:{port:d}" if address.version == 6 else f"{address}:{port:d}"
    return Command(f"add server {_server(key)} {where} weight {weight:d}{bound}", "New server registered")


def set_address(key: HttpServerKey, address: Address, port: int) -> Command:
    return Command(f"set server {_server(key)} addr {address} port {port:d}", r"changed|no need to change")


def set_weight(key: HttpServerKey, weight: int) -> Command:
    return Command(f"set server {_server(key)} weight {weight:d}")


def set_maxconn(key: HttpServerKey, maxconn: int) -> Command:
    return Command(f"set maxconn server {_server(key)} {maxconn:d}")


def set_state(key: HttpServerKey, state: ServerState) -> Command:
    return Command(f"set server {_server(key)} state {state}")


def delete_server(key: HttpServerKey) -> Command:
    """Only from HAProxy 3.0 on: Debian's 2.6 ends if a request waits for its retry on that server."""
    return Command(f"del server {_server(key)}", "Server deleted")


def _server(key: HttpServerKey) -> str:
    return f"{checked(key.section)}/{checked(key.server)}"


def new_certificate(path: Path) -> Command:
    return Command(f"new ssl cert {path}", "New empty certificate store")


def write_certificate(path: Path, pem: str) -> Iterator[Command]:
    """Put a certificate, with its chain and its key, where one is."""
    lines = "".join(f"{line.strip()}\n" for line in pem.splitlines() if line.strip())
    yield Command(f"set ssl cert {path} <<\n{lines}", "Transaction (created|updated)")
    yield Command(f"commit ssl cert {path}", "Success")


def delete_certificate(path: Path) -> Command:
    return Command(f"del ssl cert {path}", "deleted!")


def list_certificate(certificates: Path, path: Path) -> Command:
    """Let a gateway, by the list of its certificates, use one."""
    return Command(f"add ssl crt-list {certificates} {path}", "Success")


def unlist_certificate(certificates: Path, path: Path) -> Command:
    return Command(f"del ssl crt-list {certificates} {path}", "deleted in crtlist")
