"""How many VIPs the cluster may still withdraw by health: the damage limit ``[cluster] max_withdrawals``.

Pure. A VIP counts once, whichever nodes withdrew it, for one minute from the last withdrawal. Nodes publish the
wall-clock time of their withdrawals, so clocks that are far apart make the minute longer or shorter. Two nodes that
decide at the same moment do not know of each other's withdrawal yet: together they may exceed the limit by that much,
until their statuses have arrived.

Decision record: docs/decisions/0009-believing-the-other-nodes.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from anycastlb.core.model import EMPTY, Address, Gate, Share, Status

WINDOW = 60.0
"""Seconds a withdrawal counts."""


@dataclass(frozen=True, slots=True)
class WithdrawalBudget:
    """The withdrawals of the last minute, and how many there may be."""

    limit: int | None
    """In VIPs; None: there is always room, and nothing is counted."""
    now_wall: float
    withdrawn: Mapping[Address, float] = field(default_factory=lambda: EMPTY)
    """The VIPs that count, with the wall-clock time of the last withdrawal of each."""

    @property
    def spent(self) -> int:
        """How many VIPs count now."""
        return len(self.withdrawn)

    def allows(self, vip: Address) -> bool:
        """May this VIP be withdrawn now?"""
        return self.limit is None or vip in self.withdrawn or self.spent < self.limit

    def spend(self, vip: Address) -> WithdrawalBudget:
        """The budget after this VIP was withdrawn."""
        if self.limit is None:
            return self
        return replace(self, withdrawn={**self.withdrawn, vip: self.now_wall})

    @property
    def wait(self) -> float:
        """Seconds until a withdrawal counts no more; 0 if none counts."""
        if not self.withdrawn:
            return 0.0
        return min(self.withdrawn.values()) + WINDOW - self.now_wall


def withdrawal_budget(
    limit: Share | None, vips: int, gates: Mapping[Address, Gate], statuses: Iterable[Status], now_wall: float
) -> WithdrawalBudget:
    """The budget at the start of a decision about ``vips`` VIPs.

    ``gates`` are this node's own; ``statuses`` are those of the other nodes, as far as they are known.
    """
    if limit is None:
        return WithdrawalBudget(None, now_wall)
    own = [(vip, gate.withdrawn_wall) for vip, gate in gates.items()]
    others = [item for status in statuses for item in status.withdrawn.items()]
    withdrawn: dict[Address, float] = {}
    for vip, at in (*own, *others):
        if abs(now_wall - at) < WINDOW:
            withdrawn[vip] = max(at, withdrawn.get(vip, at))
    return WithdrawalBudget(limit.of(vips), now_wall, withdrawn)
