"""Changes of routes that the bridge was asked for and that ExaBGP has not acknowledged yet."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from anycastlb.bridge.protocol import Report
from anycastlb.core.model import Address, Change, Route

STALL = 5.0
"""Seconds without any progress after which changes that are under way fail."""


class UnderWay:
    """``expected``: does the reconciler wait to hear that they are done? ``stalled``: was there no progress for
    ``STALL`` seconds?"""

    def __init__(self) -> None:
        self.expected = self.stalled = False
        self._changes: dict[Address, Route | None] = {}
        """VIP -> the route it is to have; None: it is to be withdrawn."""
        self._leaving: set[Address] = set()
        self._progress_at = 0.0

    def __len__(self) -> int:
        return len(self._changes)

    def has(self, change: Change) -> bool:
        """Is this very change under way, and was it asked for recently enough to be still in force?"""
        return not self.stalled and change.key in self._changes and self._changes[change.key] == change.new

    def has_any(self, changes: Iterable[Change]) -> bool:
        return any(self.has(change) for change in changes)

    def begin(self, changes: Sequence[Change], now: float) -> None:
        """These are asked for now. A stall ends with progress alone."""
        if not self._changes:
            self._progress_at = now
        for change in changes:
            self._changes[change.key] = change.new
            if change.new is None:
                self._leaving.add(change.key)
            else:
                self._leaving.discard(change.key)

    def keep(self, vips: Collection[Address]) -> None:
        """Only changes of these are still asked for."""
        self.forget([vip for vip in self._changes if vip not in vips])

    def forget(self, vips: Iterable[Address]) -> None:
        for vip in vips:
            self._changes.pop(vip, None)
            self._leaving.discard(vip)
        if not self._changes:
            self.stalled = False

    def advance(self, before: Report, report: Report, covered: bool, now: float) -> bool:
        """A report has come. True if the reconciler should look: all withdrawals are done, or everything is."""
        if report.announced != before.announced or report.serial != before.serial:
            self._progress_at, self.stalled = now, False
        had_leaving = bool(self._leaving)
        self.forget([vip for vip, route in self._changes.items() if report.announced.get(vip) == route])
        finished = covered or not self._changes or (had_leaving and not self._leaving)
        if not self.expected or not finished:
            return False
        self.expected = not covered and bool(self._changes)
        return True

    def stall(self, now: float) -> bool:
        """Let time pass. True at the moment they stall."""
        if self.stalled or not self._changes or now - self._progress_at < STALL:
            return False
        self.stalled = True
        return True


def has_drifted(before: Mapping[Address, Route], now: Mapping[Address, Route], wanted: Mapping[Address, Route]) -> bool:
    """Has a wanted route gone, or one appeared that is not wanted?"""
    gone = any(now.get(vip) != route and wanted.get(vip) == route for vip, route in before.items())
    return gone or any(vip not in before and vip not in wanted for vip in now)
