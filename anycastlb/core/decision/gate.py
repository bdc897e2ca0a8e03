"""May this VIP be announced? With hysteresis, and always with a reason.

A gate closes at once when its VIP cannot be served. It opens when the VIP could be served for ``hold_up`` without a
break, it was closed for ``hold_down``, all backends were checked once, and it is not damped: each withdrawal because of
health adds a penalty that halves every ``half_life``; once it exceeds ``suppress``, the gate stays closed until it has
fallen below ``reuse`` (RFC 2439, section 4.2), but never longer than ``longest``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from anycastlb.core.model import Announce, Damping, Gate, ServiceVerdict, Share

NEVER = float("-inf")


def enough(threshold: Share, up: int, total: int, up_weight: int, total_weight: int) -> tuple[bool, int, str]:
    """Is the threshold met; the number it takes; and the arithmetic in words."""
    if threshold.weight is not None:
        met, needed = up_weight >= threshold.weight, threshold.weight
        words = f"{up}/{total} backends up, weight {up_weight}/{total_weight}"
    else:
        needed = threshold.of(total)
        met, words = up >= needed, f"{up}/{total} backends up"
    return met, needed, words if met else f"{words}, needs {needed}"


def combine(services: Sequence[tuple[Announce, ServiceVerdict]]) -> tuple[bool, str]:
    """Can the VIP be served: every service that says ``all`` must be, and at least one service."""
    blocked = [v for announce, v in services if announce.when == "all" and not v.open]
    if blocked or not any(v.open for _, v in services):
        named = blocked or [v for _, v in services]
        return False, _reason_text(named, len(services) > 1)
    return True, _reason_text([v for _, v in services], len(services) > 1)


def _reason_text(verdicts: Sequence[ServiceVerdict], by_name: bool) -> str:
    return "; ".join(f"{v.service}: {v.reason}" if by_name else v.reason for v in verdicts)


def penalty(gate: Gate | None, damping: Damping | None, now: float) -> float:
    """The figure of merit now: halved every ``half_life`` since it was written down."""
    if gate is None or damping is None or not gate.penalty:
        return 0.0
    return float(gate.penalty * 0.5 ** ((now - gate.penalty_at) / damping.half_life))


def step(
    gate: Gate | None,
    ready: bool,
    reason: str,
    now: float,
    hold_up: float = 0.0,
    hold_down: float = 0.0,
    damping: Damping | None = None,
    unsettled: float = 0.0,
    returning: float = 0.0,
    blame: bool = True,
    catching_up: float = NEVER,
) -> tuple[Gate, str, float | None]:
    """The gate after this look, the reason, and when it opens by the mere passing of time (None = it does not).

    ``unsettled``: seconds until the backends that were not checked yet must have been; a node that announced before
    would send their flows elsewhere, unlike its peers. ``returning``: seconds until those that are down must have
    followed those that came up, if they do. ``blame``: a closing counts as a flap (not so when the node is
    drained or stops). ``catching_up``: until when it waits for the backends that its peers reach, and it does not yet.
    """
    gate = gate or Gate(open=False, since=NEVER)
    gate = replace(gate, penalty=penalty(gate, damping, now), penalty_at=now)
    if not ready:
        if gate.open and damping is not None and blame:
            gate = _flapped(gate, damping, now)
        return replace(gate, open=False, since=now if gate.open else gate.since, ready_since=None), reason, None
    ready_since = now if gate.ready_since is None else gate.ready_since
    gate = replace(gate, ready_since=ready_since)
    if gate.open:
        return gate, reason, None
    waits = {"hold_up": ready_since + hold_up, "hold_down": gate.since + hold_down}
    if unsettled:
        waits["some backends are not checked yet"] = ready_since + unsettled
    if returning:
        waits["some backends may come up with the others"] = ready_since + returning
    waits["some backends that peers reach are not up here yet"] = catching_up
    if damping is not None and gate.suppressed_since is not None:
        waits["damped"] = _reusable_at(gate, damping, now)
    cause = max(waits, key=lambda name: waits[name])
    at = waits[cause]
    if now >= at:
        return replace(gate, open=True, since=now, suppressed_since=None), reason, None
    if cause == "damped" and damping is not None:
        cause = f"damped: penalty {gate.penalty:.0f}, reuse {damping.reuse:.0f}"
    return gate, f"{reason}; {cause}: opens in {at - now:.1f} s", at


def _flapped(gate: Gate, damping: Damping, now: float) -> Gate:
    # A penalty never needs longer than 'longest' to fall below 'reuse' (RFC 2439, 4.2: the ceiling).
    ceiling = damping.reuse * 2.0 ** (damping.longest / damping.half_life)
    total = min(gate.penalty + damping.penalty, ceiling)
    suppressed = gate.suppressed_since
    if suppressed is None and total > damping.suppress:
        suppressed = now
    return replace(gate, penalty=total, suppressed_since=suppressed)


def _reusable_at(gate: Gate, damping: Damping, now: float) -> float:
    if gate.penalty <= damping.reuse or gate.suppressed_since is None:
        return now
    decayed = now + damping.half_life * math.log2(gate.penalty / damping.reuse)
    return min(decayed, gate.suppressed_since + damping.longest)
