"""The journal's events about the catalog: what came into force, what is held back, and which problems it has."""

from __future__ import annotations

from anycastlb.adapters.system.journal import Journal
from anycastlb.core.catalog.per_service import PerService
from anycastlb.core.events import Event, Level
from anycastlb.core.model import Catalog, Problem, Shrink

MAX_SHOWN = 50
"""Events about new problems of one read; the catalog itself holds all problems."""


class CatalogEvents:
    """``source``: the name of the source, which is the subject of events that are about no key."""

    def __init__(self, journal: Journal, source: str) -> None:
        self._journal, self._source = journal, source
        self._reported: frozenset[Problem] = frozenset()
        self._backends = PerService(lambda service: len(service.backends))

    def emit(self, after: str, reason: str, before: str = "", level: Level = "info", subject: str = "") -> None:
        self._journal.emit(Event("catalog", subject or self._source, reason, before, after, level))

    def counts(self, catalog: Catalog) -> str:
        """How large a catalog is, in a few words."""
        return (
            f"index {catalog.index}: {len(catalog.services)} services, {len(catalog.vips)} VIPs, "
            f"{sum(self._backends(catalog.services))} backends, "
            f"{len(catalog.drained)} drained nodes, {len(catalog.problems)} problems"
        )

    def held(self, candidate: Catalog, held: Shrink, now: float) -> None:
        """A catalog that has lost too much is held back."""
        when = "until it is confirmed" if held.until is None else f"for {held.until - now:.0f} s"
        self.emit(
            "held",
            f"catalog {candidate.index} lost {len(held.lost)} of {held.of} VIPs, more than "
            f"catalog.max_shrink allows: held {when}; let it through with: anycastlb confirm",
            level="warning",
        )

    def problems(self, catalog: Catalog) -> None:
        """Emit an event for each problem that the last catalog did not have, and for each that is solved."""
        problems = frozenset(catalog.problems)
        new = [problem for problem in catalog.problems if problem not in self._reported]
        for problem in new[:MAX_SHOWN]:
            self.emit("problem", _reason(problem), level="warning", subject=problem.key)
        if len(new) > MAX_SHOWN:
            self.emit("problem", f"and {len(new) - MAX_SHOWN} more", level="warning")
        for problem in sorted(self._reported - problems, key=str)[:MAX_SHOWN]:
            self.emit("solved", _reason(problem), before="problem", subject=problem.key)
        self._reported = problems


def _reason(problem: Problem) -> str:
    return f"{problem.path}: {problem.expected}" if problem.path else problem.expected
