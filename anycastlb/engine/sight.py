"""What this node cannot read or decide at the moment, and since when; the journal learns of it once."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from anycastlb.adapters.system.journal import Journal
from anycastlb.core.events import Event
from anycastlb.core.model import Table


class Sight:
    """``kernel``: the tables that the kernel holds. Without one of them, nothing can be decided from what is there."""

    def __init__(self, kernel: Collection[Table], journal: Journal) -> None:
        self._kernel, self._journal = kernel, journal
        self.unread: Mapping[str, str] = {}
        """What could not be read at the last look (``kernel``, or a table outside of it), and why."""
        self.blind_since: float | None = None
        """When the first of the looks began that could not read the kernel; None while it can be read."""
        self.blind_looks = 0
        """So many looks in a row could not read the kernel."""
        self._read_once = False
        """The look that is under way has read the kernel, and may only have to confirm that rows are lost."""
        self._undecided: tuple[float, str] | None = None
        """Since when a fault of ours keeps this node from deciding, and what it is."""

    @property
    def blind(self) -> bool:
        return self.blind_since is not None

    @property
    def undecided(self) -> bool:
        return self._undecided is not None

    @property
    def stuck_since(self) -> float | None:
        """Since when this node can no longer decide from what is there; None while it can."""
        since = [None if self._read_once else self.blind_since, self._undecided[0] if self._undecided else None]
        return min((moment for moment in since if moment is not None), default=None)

    def read_once(self, errors: Mapping[Table, str]) -> None:
        """Every table was read for the first time in this look."""
        self._read_once = not any(table in self._kernel for table in errors)

    def looked(self, errors: Mapping[Table, str], started: float) -> None:
        """A look has ended. Report what could not be read, once, and that it can be read again."""
        before, self._read_once = self.unread, False
        self.unread = {"kernel" if table in self._kernel else table: text for table, text in errors.items()}
        for subject, reason in self.unread.items():
            if reason != before.get(subject):
                self._journal.emit(Event("observe", subject, reason=reason, after="unread", level="error"))
        for subject in before.keys() - self.unread.keys():
            self._journal.emit(Event("observe", subject, reason="it can be read again", before="unread", after="read"))
        if "kernel" not in self.unread:
            self.blind_since, self.blind_looks = None, 0
            return
        self.blind_looks += 1
        if self.blind_since is None:
            self.blind_since = started

    def failed(self, reason: str, started: float) -> None:
        """No decision could be made. Report the reason once."""
        if self._undecided is None or self._undecided[1] != reason:
            self._journal.emit(Event("observe", "kernel", reason=reason, level="error"))
        self._undecided = (self._undecided[0] if self._undecided else started), reason

    def decided(self) -> None:
        """A decision was made."""
        self._undecided = None
