"""One backend as this node's own probes judge it, before any rule of its service.

Pure. Decision record: docs/decisions/0003-pools-and-gates.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from anycastlb.core.decision import gate, health, weights
from anycastlb.core.model import Address, Backend, Check, CheckState, DestinationKey, Reason, Service

LATE = 1.0
"""Seconds by which a first result may be late: what it takes to start a check, and to hear of its result."""


@dataclass(frozen=True, slots=True)
class ObservedBackend:
    """What is known of one backend, besides its document."""

    state: CheckState = health.UNKNOWN
    up_since: float | None = None
    """Since when it has counted as up, or was served when the daemon started; None: it did not so far. While its check
    has no result yet (it is new: after a restart, or after an edit of the check) such a backend counts as up."""
    weight: int | None = None
    """The weight it had so far; None: it had no row."""
    refusal: Reason | None = None
    """Why the machine refused to create it, if it did."""
    unproven: float | None = None
    """Since when it is wanted without ever having been checked, as far as the last decision knew."""
    out: Reason | None = None
    """Why it is out although its check may pass, if it is."""


@dataclass(frozen=True, slots=True)
class Member:
    """One backend as this node's own probes judge it."""

    backend: Backend
    key: DestinationKey
    seen: ObservedBackend
    up: bool
    reason: Reason
    nominal: int
    """Its configured weight in the kernel's coarseness."""
    check: Check
    since: float
    """When it came up, as far as its slow start is concerned."""
    now: float

    @property
    def state(self) -> CheckState:
        return self.seen.state

    @property
    def unchecked(self) -> float:
        """Seconds within which its first result must be there, 0 if there is one."""
        return self.check.interval + self.check.timeout if self.state.up is None else 0.0

    @property
    def unproven_since(self) -> float | None:
        """Since when it has waited for its first result; None if it has one, or counts as up without."""
        if self.state.up is not None or self.up or self.seen.refusal:
            return None
        return self.now if self.seen.unproven is None else self.seen.unproven

    @property
    def proving(self) -> float:
        """Seconds until its first result is overdue; 0 if it is, or if there is one."""
        since = self.unproven_since
        return 0.0 if since is None else max(0.0, since + self.unchecked + LATE - self.now)

    @property
    def used(self) -> bool:
        """Do operators want flows on it?"""
        return self.backend.weight > 0 and not self.drained and self.backend.override != 0

    @property
    def drained(self) -> bool:
        """By its document, or because it asks for it itself."""
        percent, drain = self.state.asks
        return self.backend.drain or (self.up and (drain or percent == 0))


def members_of(
    service: Service, vip: Address, observed: Sequence[ObservedBackend], followed: bool, now: float
) -> tuple[Member, ...]:
    """The backends of a service on a VIP. ``followed``: so far its weights followed the peers'."""
    key, backends = service.key(vip), service.members(vip)
    nominal = weights.quantise([backend.weight for backend in backends], service.virtual.scheduler)
    members = []
    for backend, weight, known in zip(backends, nominal, observed, strict=True):
        up, reason = health.verdict(known.state, known.up_since is not None)
        if known.refusal:
            up, reason = False, Reason("refused", f"down: {known.refusal}")
        elif known.out:
            up, reason = False, known.out
        since = known.up_since
        if since is None:
            since = gate.NEVER if followed and known.weight else now
        name = DestinationKey(key, backend.address, backend.port)
        members.append(Member(backend, name, known, up, reason, weight, service.check(vip, backend), since, now))
    return tuple(members)


def primaries_of(members: Sequence[Member]) -> list[Member]:
    return [member for member in members if not member.backend.fallback]


def helpers_of(members: Sequence[Member]) -> list[Member]:
    """The fallback backends that can be used."""
    return [member for member in members if member.backend.fallback and member.up and member.used]
