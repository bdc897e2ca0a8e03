"""How the VIPs of a service or a gateway are announced: thresholds, damping, and what the route says in BGP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from anycastlb.core.model.machine import Route


@dataclass(frozen=True, slots=True)
class Share:
    """A number of things, a percentage of all of them, or a sum of their weights."""

    count: int = 0
    percent: float | None = None
    weight: int | None = None

    def of(self, total: int) -> int:
        """How many of ``total`` that is, rounded up, at least 1. Not for a weight."""
        if self.percent is None:
            return self.count
        return max(1, -int(-total * self.percent // 100))

    def __str__(self) -> str:
        if self.weight is not None:
            return f"weight {self.weight}"
        return str(self.count) if self.percent is None else f"{self.percent:g}%"


def most_failed(floor: Share, total: int) -> int:
    """How many of ``total`` backends may be taken out on health: rounded down."""
    return floor.count if floor.percent is None else int(total * floor.percent // 100)


@dataclass(frozen=True, slots=True)
class Damping:
    """RFC 2439: each withdrawal adds ``penalty``, which halves every ``half_life`` seconds; above ``suppress`` the
    route stays down until it has fallen below ``reuse``, and never longer than ``longest`` seconds."""

    penalty: float = 1000.0
    half_life: float = 60.0
    suppress: float = 2000.0
    reuse: float = 750.0
    longest: float = 600.0


@dataclass(frozen=True, slots=True)
class Announce:
    min_backends: Share = Share(1)
    reopen: Share | None = None
    """What it takes to open a gate that is closed; None = ``min_backends``."""
    when: Literal["any", "all"] = "any"
    fail: Literal["withdraw", "keep"] = "withdraw"
    fallback: Literal["withdraw", "keep"] = "keep"
    """What becomes of the route while only fallback backends serve."""
    last: Literal["withdraw", "keep"] = "withdraw"
    """What becomes of the cluster's last route when health would withdraw it."""
    damping: Damping | None = None
    hold_up: float = 0.0
    hold_down: float = 0.0
    route: Route = Route()
