"""May this VIP be announced? With hysteresis, and always with a reason.

Theory of operation
-------------------

*State.* A gate (``Gate``) is open or closed. It remembers since when (``since``), since when its VIP could be served
without a break (``ready_since``; None while it cannot be), and what damping needs: a penalty with its moment, and
since when it is suppressed.

*What moves it.* Every decision calls ``step`` once with ``ready``: can the VIP be served now, all in all?

* Open and ready: it stays open.
* Not ready: it closes at once. Hysteresis never keeps a VIP announced that cannot be served.
* Closed and ready: it opens when nothing holds it any more. It waits for the latest of these moments: it was ready
  for ``hold_up`` without a break; it was closed for ``hold_down``; every backend was checked once; the backends that
  come back together had time to come up together; the backends that peers reach are up here too; and it is not
  damped. The reason names the moment that is the latest.

*Damping* is RFC 2439, section 4.2. Each closing because of health adds ``penalty``, and the sum halves every
``half_life``. Once it exceeds ``suppress``, the gate stays closed until the sum has fallen below ``reuse``, but never
longer than ``longest``, since the sum has a ceiling that takes exactly that long to decay. An operator who drains the
node is no flap (``blame``).

*Why it is safe.* Closing needs no memory and no time, so a lost or late decision can only keep a VIP closed for
longer. Opening is a pure function of moments that are remembered, so a gate that waits knows when it will open, and
the caller decides again then. Deciding twice at one moment changes nothing.

Decision record: docs/decisions/0003-pools-and-gates.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from anycastlb.core.model import Announce, Damping, Gate, Reason, ServiceVerdict, Share

NEVER = float("-inf")

WAITS: Mapping[str, str] = {
    "hold_up": "hold_up",
    "hold_down": "hold_down",
    "unsettled": "some backends are not checked yet",
    "returning": "some backends may come up with the others",
    "catching_up": "some backends that peers reach are not up here yet",
}
"""What a gate that is ready may wait for: the code and the words of the reason."""


def enough(threshold: Share, up: int, total: int, up_weight: int, total_weight: int) -> tuple[bool, int, str]:
    """Is the threshold met; the number it takes; and the arithmetic in words."""
    if threshold.weight is not None:
        met, needed = up_weight >= threshold.weight, threshold.weight
        words = f"{up}/{total} backends up, weight {up_weight}/{total_weight}"
    else:
        needed = threshold.of(total)
        met, words = up >= needed, f"{up}/{total} backends up"
    return met, needed, words if met else f"{words}, needs {needed}"


def combine(services: Sequence[tuple[Announce, ServiceVerdict]], replaced: bool = False) -> tuple[bool, Reason]:
    """Can the VIP be served: every service that says ``all`` must be, and at least one service.

    A service that is proving (which only one of an announced VIP is) blocks nothing; and it serves, if some of its
    backends do, or if what it replaces serves on (``replaced``).
    """
    blocked = [v for announce, v in services if announce.when == "all" and not v.open and not v.proving]
    serving = any(v.open or (v.proving and (v.up or replaced)) for _, v in services)
    if blocked or not serving:
        named = blocked or [v for _, v in services]
        return False, _united(named, len(services) > 1)
    reason = _united([v for _, v in services], len(services) > 1)
    if any(v.proving for _, v in services):
        reason = reason.also("stays open until its new backends are checked", "proving")
    return True, reason


def _united(verdicts: Sequence[ServiceVerdict], by_name: bool) -> Reason:
    """One reason of those of several services; the first one gives it its code."""
    first = verdicts[0]
    if not by_name:
        return first.reason
    return Reason(first.reason.code, "; ".join(f"{v.service}: {v.reason}" for v in verdicts), first.service)


def penalty(gate: Gate, damping: Damping | None, now: float) -> float:
    """The figure of merit now: halved every ``half_life`` since it was written down."""
    if damping is None:
        return 0.0
    left = gate.penalty * 0.5 ** _halvings(now - gate.penalty_at, damping)
    return left if left >= NEGLIGIBLE else 0.0


NEGLIGIBLE = 0.001
"""A penalty below this is none, so that a gate is at rest some time after it has flapped."""
HALVINGS = 1000.0
"""Halvings after which any penalty is nothing, and about the most that a float can tell."""


def _halvings(seconds: float, damping: Damping) -> float:
    """How often a penalty halves in so many seconds, for any half-life: never so often that a power overflows."""
    return (
        min(max(0.0, seconds), HALVINGS * damping.half_life) / damping.half_life if damping.half_life > 0 else HALVINGS
    )


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """What the services of a VIP ask of its gate."""

    hold_up: float = 0.0
    hold_down: float = 0.0
    damping: Damping | None = None


@dataclass(frozen=True, slots=True)
class GateFacts:
    """What a gate goes by at this moment."""

    ready: bool
    """Can the VIP be served now, all in all?"""
    reason: Reason
    unsettled: float = 0.0
    """Seconds until the backends that were not checked yet must have been. A node that announced before would send
    their flows elsewhere, unlike its peers."""
    returning: float = 0.0
    """Seconds until the backends that are down must have followed those that came up, if they do."""
    catching_up: float = NEVER
    """Until when the gate waits for the backends that the peers reach and this node does not yet."""
    blame: bool = True
    """A closing counts as a flap. It does not when the node is drained or stops."""
    withdrawn_wall: int | None = None
    """The wall-clock second of a closing that the cluster's budget has counted."""


def step(gate: Gate | None, policy: GatePolicy, facts: GateFacts, now: float) -> tuple[Gate, Reason, float | None]:
    """The gate after this look, the reason, and when it opens by the mere passing of time (None = it does not)."""
    gate = gate or Gate(open=False, since=NEVER)
    if gate.penalty:
        gate = replace(gate, penalty=penalty(gate, policy.damping, now), penalty_at=now)
    if facts.withdrawn_wall is not None:
        gate = replace(gate, withdrawn_wall=facts.withdrawn_wall)
    if not facts.ready:
        if gate.open and policy.damping is not None and facts.blame:
            gate = _flapped(gate, policy.damping, now)
        return replace(gate, open=False, since=now if gate.open else gate.since, ready_since=None), facts.reason, None
    ready_since = now if gate.ready_since is None else gate.ready_since
    gate = replace(gate, ready_since=ready_since)
    if gate.open:
        return gate, facts.reason, None
    code, words, at = _longest_wait(gate, ready_since, policy, facts, now)
    if now >= at:
        return replace(gate, open=True, since=now, suppressed_since=None), facts.reason, None
    return gate, facts.reason.also(f"{words}: opens in {at - now:.1f} s", code), at


def _longest_wait(
    gate: Gate, ready_since: float, policy: GatePolicy, facts: GateFacts, now: float
) -> tuple[str, str, float]:
    """What a closed gate that is ready waits for the longest: the code and the words of the reason, and until when."""
    waits = {
        "hold_up": ready_since + policy.hold_up,
        "hold_down": gate.since + policy.hold_down,
        "unsettled": ready_since + facts.unsettled,
        "returning": ready_since + facts.returning,
        "catching_up": facts.catching_up,
    }
    words = WAITS
    if policy.damping is not None and gate.suppressed_since is not None:
        waits["damped"] = _reusable_at(gate.penalty, gate.suppressed_since, policy.damping, now)
        words = {**WAITS, "damped": f"damped: penalty {gate.penalty:.0f}, reuse {policy.damping.reuse:.0f}"}
    code = max(waits, key=lambda name: waits[name])
    return code, words[code], waits[code]


def _flapped(gate: Gate, damping: Damping, now: float) -> Gate:
    # A penalty never needs longer than 'longest' to fall below 'reuse' (RFC 2439, 4.2: the ceiling).
    ceiling = damping.reuse * 2.0 ** _halvings(damping.longest, damping)
    total = min(gate.penalty + damping.penalty, ceiling)
    suppressed = gate.suppressed_since
    if suppressed is None and total > damping.suppress:
        suppressed = now
    return replace(gate, penalty=total, penalty_at=now, suppressed_since=suppressed)


def _reusable_at(penalty: float, suppressed_since: float, damping: Damping, now: float) -> float:
    """When a suppressed gate has decayed to ``reuse``."""
    if penalty <= damping.reuse:
        return now
    latest = suppressed_since + damping.longest
    if damping.reuse <= 0:
        return latest
    return min(now + damping.half_life * (math.log2(penalty) - math.log2(damping.reuse)), latest)
