"""Which backends of a judged service are used, and with which weight: the rows for the kernel.

It follows ``judgement``, once it is known which backends the peers keep in. What a backend gets is a function of four
things that are kept apart (``Weights``): what is configured, what an operator set, what health says, and how far its
slow start is. Three rules look at the pool as a whole:

* *fail open* (``fail: keep``): when every backend is down, all of them are used as if they were up;
* *the floor* (``max_failed``): never more than this share is taken out on health alone; a backend that is in stays in;
* *fallback* backends are used only while no other backend is up.

The caller may keep more backends in (``KeptBackends``), for reasons that lie outside of this pool: see ``peer_health``.

A drained backend is not in the pool at all: the caller keeps its row for the drain time, like that of a removed one.

Pure. Decision record: docs/decisions/0003-pools-and-gates.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from anycastlb.core.decision import weights
from anycastlb.core.decision.judgement import Judgement
from anycastlb.core.decision.member import Member, helpers_of, primaries_of
from anycastlb.core.model import BackendVerdict, Destination, DestinationKey, Reason, Service, Weights
from anycastlb.core.model.announce import most_failed

ALIKE = 4096
"""Values that are remembered, of each kind: most of thousands of backends have equal ones, as the same object."""
_destination, _parts, _reason = lru_cache(ALIKE)(Destination), lru_cache(ALIKE)(Weights), lru_cache(ALIKE)(Reason)


@dataclass(frozen=True, slots=True)
class KeptBackends:
    """Backends that stay in although they are down."""

    names: frozenset[str] | None
    """None: all of them, while no backend is up."""
    why: Reason
    """The clause that says so."""
    still: bool = False
    """For now nothing moves: what is in stays in, and what is out stays out, as long as anything is in."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The backends with their weights. ``rows`` are in canonical order; a drained backend has a verdict and no row."""

    backends: Mapping[DestinationKey, BackendVerdict]
    rows: Mapping[DestinationKey, Destination]
    wakes: tuple[float, ...] = ()
    """When a weight next changes by the mere passing of time."""


def weigh(judged: Judgement, keep: KeptBackends | None, now: float) -> Pool:
    """The weight of every backend, with its reason. ``keep``: what stays in beside what the service's rules keep."""
    service, members = judged.service, judged.members
    primaries = primaries_of(members)
    kept = {} if judged.replaced else _kept(service, primaries, bool(helpers_of(members)), keep)
    standing = weights.standing([member.nominal for member in members])
    on_helpers = not judged.replaced and not any(member.up and member.used for member in primaries)
    backends: dict[DestinationKey, BackendVerdict] = {}
    rows: dict[DestinationKey, Destination] = {}
    wakes: list[float] = []
    # A destination the kernel keeps refusing goes last, or every look would move its successors.
    for member in sorted(members, key=lambda member: bool(member.seen.refusal)):
        parts, clauses, wake = _weights(service, member, member.key in kept, now)
        if member.key in kept:
            clauses.append(kept[member.key])
        if member.backend.fallback and not on_helpers:
            parts, clauses = replace(parts, health=0.0), [Reason("fallback_idle", "fallback: not needed")]
        weight = weights.effective(parts)
        reason, notes = _joined(member, clauses), _notes(member, clauses)
        verdict = BackendVerdict(service.name, member.backend.name, member.up, weight, reason, parts, notes)
        backends[member.key] = verdict
        if wake is not None:
            wakes.append(wake)
        if not member.backend.drain:
            rows[member.key] = _row(member, weight, standing)
    return Pool(backends, rows, tuple(wakes))


def _joined(member: Member, clauses: Sequence[Reason]) -> Reason:
    """One reason of all clauses. The last one that is not the check's own decides, and gives it its code."""
    deciding = [clause for clause in clauses if clause is not member.reason] or clauses
    return _reason(deciding[-1].code, "; ".join(clause.text for clause in clauses))


def _notes(member: Member, clauses: Sequence[Reason]) -> tuple[str, ...]:
    """The clauses beyond the check's own, for readers that show the check's last result anyway."""
    refusal = [member.seen.refusal] if member.seen.refusal else []
    decided = bool(refusal) or (member.state.up is not None and not member.seen.out)
    others = [clause for clause in clauses if not (decided and clause is member.reason)]
    return tuple(clause.text for clause in (*refusal, *others))


def _row(member: Member, weight: int, standing: int) -> Destination:
    return _destination(
        forward=member.backend.forward,
        weight=weight,
        last_weight=weight or member.nominal or standing,
        upper=member.backend.upper,
        lower=member.backend.lower,
        tunnel_port=member.backend.tunnel_port,
    )


def _kept(
    service: Service, primaries: Sequence[Member], helped: bool, keep: KeptBackends | None
) -> Mapping[DestinationKey, Reason]:
    """Backends that are down and stay in all the same, with the rule that keeps them.

    A new backend that was never checked is not kept: it is not in yet.
    """
    pool = [member for member in primaries if member.used]
    if asked := _kept_by_caller(keep, pool, helped):
        return asked
    if not any(member.up for member in pool) and service.announce.fail == "keep" and not helped:
        return dict.fromkeys((member.key for member in pool), Reason("kept_fail_open", "kept (fail = keep)"))
    return _kept_by_floor(service, pool, helped)


def _kept_by_caller(keep: KeptBackends | None, pool: Sequence[Member], helped: bool) -> dict[DestinationKey, Reason]:
    if keep is None or helped:
        return {}
    if keep.names is None:
        return {} if any(member.up for member in pool) else {member.key: keep.why for member in pool}
    down = [member for member in pool if not member.up]
    standing = [member for member in down if member.seen.weight]
    named = [member for member in down if member.backend.name in keep.names]
    return {member.key: keep.why for member in (standing if keep.still and standing else named)}


def _kept_by_floor(service: Service, pool: Sequence[Member], helped: bool) -> dict[DestinationKey, Reason]:
    failed = [member for member in pool if not member.up and (member.state.up is False or _has_row(member))]
    if service.max_failed is None or (helped and len(failed) == len(pool)):
        return {}
    surplus = len(failed) - most_failed(service.max_failed, len(pool))
    if surplus <= 0:
        return {}
    failed.sort(key=lambda member: ((member.seen.weight or 0) > 0, member.state.since))
    why = Reason("kept_floor", f"kept in by the floor (max_failed {service.max_failed})")
    return {member.key: why for member in failed[-surplus:]}


def _has_row(member: Member) -> bool:
    return member.seen.weight is not None


def _weights(service: Service, member: Member, kept: bool, now: float) -> tuple[Weights, list[Reason], float | None]:
    """The four parts of a backend's weight, the clauses of its reason, and when that next changes by itself."""
    backend, state = member.backend, member.state
    admin = 0 if member.drained else backend.override
    parts = _parts(member.nominal, admin, 1.0 if member.up or kept else 0.0)
    if member.drained:
        return parts, [Reason("drained", "drained"), *([] if member.up else [member.reason])], None
    if not member.nominal:
        return parts, [Reason("weight_zero", "weight 0 in the catalog")], None
    clauses = [member.reason]
    if admin is not None:
        clauses.append(Reason("weight_set" if member.up else member.reason.code, f"weight set to {admin}"))
    if not member.up:
        return parts, clauses, None
    wake = None
    percent, (good, count) = state.asks[0], state.record
    if percent is not None:
        parts = replace(parts, health=weights.asked(percent))
        clauses.append(Reason("weight_asked", f"asks for {percent}%"))
    if service.slow_start_by_history:
        parts = replace(parts, ramp=weights.earned(good, count))
    else:
        share, step = weights.ramp(now - member.since, service.slow_start)
        parts = parts if share == parts.ramp else replace(parts, ramp=share)
        wake = None if step is None else member.since + step
    if parts.ramp < 1:
        clauses.append(Reason("slow_start", f"slow start: {parts.ramp:.0%}"))
    return parts, clauses, wake
