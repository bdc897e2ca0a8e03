"""How long to wait before the next attempt to reach something that fails: exponential back-off with jitter. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    first: float
    """Seconds before the second attempt; the wait doubles with every further failure."""
    longest: float
    """The wait never exceeds this, in seconds."""

    def delay(self, earlier: int, chance: float = 1.0) -> float:
        """Seconds to wait after a failure that ``earlier`` others preceded without a success in between.

        ``chance`` (0 to 1) takes up to half of the wait off, so that nodes that failed together do not return together.
        """
        return min(self.longest, self.first * 2.0 ** min(earlier, 32)) * (0.5 + chance / 2)
