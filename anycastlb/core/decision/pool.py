"""One service on one VIP: which of its backends are used, with which weight, and can the service be served.

Pure. What a backend gets is a function of four things that are kept apart (``Weights``): what is configured, what an
operator set, what health says, and how far its slow start is. Three rules look at the pool as a whole:

* *fail open* (``fail: keep``): when every backend is down, all of them are used as if they were up;
* *the floor* (``max_failed``): never more than this share is taken out on health alone; who is in stays in;
* *fallback* backends are used only while no other backend is up.

The caller may keep more of them in (``Seen.keep``), on grounds that lie outside of this pool: see ``peer_health``.

A drained backend is not in the pool at all: the caller keeps its row for the drain time, like that of a removed one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from anycastlb.core.decision import gate, health, weights
from anycastlb.core.model import (
    Address,
    Announce,
    Backend,
    BackendVerdict,
    Check,
    CheckState,
    Condition,
    Destination,
    DestinationKey,
    Health,
    Service,
    ServiceKey,
    ServiceVerdict,
    Weights,
)
from anycastlb.core.model.catalog import most_failed

WELL = Condition()
"""Of a service all of whose backends are up."""


@dataclass(frozen=True, slots=True)
class KeptBackends:
    """Backends that stay in although they are down."""

    names: frozenset[str] | None
    """None: all of them, while no backend is up."""
    words: str
    still: bool = False
    """Not yet: whoever is in now stays in, and who is out stays out, as long as there is anybody."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What a pool is judged by, besides the service itself."""

    health: Health
    up_since: Mapping[DestinationKey, float]
    """Backends that counted as up so far, or were served when the daemon started. While their check says nothing yet
    (it is new: a restart, or an edit of the check) they count as up."""
    before: Mapping[DestinationKey, int]
    """The weight each backend had so far, if it was there."""
    refused: Mapping[Any, str]
    """What the machine refused to create, with its reason."""
    was_open: bool
    now: float
    keep: KeptBackends | None = None
    believed: bool = False
    """So far it was kept in as peers reach it: what comes up again was never away, and starts at full weight."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The outcome. ``rows`` are in canonical order; backends that are drained have a verdict and no row."""

    verdict: ServiceVerdict
    backends: Mapping[DestinationKey, BackendVerdict]
    rows: Mapping[DestinationKey, Destination]
    up_since: Mapping[DestinationKey, float]
    wakes: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class _Member:
    backend: Backend
    key: DestinationKey
    state: CheckState
    up: bool
    reason: str
    nominal: int
    check: Check
    since: float
    """When it came up, as far as its slow start is concerned."""

    @property
    def first(self) -> float:
        """Seconds within which its first result must be there, 0 if one is."""
        return self.check.interval + self.check.timeout if self.state.up is None else 0.0

    @property
    def used(self) -> bool:
        """Do operators want flows on it?"""
        return self.backend.weight > 0 and not self.drained and self.backend.override != 0

    @property
    def drained(self) -> bool:
        """By its document, or because it asks for it itself."""
        percent, drain = self.state.asks
        return self.backend.drain or (self.up and (drain or percent == 0))


def assess(service: Service, vip: Address, seen: Observed) -> Pool:
    """Judge one service on one VIP."""
    key = service.key(vip)
    members = _members(service, vip, seen)
    primaries = [member for member in members if not member.backend.fallback]
    helpers = [member for member in members if member.backend.fallback and member.up and member.used]
    verdict = _verdict(service, key, primaries, helpers, seen)
    kept = _kept(service, primaries, bool(helpers), seen)
    standing = weights.standing([member.nominal for member in members])
    backends: dict[DestinationKey, BackendVerdict] = {}
    rows: dict[DestinationKey, Destination] = {}
    wakes: list[float] = []
    on_helpers = not any(member.up and member.used for member in primaries)
    # A destination the kernel keeps refusing goes last, or every look would move its successors.
    for member in sorted(members, key=lambda member: member.key in seen.refused):
        parts, reason, wake = _weights(service, member, member.key in kept, seen.now)
        if member.key in kept:
            reason = f"{reason}; {kept[member.key]}"
        if member.backend.fallback and not on_helpers:
            parts, reason = replace(parts, health=0.0), "fallback: not needed"
        weight = weights.effective(parts)
        backends[member.key] = BackendVerdict(service.name, member.backend.name, member.up, weight, reason, parts)
        if wake is not None:
            wakes.append(wake)
        if not member.backend.drain:
            rows[member.key] = Destination(
                forward=member.backend.forward,
                weight=weight,
                last_weight=weight or member.nominal or standing,
                upper=member.backend.upper,
                lower=member.backend.lower,
                tunnel_port=member.backend.tunnel_port,
            )
    since = {member.key: member.since for member in members if member.up}
    return Pool(verdict, backends, rows, since, tuple(wakes))


def _members(service: Service, vip: Address, seen: Observed) -> list[_Member]:
    key, backends = service.key(vip), service.members(vip)
    nominal = weights.quantise([backend.weight for backend in backends], service.virtual.scheduler)
    members = []
    for backend, weight in zip(backends, nominal, strict=True):
        name = DestinationKey(key, backend.address, backend.port)
        check = service.check(vip, backend)
        state = seen.health.get(check, health.UNKNOWN)
        up, reason = health.verdict(state, name in seen.up_since)
        if refusal := seen.refused.get(name):
            up, reason = False, f"down: {refusal}"
        returns = seen.believed and seen.before.get(name, 0) > 0
        since = seen.up_since.get(name, gate.NEVER if returns else seen.now)
        members.append(_Member(backend, name, state, up, reason, weight, check, since))
    return members


def _verdict(
    service: Service, key: ServiceKey, primaries: Sequence[_Member], helpers: Sequence[_Member], seen: Observed
) -> ServiceVerdict:
    announce, name = service.announce, service.name
    pool = [member for member in primaries if member.used]
    ups = [member for member in pool if member.up]
    up, total = len(ups), len(pool)
    sums = [sum(member.backend.weight for member in some) for some in (ups, pool)]
    threshold = announce.min_backends if seen.was_open else announce.reopen or announce.min_backends
    met, needed, words = gate.enough(threshold, up, total, *sums)
    if not met and not seen.was_open and gate.enough(announce.min_backends, up, total, *sums)[0]:
        words += " to open again"
    condition = _condition(pool, helpers, met, announce, seen.refused, key)
    if refusal := seen.refused.get(key):
        met, words = False, refusal
    elif not up and helpers and announce.fallback == "keep":
        met, words = True, f"{up}/{total} backends up; {len(helpers)} fallback serving"
    elif total and not up and announce.fail == "keep":
        met, words = True, f"{up}/{total} backends up; kept open (fail = keep)"
    turned = max((member.state.since for member in ups if member.state.up), default=gate.NEVER)
    down = [member for member in pool if not member.up]
    unsettled = max((member.first for member in down), default=0.0)
    returning = max((_returning(member, turned) for member in down), default=0.0)
    return ServiceVerdict(name, key, met, up, total, needed, words, unsettled, returning, condition)


def _condition(
    pool: Sequence[_Member],
    helpers: Sequence[_Member],
    met: bool,
    announce: Announce,
    refused: Mapping[Any, str],
    key: ServiceKey,
) -> Condition:
    ups = [member for member in pool if member.up]
    if met and len(ups) == len(pool) and key not in refused:
        return WELL
    built = [member for member in pool if member.key not in refused]
    helped = not ups and bool(helpers)
    return Condition(
        well=key not in refused and (met or (helped and announce.fallback == "keep")),
        dead=bool(built) and not ups and not helped and all(member.state.up is False for member in built),
        able=key not in refused and bool(built or helpers),
        cycle=max((member.check.interval + member.check.timeout for member in pool), default=0.0),
        recovery=max((_recovery(member.check) for member in pool), default=0.0),
    )


def _returning(member: _Member, turned: float) -> float:
    """Seconds in which a backend that is down may yet follow the last that came up (at ``turned``); 0 once a result
    from after that says that it does not.

    When all come back, as after this node alone was cut off from them, one is always the first. A node that announced
    at that moment would send it the flows of all the others.
    """
    last = member.state.last
    if member.state.up is not False or turned == gate.NEVER or (last and not last.ok and last.at > turned):
        return 0.0
    return _recovery(member.check)


def _recovery(check: Check) -> float:
    """Seconds in which a backend that is back counts as up: the wait for the first good result, then its rise."""
    return max(check.interval, check.down_interval or 0.0) + check.rise * (check.interval + check.timeout)


def _kept(service: Service, primaries: Sequence[_Member], helped: bool, seen: Observed) -> Mapping[DestinationKey, str]:
    """Backends that are down and stay in all the same, with the rule that keeps them.

    A new backend that was never checked is not kept: it is not in yet.
    """
    before, pool = seen.before, [member for member in primaries if member.used]
    told = _reason_text(seen.keep, pool, helped, before)
    failed = [member for member in pool if not member.up and (member.state.up is False or member.key in before)]
    if told:
        return told
    if pool and not any(member.up for member in pool) and service.announce.fail == "keep" and not helped:
        return {member.key: "kept (fail = keep)" for member in pool}
    if service.max_failed is None or (helped and len(failed) == len(pool)):
        return {}
    surplus = len(failed) - most_failed(service.max_failed, len(pool))
    failed.sort(key=lambda member: (before.get(member.key, 0) > 0, member.state.since))
    last = failed[len(failed) - surplus :] if surplus > 0 else []
    return {member.key: f"kept in by the floor (max_failed {service.max_failed})" for member in last}


def _reason_text(
    keep: KeptBackends | None, pool: Sequence[_Member], helped: bool, before: Mapping[DestinationKey, int]
) -> dict[DestinationKey, str]:
    """Who stays in as the caller wants it."""
    if keep is None or helped:
        return {}
    if keep.names is None:
        return {} if any(member.up for member in pool) else {member.key: keep.words for member in pool}
    down = [member for member in pool if not member.up]
    standing = [member for member in down if before.get(member.key, 0) > 0]
    named = [member for member in down if member.backend.name in keep.names]
    return {member.key: keep.words for member in (standing if keep.still and standing else named)}


def _weights(service: Service, member: _Member, kept: bool, now: float) -> tuple[Weights, str, float | None]:
    """The four parts of a backend's weight, what they come from in words, and when that next changes."""
    backend, reason = member.backend, member.reason
    admin = 0 if member.drained else backend.override
    parts = Weights(member.nominal, admin, 1.0 if member.up or kept else 0.0)
    if member.drained:
        return parts, "drained" if member.up else f"drained; {reason}", None
    if not member.nominal:
        return parts, "weight 0 in the catalog", None
    if admin is not None:
        reason = f"{reason}; weight set to {admin}"
    if not member.up:
        return parts, reason, None
    wake = None
    percent, (good, count) = member.state.asks[0], member.state.record
    if percent is not None:
        parts = replace(parts, health=weights.asked(percent))
        reason = f"{reason}; asks for {percent}%"
    if service.slow_start_by_history:
        parts = replace(parts, ramp=weights.earned(good, count))
    else:
        age = now - member.since
        share, step = weights.ramp(age, service.slow_start)
        parts = replace(parts, ramp=share)
        wake = None if step is None else now - age + step
    if parts.ramp < 1:
        reason = f"{reason}; slow start: {parts.ramp:.0%}"
    return parts, reason, wake
