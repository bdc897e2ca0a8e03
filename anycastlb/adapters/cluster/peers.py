"""The other nodes, as their published statuses show them: who is alive, who has vanished, whose status is unreadable.

It follows what ``members`` reads from the registry, and reports changes as events. It decides nothing about traffic
(docs/decisions/0009).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from anycastlb.adapters.cluster import Membership, Posted, status_bytes
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.events import Event, Level
from anycastlb.core.model import EMPTY, Peer, Status

REMEMBERED = 600.0
"""Seconds for which a node that has vanished is still shown."""


class Peers:
    """What is known of the other nodes. ``now``: seconds on the daemon's monotonic clock."""

    def __init__(self, node: str, journal: Journal, now: float) -> None:
        self.known: dict[str, Peer] = {}
        self.membership: Membership | None = None
        """Everything that was published at the last read, this node's own status included."""
        self.connected, self.since, self.error = False, now, ""
        """Whether the registry answers, since when that is so, and why it does not."""
        self._node, self._journal = node, journal

    def living(self) -> list[Status]:
        """The statuses of the nodes that are alive and readable."""
        return [peer.status for peer in self.known.values() if peer.alive and peer.status and not peer.error]

    def unread(self, membership: Membership) -> dict[str, Posted]:
        """What other nodes published that was not read yet."""
        before = self.membership.entries if self.membership is not None else EMPTY
        return {
            name: posted
            for name, posted in self._others(membership).items()
            if before.get(name) != posted or name not in self.known
        }

    def update(self, membership: Membership, statuses: Mapping[str, Status | str], now: float) -> None:
        """The registry answered. ``statuses``: what stands in ``unread`` (``read_statuses``)."""
        others = self._others(membership)
        for name, content in statuses.items():
            self._appeared(name, bool(others[name].session), content, now)
        for name, peer in self.known.items():
            if name not in others and peer.alive:
                self.known[name] = replace(peer, alive=False, since=now)
                self._vanished(peer)
        if self.membership is None or not self.connected:
            self.since = now
        self.membership, self.connected, self.error = membership, True, ""

    def lose_sight(self, error: str, now: float) -> None:
        """The registry does not answer: everybody stays as last known."""
        if self.connected or not self.error:
            self.since = now
            self.report("consul", f"the other nodes stay as they were last known: {error}", "warning")
        self.connected, self.error = False, error

    def forget(self, now: float) -> None:
        """Drop the nodes that vanished long ago."""
        entries = self.membership.entries if self.membership is not None else EMPTY
        for name, peer in list(self.known.items()):
            if not peer.alive and name not in entries and now - peer.since > REMEMBERED:
                del self.known[name]

    def report(self, subject: str, reason: str, level: Level) -> None:
        self._journal.emit(Event("cluster", subject, reason=reason, level=level))

    def _others(self, membership: Membership) -> dict[str, Posted]:
        return {name: posted for name, posted in membership.entries.items() if name != self._node}

    def _appeared(self, name: str, held: bool, content: Status | str, now: float) -> None:
        before = self.known.get(name)
        if isinstance(content, Status):
            error = "" if held else "no session holds its key, so nobody keeps it true; delete the key"
            self.known[name] = Peer(name, held, content, error, now)
        else:
            self.known[name] = Peer(name, held, before.status if before else None, content, now)
        if error := self.known[name].error:
            if before is None or before.error != error:
                self.report(name, f"its status cannot be used: {error}", "warning")
        elif before is None or not before.alive:
            self._journal.emit(Event("peer", name, before="gone" if before else "", after="alive"))

    def _vanished(self, peer: Peer) -> None:
        stopped = peer.status is not None and peer.status.stopping
        reason = "it had stopped" if stopped else "its session has ended: it died, or reaches Consul no more"
        level: Level = "info" if stopped else "warning"
        self._journal.emit(Event("peer", peer.name, reason=reason, before="alive", after="gone", level=level))


def read_statuses(posted: Mapping[str, Posted]) -> dict[str, Status | str]:
    """By node: its status, or why there is none."""
    return {name: read_status(one.value, name) for name, one in posted.items()}


def read_status(value: bytes, name: str) -> Status | str:
    """The status, or why there is none."""
    try:
        return status_bytes.decode(value, name)
    except status_bytes.UnreadableStatus as exc:
        return str(exc)
