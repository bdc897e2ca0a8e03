"""The values that every other value is made of, and the roots of the error tree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network
Forward: TypeAlias = Literal["tunnel", "dr", "nat", "gue", "gre"]
Protocol: TypeAlias = Literal["tcp", "udp", "sctp", "fwmark"]

EMPTY: Mapping[Any, Any] = MappingProxyType({})
MARKS = (1_095_499_776, 1_095_565_311)
"""The firewall marks of probes through IPVS (low, high) unless configured: 0x414C0000 to 0x414CFFFF."""


class AnycastlbError(Exception):
    """Root of every error anycastlb raises on purpose; its text says what, which object and what to do."""


class SourceError(AnycastlbError):
    """The catalog source did not answer, or answered something that is no catalog."""


class Conflict(SourceError):
    """A write lost a race: somebody else changed the key in the meantime. Nothing was written."""


class DriverError(AnycastlbError):
    """The machine refused a whole operation (not one object of it: that is a ``Failure``)."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something is as it is: a code for programs, and a sentence for people.

    Programs, alerts and tests compare ``code``; nobody takes ``text`` apart.
    """

    code: str
    """A stable word in lower case with underscores (``backends_down``)."""
    text: str
    """What an operator reads, complete as it stands."""
    object: str = ""
    """The object it is about where that is not plain from the place (a backend, a service, a node), by its name."""

    def __str__(self) -> str:
        return self.text

    def also(self, clause: str, code: str = "") -> Reason:
        """This reason with one more clause. ``code`` is given where the clause decides, and not what stood before."""
        return Reason(code or self.code, f"{self.text}; {clause}", self.object)


NO_REASON = Reason("", "")
"""Where there is nothing to say."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something is wrong in a document: in which one, where in it, and what was expected."""

    key: str
    """The document: a catalog key (``services/web``) or a file name."""
    path: str
    """Where in the document, dotted (``backends.web1.weight``); empty for the whole document."""
    expected: str
    """What was expected, and what the document says instead."""
    line: int = 0
    """1-based line in the file, 0 when not known."""

    def __str__(self) -> str:
        where = f"{self.key}:{self.line}" if self.line else self.key
        return f"{where}: {self.path}: {self.expected}" if self.path else f"{where}: {self.expected}"


class SettingsError(AnycastlbError):
    """node.toml cannot be used; ``problems`` holds all of its problems."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def endpoint(address: Address, port: int) -> str:
    """``192.0.2.10:80`` or ``[2001:db8::1]:80``."""
    text = str(address)  # a format of an address asks for more than that, and is slow
    return f"[{text}]:{port}" if address.version == 6 else f"{text}:{port}"
