"""Can one service on one VIP be served, by what this node's own probes say of its backends?

The gates and the other nodes' votes work with a ``Judgement``; ``pool`` makes the rows for the kernel of it. When every
backend is down, ``fail: keep`` keeps the service open, and so may its fallback backends.

An edit is no outage: what it adds was never checked, and nobody knows yet whether it serves. So while the VIP is
announced, a service that needs its new backends is *proving*, until their first results are due: it closes nothing,
and what they replace serves on (``handover``).

Pure. Decision record: docs/decisions/0003-pools-and-gates.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from anycastlb.core.decision import gate, health, weights
from anycastlb.core.model import (
    Address,
    Announce,
    Backend,
    Check,
    CheckState,
    Condition,
    DestinationKey,
    Reason,
    Service,
    ServiceKey,
    ServiceVerdict,
    Share,
)

LATE = 1.0
"""Seconds by which a first result may be late: what it takes to start a check, and to hear of its result."""
WELL = Condition()
"""The condition of a service all of whose backends are up."""


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


@dataclass(frozen=True, slots=True)
class Observed:
    """What one service on one VIP is judged by, besides its document."""

    backends: tuple[ObservedBackend, ...]
    """One for each of ``service.members(vip)``, in their order."""
    refusal: Reason | None = None
    """Why the machine refused to create the service, if it did."""
    was_open: bool = False
    """It could be served so far: it takes less to stay so than to become so."""
    followed: bool = False
    """So far its weights followed the peers': what comes up again was never away, and starts at full weight."""
    announced: bool = False
    """The VIP's gate is open so far."""
    replaced: bool = False
    """Backends that an edit has taken out of it still get flows."""


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


@dataclass(frozen=True, slots=True)
class Judgement:
    """What this node's own probes make of one service on one VIP."""

    service: Service
    vip: Address
    verdict: ServiceVerdict
    members: tuple[Member, ...]
    replaced: bool = False
    """While it is proving, backends that an edit has taken out of it serve on."""

    @property
    def unproven(self) -> dict[DestinationKey, float]:
        """The backends that wait for their first result, and since when."""
        return {m.key: since for m in self.members if (since := m.unproven_since) is not None}

    @property
    def proving(self) -> float:
        """Seconds until the last first result of the backends that flows are wanted on is due; 0 if none is."""
        return max((m.proving for m in self.members if m.used and not m.backend.fallback), default=0.0)

    @property
    def up_since(self) -> dict[DestinationKey, float]:
        """The backends that count as up, and since when."""
        return {member.key: member.since for member in self.members if member.up}


def judge(service: Service, vip: Address, seen: Observed, now: float) -> Judgement:
    """Judge one service on one VIP by this node's own probes."""
    key = service.key(vip)
    members = _members(service, vip, seen, now)
    primaries, helpers = primaries_of(members), helpers_of(members)
    verdict = _verdict(service, key, primaries, helpers, seen)
    return Judgement(service, vip, verdict, members, bool(verdict.proving) and seen.replaced)


def primaries_of(members: Sequence[Member]) -> list[Member]:
    return [member for member in members if not member.backend.fallback]


def helpers_of(members: Sequence[Member]) -> list[Member]:
    """The fallback backends that can be used."""
    return [member for member in members if member.backend.fallback and member.up and member.used]


def _members(service: Service, vip: Address, seen: Observed, now: float) -> tuple[Member, ...]:
    key, backends = service.key(vip), service.members(vip)
    nominal = weights.quantise([backend.weight for backend in backends], service.virtual.scheduler)
    members = []
    for backend, weight, known in zip(backends, nominal, seen.backends, strict=True):
        up, reason = health.verdict(known.state, known.up_since is not None)
        if known.refusal:
            up, reason = False, Reason("refused", f"down: {known.refusal}")
        since = known.up_since
        if since is None:
            since = gate.NEVER if seen.followed and known.weight else now
        name = DestinationKey(key, backend.address, backend.port)
        members.append(Member(backend, name, known, up, reason, weight, service.check(vip, backend), since, now))
    return tuple(members)


def _verdict(
    service: Service, key: ServiceKey, primaries: Sequence[Member], helpers: Sequence[Member], seen: Observed
) -> ServiceVerdict:
    announce, name = service.announce, service.name
    pool = [member for member in primaries if member.used]
    ups = [member for member in pool if member.up]
    up, total = len(ups), len(pool)
    sums = [sum(member.backend.weight for member in some) for some in (ups, pool)]
    threshold = announce.min_backends if seen.was_open else announce.reopen or announce.min_backends
    met, needed, words = gate.enough(threshold, up, total, *sums)
    if not met and gate.enough(announce.min_backends, up, total, *sums)[0]:
        words += " to open again"
    proving = 0.0 if met or seen.refusal else _proving(threshold, pool, seen)
    condition = _condition(pool, helpers, met or bool(proving), announce, bool(seen.refusal))
    reason = Reason("backends_up" if met else "too_few_backends", words)
    if seen.refusal:
        met, reason = False, Reason("refused", seen.refusal.text)
    elif not up and helpers and announce.fallback == "keep":
        met, reason = True, Reason("fallback_serving", f"{up}/{total} backends up; {len(helpers)} fallback serving")
    elif total and not up and announce.fail == "keep":
        met, reason = True, Reason("kept_fail_open", f"{up}/{total} backends up; kept open (fail = keep)")
    turned = max((member.state.since for member in ups if member.state.up), default=gate.NEVER)
    down = [member for member in pool if not member.up]
    unsettled = max((member.unchecked for member in down), default=0.0)
    returning = max((_returning(member, turned) for member in down), default=0.0)
    return ServiceVerdict(name, key, met, up, total, needed, reason, unsettled, returning, condition, proving)


def _proving(threshold: Share, pool: Sequence[Member], seen: Observed) -> float:
    """Seconds within which the first results of new backends may open a service of an announced VIP; 0 if they cannot.

    Something must serve meanwhile, or nothing was ever known of it: a service that has died is no edit.
    """
    ups, new = [m for m in pool if m.up], [m for m in pool if m.proving]
    if not seen.announced or not (ups or seen.replaced or all(m.state.up is None for m in pool)):
        return 0.0
    sums = [sum(member.backend.weight for member in some) for some in ([*ups, *new], pool)]
    met, _, _ = gate.enough(threshold, len(ups) + len(new), len(pool), *sums)
    return max(member.proving for member in new) if met else 0.0


def _condition(
    pool: Sequence[Member], helpers: Sequence[Member], met: bool, announce: Announce, refused: bool
) -> Condition:
    ups = [member for member in pool if member.up]
    if met and len(ups) == len(pool) and not refused:
        return WELL
    built = [member for member in pool if not member.seen.refusal]
    helped = not ups and bool(helpers)
    return Condition(
        well=not refused and (met or (helped and announce.fallback == "keep")),
        dead=bool(built) and not helped and all(member.state.up is False for member in built),
        able=not refused and bool(built or helpers),
        cycle=max((member.check.interval + member.check.timeout for member in pool), default=0.0),
        recovery=max((_recovery(member.check) for member in pool), default=0.0),
    )


def _returning(member: Member, turned: float) -> float:
    """Seconds in which a backend that is down may yet follow the last that came up (at ``turned``).

    0 once a result from after that moment says that it does not. When all backends come back, as after this node alone
    was cut off from them, one is always the first. A node that announced at that moment would send it the flows of all
    the others.

    Backends that come back together come up within one interval of each other, since all of them need the same number
    of results. (The prober wakes those whose ``down_interval`` is longer.) So nobody waits longer for one that is dead.
    """
    last = member.state.last
    if member.state.up is not False or turned == gate.NEVER or (last and not last.ok and last.at > turned):
        return 0.0
    return member.check.interval + member.check.timeout


def _recovery(check: Check) -> float:
    """Seconds until a backend that is back counts as up, once another one is: the wait for the first good result, for
    which the prober cuts a ``down_interval`` short, and its rise."""
    return check.interval + check.rise * (check.interval + check.timeout)
