"""The daemon's lease on its routes: every valid message renews it for ``hold`` seconds, and when it has run out nothing
is wanted any more.

*A daemon that dies again and again* gives a proof of life in each of its lives, and lives too short for its checks to
find a backend dead: its routes would stay up for ever, whatever they lead to. So after ``SHORT_LIVES`` connections in a
row that did not last for ``STEADY`` seconds, the next ones are on trial: their messages renew nothing before they have
lasted so long. One restart, or a few, cost nothing.

No clock: ``now`` is an argument, in seconds of any monotonic clock.
"""

from __future__ import annotations

LAST_HEARTBEAT = 1.0
"""Seconds between two heartbeats of a daemon that lives."""
STEADY = 10.0
"""Seconds of a connection after which its daemon is believed to live on."""
SHORT_LIVES = 10
"""Connections in a row, shorter than that, after which the next one is on trial."""


class Lease:
    """``hold``: seconds that the routes outlive the daemon's last message. It begins when the bridge starts."""

    def __init__(self, hold: float, now: float) -> None:
        self.hold = hold
        self.expired = False
        self._ends_at = now + hold
        self._proven = False
        """Has a valid message come over the present connection?"""
        self._short_lives = 0
        self._steady_at = now
        """When the present connection will have lasted long enough."""
        self._heard_at = now

    @property
    def on_trial(self) -> bool:
        """Do messages count for nothing, because the daemon has died again and again?"""
        return self._short_lives >= SHORT_LIVES

    def connected(self, now: float) -> None:
        """A connection to the daemon was made, which proves nothing yet."""
        self._proven = False
        self._heard_at, self._steady_at = now, now + STEADY

    def disconnected(self, now: float) -> None:
        """The connection has ended. The daemon lived until now, if it was heard within the last second."""
        if self._proven and not self.on_trial:
            self._ends_at = min(now + self.hold, self._ends_at + LAST_HEARTBEAT)
        if self._proven and now < self._steady_at:
            self._short_lives += 1
        self._proven = False

    def renew(self, now: float) -> bool:
        """A valid message has come. True if it ends a time in which the lease had run out."""
        if self.on_trial and now - self._heard_at >= self.hold:
            self._steady_at = now + STEADY  # a life with a silence in it is none
        self._proven, self._heard_at = True, now
        if now >= self._steady_at:
            self._short_lives = 0
        if self.on_trial:
            return False
        was_expired, self.expired = self.expired, False
        self._ends_at = now + self.hold
        return was_expired

    def tick(self, now: float) -> bool:
        """Let time pass. True at the moment the lease runs out."""
        if self.expired or now < self._ends_at:
            return False
        self.expired = True
        return True
