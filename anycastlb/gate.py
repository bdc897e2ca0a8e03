"""May this VIP be announced? With hysteresis in time, and always with a reason.

A gate closes at once when its VIP cannot be served. It opens when the VIP could be served for ``hold_up`` without a
break, and not before it was closed for ``hold_down``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from anycastlb.model import Announce, Gate, ServiceVerdict

NEVER = float("-inf")


def combine(services: Sequence[tuple[Announce, ServiceVerdict]]) -> tuple[bool, str]:
    """Can the VIP be served: every service that says ``all`` must be, and at least one service."""
    blocked = [v for announce, v in services if announce.when == "all" and not v.open]
    if blocked or not any(v.open for _, v in services):
        named = blocked or [v for _, v in services]
        return False, _told(named, len(services) > 1)
    return True, _told([v for _, v in services], len(services) > 1)


def _told(verdicts: Sequence[ServiceVerdict], by_name: bool) -> str:
    return "; ".join(f"{v.service}: {v.reason}" if by_name else v.reason for v in verdicts)


def step(
    gate: Gate | None, ready: bool, reason: str, hold_up: float, hold_down: float, now: float
) -> tuple[Gate, str, float | None]:
    """The gate after this look, the reason, and when it opens by the mere passing of time (None = it does not)."""
    gate = gate or Gate(open=False, since=NEVER)
    if not ready:
        return Gate(False, now if gate.open else gate.since, None), reason, None
    if gate.open:
        return replace(gate, ready_since=now if gate.ready_since is None else gate.ready_since), reason, None
    ready_since = now if gate.ready_since is None else gate.ready_since
    up_at, down_at = ready_since + hold_up, gate.since + hold_down
    if now >= up_at and now >= down_at:
        return Gate(True, now, ready_since), reason, None
    wait, name = (up_at, "hold_up") if up_at >= down_at else (down_at, "hold_down")
    return Gate(False, gate.since, ready_since), f"{reason}; {name}: opens in {wait - now:.1f} s", wait
