"""The arithmetic behind a verdict, in words: what a weight is made of, what a threshold asks for, what damping adds up.

Pure, and it decides nothing: the parts are those the decision left.
"""

from __future__ import annotations

from anycastlb.core.model import Announce, Damping, Gate, Verdict, Weights


def explain_weight(parts: Weights, configured: int, effective: int) -> str:
    """``100 × health 50% × slow start 30% = 10``; empty where there is nothing to work out."""
    if not effective:
        return ""  # the reason says which part is 0
    factors = [_base(parts, configured)]
    factors += [f"health {parts.health:.0%}"] if parts.health < 1 else []
    factors += [f"slow start {parts.ramp:.0%}"] if parts.ramp < 1 else []
    if factors == [str(effective)] or (len(factors) == 1 and parts.admin is not None):
        return ""
    base = parts.nominal if parts.admin is None else parts.admin
    exact = abs(base * parts.health * parts.ramp - effective) < 1e-6
    return f"{' × '.join(factors)} {'=' if exact else '≈'} {effective}"


def _base(parts: Weights, configured: int) -> str:
    if parts.admin is not None:
        return f"{parts.admin}, set instead of {configured},"
    return str(configured) if parts.nominal == configured else f"{parts.nominal}, rounded from {configured},"


def explain_threshold(announce: Announce) -> str:
    """What it takes to open and to stay open, where that is not the same."""
    if announce.reopen is None:
        return ""
    return f"min_backends {announce.min_backends} to stay open, {announce.reopen} to reopen"


def explain_penalty(verdict: Verdict, gate: Gate | None, damping: Damping | None) -> str:
    """The figure of merit beside its limits; empty while there is none."""
    if damping is None or verdict.penalty < 1:
        return ""
    if gate is not None and gate.suppressed_since is not None:
        return f"the penalty is halved every {damping.half_life:g} s; it holds for at most {damping.longest:g} s"
    text = f"damping penalty {verdict.penalty:.0f}, halved every {damping.half_life:g} s"
    return f"{text}: suppressed above {damping.suppress:g}"
