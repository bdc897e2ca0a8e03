"""A check of type ``none``: nobody is asked, so what it finds is known at once and for ever."""

from __future__ import annotations

from anycastlb.adapters.checks.none import FOUND
from anycastlb.core.model import Check, Result
from anycastlb.engine.attempt import Attempt
from anycastlb.engine.verdicts import Course, Verdicts

TYPE = "none"


class Unchecked:
    """It costs nothing once it is made."""

    __slots__ = ()

    def __init__(self, check: Check, verdicts: Verdicts, now: float) -> None:
        verdicts.conclude(Course(check), Attempt("good", Result(True, FOUND.detail, 0.0, now)))

    def cancel(self) -> None:
        """There is nothing to end."""
