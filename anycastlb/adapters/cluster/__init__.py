"""The nodes of a cluster: each publishes its status under a Consul session and follows those of the others.

A registry is the place where they do it: it reads and writes whole statuses as bytes, interprets nothing and never
retries. ``members`` retries, and ``status_document`` says what the bytes mean. A node that loses the registry loses
only its view of the others: it serves alone as it serves among others (docs/decisions/0009).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from anycastlb.core.model import EMPTY, SourceError


class Denied(SourceError):
    """The registry may be read, but what this node publishes is refused, as not allowed or as too large; the text says
    what to do."""


@dataclass(frozen=True, slots=True)
class Posted:
    """What stands under one node's name."""

    value: bytes
    session: str
    """The session that holds it; empty if none does."""


@dataclass(frozen=True, slots=True)
class Membership:
    """Everything that is published, of one consistent read."""

    entries: Mapping[str, Posted] = field(default_factory=lambda: EMPTY)
    """By node name, which may be garbage like the value."""
    index: int = 0


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this node is among the others."""

    node: str
    instance: str = ""
    """Tells this installation from another node that bears the same name by mistake (``instance.instance``)."""
    started: str = ""
    """When the process began, as RFC 3339 text (``status_document.moment``), which sorts by time."""


@dataclass(frozen=True, slots=True)
class Alone:
    """There is no registry, and so there are no other nodes."""

    why: str


class Registry(Protocol):
    """All of it may be cancelled at any await, and raises ``SourceError`` when nobody answers."""

    ttl: float
    """Seconds after which a session that is not renewed ends, at the earliest; at twice that it has ended."""

    async def read(self, after: Membership | None) -> Membership:
        """Wait until something else is published than ``after`` says; None: what is published now, as surely as can be
        known."""
        ...

    async def begin(self, node: str) -> str:
        """A new session. Raises ``Denied``."""
        ...

    async def renew(self, session: str) -> bool:
        """Let it live on; False if it has ended already."""
        ...

    async def write(self, node: str, value: bytes, session: str) -> bool:
        """Publish under this session; False if another session holds the name. Raises ``Denied``."""
        ...

    async def end(self, session: str) -> None:
        """End it, and what it holds vanishes at once."""
        ...

    async def close(self) -> None:
        """Let go of every socket; sessions live on. A later call opens them again."""
        ...
