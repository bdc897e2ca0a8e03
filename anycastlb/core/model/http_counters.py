"""What HAProxy has counted since it was started or reloaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from anycastlb.core.model.base import EMPTY
from anycastlb.core.model.http_rows import SiteKey


@dataclass(frozen=True, slots=True)
class SiteCounters:
    """Of the requests for one hostname of a gateway, as routes name it: all hosts below a wildcard are one."""

    requests: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    answers: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Of status 2xx, 3xx, 4xx and 5xx. What is missing to the requests got an error of HAProxy's own, or no answer."""


@dataclass(frozen=True, slots=True)
class PoolCounters:
    """Of the requests that a pool got."""

    requests: int = 0
    retries: int = 0
    """Tries that were repeated on the same server."""
    redispatches: int = 0
    """Tries that were repeated on another one."""
    connection_errors: int = 0
    response_errors: int = 0
    queued: int = 0
    """Requests that wait for a server now."""
    response_seconds: float = 0.0
    """The mean time of the last 1,024 answers."""


@dataclass(frozen=True, slots=True)
class HttpCounters:
    sites: Mapping[SiteKey, SiteCounters] = field(default_factory=lambda: EMPTY)
    pools: Mapping[str, PoolCounters] = field(default_factory=lambda: EMPTY)
    """By the name of the pool."""
