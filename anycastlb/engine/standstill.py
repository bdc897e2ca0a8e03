"""After a standstill nothing is announced by what the checks had found before it.

A daemon that was frozen for longer than ``hold``, or whose machine was paused, has no routes any more: the BGP bridge
has withdrawn them. When it runs again, what its checks have found is as old as the standstill was long, and a backend
may have died meanwhile. So it gives no proof of life and announces nothing, until the checks have been answered again.
"""

from __future__ import annotations

from anycastlb.adapters.system.clock import Clock
from anycastlb.core.model import Check, CheckState, Reason
from anycastlb.engine import unchecked
from anycastlb.engine.inbox import Inbox

LONGEST = 10.0
"""Seconds that the routes wait for the checks, at most: one target that hangs must not keep all others away."""
PUBLISHED = 1.0
"""Seconds until a result that turns no verdict is published, at most."""


class Standstill:
    """Whether this node stood still for longer than ``hold``, and may not speak yet.

    It is asked about every second while the node runs, blind or not: a standstill is a long time in which nobody asked.
    """

    def __init__(self, inbox: Inbox, hold: float, clock: Clock) -> None:
        self._inbox, self._hold, self._clock = inbox, hold, clock.monotonic
        self._asked = self._clock()
        self._ended: tuple[float, float] | None = None
        """When the last standstill ended, and how long it was; None once it is over for the routes too."""

    def reason(self) -> Reason | None:
        """Why no route may be announced yet; None if it may."""
        now, before = self._clock(), self._asked
        self._asked = now
        if now - before > self._hold:
            self._ended = now, now - before
        if self._ended is None:
            return None
        ended, length = self._ended
        if now - ended > LONGEST or not any(owes(*one, now) for one in self._inbox.inputs.health.items()):
            self._ended = None
            return None
        text = f"this node stood still for {length:.0f} s, and its checks are not answered again yet"
        return Reason("stood_still", text)


def owes(check: Check, state: CheckState, now: float) -> bool:
    """Is the verdict that a backend is up older than the checks allow, or does the last answer contradict it?"""
    if not state.up or state.last is None or check.type == unchecked.TYPE:
        return False
    return state.streak > 0 or now - state.last.at > check.interval + check.timeout + PUBLISHED
