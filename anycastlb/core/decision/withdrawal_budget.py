"""How many VIPs the cluster may still withdraw by health: the damage limit, ``[cluster] max_withdrawals``.

Pure. A VIP counts once, whichever nodes withdrew it, for a minute from the last time. Nodes tell each other when, in
wall-clock time; clocks that are far apart make the minute longer or shorter. What two nodes decide at the same moment
neither knows of the other: the limit may be passed by as much, until their statuses have met.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from anycastlb.core.model import Address, Gate, Share, Status

WINDOW = 60.0
"""Seconds a withdrawal counts."""


class WithdrawalBudget:
    """What is left of it within one decision; ``now_wall`` is wall-clock time.

    ``statuses``: of the other nodes, as far as they are known. Without a ``limit`` there is always room.
    """

    def __init__(
        self,
        limit: Share | None,
        vips: int,
        gates: Mapping[Address, Gate],
        statuses: Iterable[Status],
        now_wall: float,
    ) -> None:
        self.most = None if limit is None else limit.of(vips)
        self._now = now_wall
        self._at: dict[Address, float] = {}
        """The withdrawals that count, and the last time of each."""
        if limit is not None:
            for vip, gate in gates.items():
                self._count(vip, gate.withdrawn_wall)
            for status in statuses:
                for vip, at in status.withdrawn.items():
                    self._count(vip, at)

    def _count(self, vip: Address, at: float) -> None:
        if abs(self._now - at) < WINDOW:
            self._at[vip] = max(at, self._at.get(vip, at))

    @property
    def spent(self) -> int:
        return len(self._at)

    def spend(self, vip: Address) -> bool:
        """May this VIP be withdrawn now? If so, it is counted."""
        if self.most is None or vip in self._at or len(self._at) < self.most:
            if self.most is not None:
                self._at[vip] = self._now
            return True
        return False

    @property
    def wait(self) -> float:
        """Seconds until a withdrawal counts no more; 0 if none counts."""
        return max(0.0, min(self._at.values()) + WINDOW - self._now) if self._at else 0.0
