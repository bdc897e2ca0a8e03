"""What every running check needs, however it is run: its way to the target, a place, and who takes its results.

A check through IPVS waits for its probe path: the firewall mark whose rows the kernel has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from anycastlb.adapters.checks import CheckType
from anycastlb.adapters.checks.probe.sockets import error_text, own_lack
from anycastlb.adapters.system.clock import Clock
from anycastlb.core.model import Check, ForwardPath, ProbePath
from anycastlb.engine.places import Places
from anycastlb.engine.verdicts import Course, Verdicts

MAX_AT_ONCE = 1000
"""Probes under way at one time: a bound on sockets, far above what healthy backends need."""

FindPath = Callable[[ForwardPath, int], ProbePath]
"""How a probe through IPVS goes now, with this mark. It may raise OSError."""


class Probing:
    """Shared by all checks of a prober."""

    def __init__(
        self,
        types: Mapping[str, CheckType],
        verdicts: Verdicts,
        clock: Clock,
        find_path: FindPath,
    ) -> None:
        self.types, self.verdicts = types, verdicts
        self.clock, self.chance = clock.monotonic, clock.chance
        self.places = Places(MAX_AT_ONCE)
        self._find_path = find_path
        self._marks: Mapping[ForwardPath, int | str] = {}
        self._unmarked: list[Callable[[], None]] = []

    def mark(self, marks: Mapping[ForwardPath, int | str]) -> None:
        """Take the firewall mark of each forward path, or why it has none. A path that is missing is not known yet."""
        if marks != self._marks:
            self._marks = marks
            waiting, self._unmarked = self._unmarked, []
            for act in waiting:
                act()

    def ready(self, check: Check, when_marked: Callable[[], None]) -> bool:
        """Can the check be run, or is it known why it cannot? Else ``when_marked`` is called when it may be."""
        if check.via is None or self._marks.get(check.via) is not None:
            return True
        self._unmarked.append(when_marked)
        return False

    def path(self, course: Course, via: ForwardPath) -> ProbePath | None:
        """How a probe through IPVS goes now. None if it cannot be sent, which is then already folded."""
        mark = self._marks[via]
        if isinstance(mark, str):
            self.verdicts.withhold(course, mark)
            return None
        try:
            return self._find_path(via, mark)
        except OSError as exc:
            if own_lack(exc):
                self.verdicts.lack(course, f"this node could not probe: {error_text(exc)}")
            else:
                self.verdicts.miss(course, f"no way to {via.address}: {error_text(exc)}")
            return None
