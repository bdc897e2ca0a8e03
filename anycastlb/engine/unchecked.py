"""A check of type ``none``: nobody is asked, so what it finds is known at once and for ever."""

from __future__ import annotations

from anycastlb.adapters.checks.none import FOUND
from anycastlb.core.decision import health
from anycastlb.core.model import Check, CheckState, Result
from anycastlb.engine.verdicts import Verdicts

TYPE = "none"


def known(now: float) -> CheckState:
    """What is known from now on of each check that begins now: one object for all of them."""
    return health.step(health.UNKNOWN, Result(True, FOUND.detail, 0.0, now), 1, 1)


class Unchecked:
    """It costs nothing once it is made."""

    __slots__ = ()

    def __init__(self, check: Check, verdicts: Verdicts, state: CheckState) -> None:
        verdicts.settle(check, state)

    def cancel(self) -> None:
        """There is nothing to end."""
