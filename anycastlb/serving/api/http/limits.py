"""How much a caller, a body and all requests together may use. This module only counts; it refuses nothing itself."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

KNOWN = 4096
"""Callers remembered. The one silent longest is forgotten first, and so has its full allowance again."""


@dataclass(frozen=True, slots=True)
class Body:
    """The limit of a body in bytes, and the seconds in which it must have arrived."""

    size: int = 512 * 1024
    """One document: Consul takes no larger value."""
    seconds: float = 10.0
    bulk: bool = False


ORDINARY = Body()
BULK = Body(8 * 1024 * 1024, 60.0, bulk=True)
BULK_AT_ONCE = 4
"""Bulk requests at the same time through one listener: so many large bodies are in memory."""
BULKS = frozenset(
    {
        ("PUT", "/v1/services"),
        ("DELETE", "/v1/services"),
        ("POST", "/v1/import"),
        ("POST", "/v1/plan"),
        ("POST", "/v1/export"),
    }
)
STREAMS = frozenset({"/v1/events"})


def body(method: str, path: str) -> Body:
    return BULK if (method, path) in BULKS else ORDINARY


def follows(method: str, path: str, accept: str) -> bool:
    """Is the answer a stream of events that does not end?"""
    return method == "GET" and path in STREAMS and "text/event-stream" in accept


class Allowance:
    """A token bucket for each caller: ``rate`` a second, and ``burst`` of them saved up."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str, now: float) -> float:
        """Take one token. Returns 0.0, or the seconds until there is one. ``now``: seconds of any clock."""
        left, at = self._left.pop(caller, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._rate)
        granted = left >= 1
        self._left[caller] = (left - 1 if granted else left, now)
        if len(self._left) > KNOWN:
            self._left.popitem(last=False)
        return 0.0 if granted else (1 - left) / self._rate


@dataclass(slots=True)
class Load:
    """The requests under way through one listener."""

    requests: int = 0
    bulk: int = 0
    streams: int = 0
