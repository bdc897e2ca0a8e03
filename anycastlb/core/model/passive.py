"""What the requests of clients say of the backends of pools: HAProxy's counters, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from anycastlb.core.model.http_memory import Endpoint


class TryCounters(NamedTuple):
    """How the requests that one server of HAProxy was tried with have ended. Nothing that a client broke off is here.

    Each counter grows until HAProxy is reloaded or started anew.
    """

    good: int = 0
    """Answers below 500."""
    errors: int = 0
    """Answers from 500 on that went to the client."""
    unanswered: int = 0
    """No answer, or none that could be read. HAProxy 3.0 counts twice what it did not repeat."""
    refused: int = 0
    """No connection, and no other try."""
    retried: int = 0
    """Failed tries after which the request was sent again."""
    redispatched: int = 0
    """Those of them after which it was sent to another server, and some that ``retried`` lacks."""


Tries: TypeAlias = Mapping[tuple[str, Endpoint], TryCounters]
"""By section and server."""


@dataclass(frozen=True, slots=True)
class PassiveFailure:
    """A backend has failed so many requests of clients that it is not to get any more for a while."""

    at: float
    until: float
    what: str
    """What was counted: ``4 of 9 requests failed within 10 s``."""


PassiveFailures: TypeAlias = Mapping[str, Mapping[Endpoint, PassiveFailure]]
"""By the name of the pool. A pool without any is missing."""
