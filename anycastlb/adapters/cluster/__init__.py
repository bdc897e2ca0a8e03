"""The nodes of a cluster: each publishes its status under a Consul session and follows those of the others.

A registry is the place where they do it: it writes and reads whole statuses as bytes, believes what it is told and
never retries. ``members`` does, and ``status`` says what the bytes mean. Losing the registry costs only the view: a
node serves alone as it serves among others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from anycastlb.core.model import EMPTY, SourceError


class Denied(SourceError):
    """The registry may be read, but what this node publishes is refused; the text names what is missing."""


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
