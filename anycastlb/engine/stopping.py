"""When a stop is over: the node has left the routes, and nothing of it is left on the machine."""

from __future__ import annotations

from anycastlb.adapters.system.clock import Clock
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.events import Event
from anycastlb.core.model import Snapshot, State
from anycastlb.engine.inbox import Inbox
from anycastlb.engine.sight import Sight

GIVE_UP = 10.0
"""Seconds without a kernel that can be read after which a stop ends, if nothing else is left to do."""


class Stopping:
    def __init__(self, inbox: Inbox, sight: Sight, journal: Journal, clock: Clock) -> None:
        self._inbox, self._sight, self._journal = inbox, sight, journal
        self._clock = clock.monotonic

    def over(self, snapshot: Snapshot) -> bool:
        """Does the node stop, and has it left nothing behind? Asks for the settings' return once all else is gone."""
        if not snapshot.inputs.stopping:
            return False
        if self._sight.blind_since is not None:
            return self._given_up(snapshot, self._sight.blind_since)
        if anything_left(snapshot.actual):
            return False
        if snapshot.inputs.emptied or not self._inbox.inputs.originals:
            return True
        if not self._inbox.inputs.emptied:
            self._inbox.put(emptied=True)  # the settings are given back last
        return False

    def _given_up(self, snapshot: Snapshot, since: float) -> bool:
        """Everything has been done but what needs a kernel that can be read; and nobody can say when it will be."""
        if anything_left(snapshot.decision.desired) or snapshot.actual.routes or self._clock() - since < GIVE_UP:
            return False
        why = self._sight.unread["kernel"]
        reason = (
            f"stopped without a kernel that can be read ({why}): the routes are withdrawn, but "
            "addresses, services and settings may be left; the next start takes them over"
        )
        self._journal.emit(Event("observe", "kernel", reason=reason, after="unread", level="error"))
        return True


def anything_left(state: State) -> bool:
    """Is anything of ours in this state of the machine, but settings and names?"""
    return bool(state.addresses or state.services or state.destinations or state.routes)
