"""Who counts what a node does. Nothing in the engine depends on what becomes of it."""

from __future__ import annotations

from typing import Protocol

from anycastlb.core.model import Snapshot


class Observer(Protocol):
    """Is called on the event loop; must return at once and raise nothing."""

    def observe_cycle(self, snapshot: Snapshot, duration: float) -> None:
        """A cycle of the reconciler has ended, after ``duration`` seconds."""

    def observe_result(self, type: str, outcome: str, seconds: float | None) -> None:
        """A check of this type has a result; ``seconds`` is None where no probe was sent."""

    def observe_read(self, outcome: str) -> None:
        """A read of the catalog's source has ended: ``changed``, ``unchanged`` or ``failed``."""

    def observe_correction(self) -> None:
        """A decision was not the one from scratch, which has taken its place."""


class Unobserved:
    """The observer of a node that nobody counts."""

    def observe_cycle(self, snapshot: Snapshot, duration: float) -> None: ...

    def observe_result(self, type: str, outcome: str, seconds: float | None) -> None: ...

    def observe_read(self, outcome: str) -> None: ...

    def observe_correction(self) -> None: ...


NOBODY = Unobserved()
