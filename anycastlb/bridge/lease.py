"""The daemon's lease on its routes: every valid message renews it for ``hold`` seconds, and when it has run out nothing
is wanted any more.

No clock: ``now`` is an argument, in seconds of any monotonic clock.
"""

from __future__ import annotations

LAST_HEARTBEAT = 1.0
"""Seconds between two heartbeats of a daemon that lives."""


class Lease:
    """``hold``: seconds that the routes outlive the daemon's last message. It begins when the bridge starts."""

    def __init__(self, hold: float, now: float) -> None:
        self.hold = hold
        self.expired = False
        self._ends_at = now + hold
        self._proven = False
        """Has a valid message come over the present connection?"""

    def connected(self) -> None:
        """A connection to the daemon was made, which proves nothing yet."""
        self._proven = False

    def disconnected(self, now: float) -> None:
        """The connection has ended. The daemon lived until now, if it was heard within the last second."""
        if self._proven:
            self._ends_at = min(now + self.hold, self._ends_at + LAST_HEARTBEAT)
        self._proven = False

    def renew(self, now: float) -> bool:
        """A valid message has come. True if the lease had run out before."""
        was_expired, self.expired = self.expired, False
        self._proven, self._ends_at = True, now + self.hold
        return was_expired

    def tick(self, now: float) -> bool:
        """Let time pass. True at the moment the lease runs out."""
        if self.expired or now < self._ends_at:
            return False
        self.expired = True
        return True
