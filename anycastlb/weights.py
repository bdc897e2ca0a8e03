"""Which weight a backend gets in the kernel, and when that next changes.

The kernel's ``mh`` table stays sound and equal on all nodes only with few, small weights (a 99 beside a 100 moves 9 %
of all flows and can leave backends without a slot), so nominal weights are rounded to tenths of the largest in their
service, and a ramp moves in tenths of the nominal weight.
"""

from __future__ import annotations

from collections.abc import Sequence


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


def ramp(weight: int, age: float, slow_start: float) -> tuple[int, float | None]:
    """Slow start: the weight at ``age`` seconds after coming up, and the age of its next step (None = at the top).

    Linear in tenths: the first at once, the last after nine tenths of the time. Never 0, monotone.
    """
    if age >= slow_start or weight <= 1:
        return weight, None
    tenths = int(10 * age / slow_start) + 1
    if tenths >= 10:
        return weight, None
    return max(1, weight * tenths // 10), slow_start * tenths / 10
