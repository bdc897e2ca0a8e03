"""How soon the machine is looked at again after a cycle that did not end well, and what counts as refused."""

from __future__ import annotations

from collections.abc import Sequence

from anycastlb.core.decision.basis import refusals
from anycastlb.core.model import Failure
from anycastlb.engine.outcomes import OUTDATED, UNKNOWN, lasting
from anycastlb.engine.sight import Sight

PAUSES = (0.2, 0.5, 1.0)
"""Seconds to the next looks after one that failed, or whose picture of the machine was wrong."""


class Retries:
    """``resync``: seconds to the next look after a cycle that ended well."""

    def __init__(self, sight: Sight, resync: float) -> None:
        self._sight, self._resync = sight, resync
        self._retries = 0
        """Cycles in a row that must be followed by another soon."""
        self._unknown = 0
        """Cycles in a row of which it is not known what some writes have done."""

    @property
    def due(self) -> bool:
        """Does this cycle follow one that did not end well? Then the machine may not be as it was last known."""
        return self._retries > 0

    def judge(self, failures: Sequence[Failure]) -> tuple[Failure, ...]:
        """Which failures of a cycle are refusals, that a decision depends on. The others ask for another look, soon."""
        passing = OUTDATED if self._unknown >= len(PAUSES) else OUTDATED | UNKNOWN
        codes = {failure.reason.code for failure in failures}
        self._unknown = 0 if codes.isdisjoint(UNKNOWN) else self._unknown + 1
        self._retries = 0 if codes.isdisjoint(OUTDATED | UNKNOWN) else self._retries + 1
        return refusals(lasting(failures, passing))

    def pause(self) -> float:
        """Seconds to the next look, if nothing happens before."""
        if self._sight.blind:
            return PAUSES[min(self._sight.blind_looks, len(PAUSES)) - 1]
        if self._sight.undecided:
            return PAUSES[-1]
        if 0 < self._retries <= len(PAUSES):
            return min(PAUSES[self._retries - 1], self._resync)
        return self._resync
