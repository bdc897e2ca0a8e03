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

from anycastlb.core.decision import gate
from anycastlb.core.decision.member import Member, ObservedBackend, helpers_of, members_of, primaries_of
from anycastlb.core.model import (
    Address,
    Announce,
    Check,
    Condition,
    DestinationKey,
    Reason,
    Service,
    ServiceKey,
    ServiceVerdict,
    Share,
)

WELL = Condition()
"""The condition of a service all of whose backends are up."""


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
        waiting = (m for m in self.members if m.unproven_since is not None)  # hardly ever any
        return max((m.proving for m in waiting if m.used and not m.backend.fallback), default=0.0)

    @property
    def up_since(self) -> dict[DestinationKey, float]:
        """The backends that count as up, and since when."""
        return {member.key: member.since for member in self.members if member.up}


def judge(service: Service, vip: Address, seen: Observed, now: float) -> Judgement:
    """Judge one service on one VIP by this node's own probes."""
    key = service.key(vip)
    members = members_of(service, vip, seen.backends, seen.followed, now)
    primaries, helpers = primaries_of(members), helpers_of(members)
    verdict = _verdict(service, key, primaries, helpers, seen)
    return Judgement(service, vip, verdict, members, bool(verdict.proving) and seen.replaced)


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
