"""Which weight a backend gets in the kernel, and when that next changes.

The kernel's ``mh`` table stays sound and equal on all nodes only with few, small weights: a 99 beside a 100 moves 9 %
of all flows, and can leave backends without a slot. So nominal weights are rounded to tenths of the largest in their
service, and a ramp moves in tenths of the nominal weight.

Pure. Decision record: docs/decisions/0003-pools-and-gates.md.
"""

from __future__ import annotations

from collections.abc import Sequence

from anycastlb.core.model import Weights

EPSILON = 1e-9
"""Tenths are exact; their products as floats are not."""


def quantise(nominal: Sequence[int], scheduler: str) -> list[int]:
    """Nominal weights as they go to the kernel: for ``mh`` in tenths of the largest, never to 0; 0 stays 0."""
    largest = max(nominal, default=0)
    if scheduler != "mh" or largest <= 10:
        return list(nominal)
    unit = round(largest / 10)
    return [max(1, round(weight / unit)) * unit if weight else 0 for weight in nominal]


def standing(weights: Sequence[int]) -> int:
    """The table weight of a backend that was configured with weight 0: as if it had the largest of its service.

    It must not depend on history: two nodes, one of which saw the backend live, must build the same table.
    """
    return max(weights, default=0) or 1


def ramp(age: float, slow_start: float) -> tuple[float, float | None]:
    """Slow start: the share of the weight at ``age`` seconds after coming up, and the age of its next step.

    Linear in tenths: the first at once, the last after nine tenths of the time (then the step is None).
    """
    if age >= slow_start:
        return 1.0, None
    tenths = int(10 * age / slow_start) + 1
    return (1.0, None) if tenths >= 10 else (tenths / 10, slow_start * tenths / 10)


def earned(good: float, count: int) -> float:
    """Slow start by history: the share of good results in the record, in tenths, never 0."""
    return max(1, int(10 * good / count + EPSILON)) / 10 if count else 1.0


def asked(percent: int) -> float:
    """The share a backend asked for, in tenths; only a plain 0 is 0."""
    return 0.0 if percent <= 0 else min(10, max(1, round(percent / 10))) / 10


def effective(weights: Weights) -> int:
    """The weight new flows are spread by: in tenths of the nominal (or the operator's) one, and 0 only if one is 0."""
    base = weights.nominal if weights.admin is None else weights.admin
    if not base or not weights.nominal or not weights.health:
        return 0
    tenths = max(1, int(10 * weights.health * weights.ramp + EPSILON))
    return max(1, base * tenths // 10)
