"""A fault of ours is contained: what goes wrong about one service or VIP is wrong for no other.

The steps of a decision are called one service or one VIP at a time, through ``Containment.of``. An exception that none
of us foresaw ends that call only. What it is about keeps the rows it had, its gate closes with a reason, and everything
else goes on. Nothing else in a decision catches exceptions it did not expect.

Decision record: docs/decisions/0011-decisions-as-a-pipeline-reasons-as-values.md.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath
from traceback import extract_tb
from typing import ParamSpec, TypeVar

from anycastlb.core.model import Reason

P = ParamSpec("P")
T = TypeVar("T")


class Containment:
    """The faults of one decision, by what they are about: a VIP, or a service's name."""

    def __init__(self) -> None:
        self.faults: dict[object, Reason] = {}

    def of(self, subject: object, step: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T | None:
        """What ``step`` returns; None if it failed, which is noted for ``subject``."""
        try:
            return step(*args, **kwargs)
        except Exception as exc:
            self.faults.setdefault(subject, internal_error(subject, exc))
            return None


def internal_error(subject: object, exc: Exception, so: str = "keeps what it had in the kernel") -> Reason:
    """What an operator reads of a fault of ours, and passes on. ``so``: what becomes of the subject."""
    frames = extract_tb(exc.__traceback__)
    where = f" in {PurePath(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    what = f"{type(exc).__name__}{where}: {exc}"
    text = f"internal error about {subject}, which {so}: {what}; please report it"
    return Reason("internal_error", text, str(subject))
