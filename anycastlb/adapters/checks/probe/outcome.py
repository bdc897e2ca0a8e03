"""What a probe comes to: ``Found`` or ``Down``; and what a plain exchange over TCP is made of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from anycastlb.core.model import AnycastlbError, Check, ProbePath


@dataclass(frozen=True, slots=True)
class Found:
    """The target is healthy, and what was seen."""

    detail: str
    weight: int | None = None
    """The weight it asks for, in percent of its nominal weight (0 to 100; more is cut); None = it says nothing."""
    drain: bool = False
    """It asks for no new flows."""


class Down(AnycastlbError):
    """The target is not healthy; the text says what was found, and what was expected where that is not plain."""


Probe = Callable[[Check, ProbePath | None], Awaitable[Found]]


class Reader(Protocol):
    """Judges an answer as it comes. Both raise ``Down``."""

    def feed(self, data: bytes) -> Found | None:
        """What the answer means, as soon as enough of it has come."""

    def end(self) -> Found:
        """What it means that no more will come."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """What a plain probe sends once it is connected over TCP, and who reads the answer."""

    request: bytes
    reader: Callable[[], Reader] | None
    """Makes the reader of one answer; None if being connected is enough."""
    permit: Callable[[float], None] | None = None
    """Is called with monotonic seconds before each probe, and raises ``Down`` if it must not be made."""


Lean = Callable[[Check], Exchange | None]
