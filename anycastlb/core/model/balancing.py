"""What HAProxy needs to know of a pool: how its backends share the requests, and what counts against one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Balancing:
    """How HAProxy spreads requests over the backends of a pool."""

    algorithm: str = "roundrobin"
    """``roundrobin``, ``leastconn``, ``random``, ``source``, ``uri`` or ``hdr(name)``."""
    cookie: str = ""
    """The cookie that keeps a client on its backend; empty: there is none."""


@dataclass(frozen=True, slots=True)
class Passive:
    """When the requests of clients count as evidence against a backend."""

    max_fails: int
    """Requests that failed, within ``fail_timeout`` seconds."""
    fail_timeout: float = 10.0
