"""The gates around a whole decision and a whole comparison: what makes them fail is left out, and all else goes on.

The steps that are taken for one service or VIP contain their own faults (``containment``), which costs the service
nothing but its route. This is for all the rest of a decision, whatever it is: a service that makes it fail is looked
for, and left out, together with those on the same VIPs. Their routes are withdrawn, their gates are closed with the
reason, and their rows leave the kernel as those of services that are gone: after their drain time. They are tried again
with every decision, and every ``AGAIN`` seconds. If a decision fails without any service, nothing can be decided.

A comparison that fails is made without the VIPs with which it does: their rows stay as they are, but a route that must
go is withdrawn.

Pure. Decision record: docs/decisions/0011-decisions-as-a-pipeline-reasons-as-values.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

from anycastlb.core.culprits import culprits
from anycastlb.core.decision.comparison import UNCOMPARED, Comparison, compare_again
from anycastlb.core.decision.containment import internal_error
from anycastlb.core.decision.decide import decide_again
from anycastlb.core.decision.remembered import FROM_SCRATCH, Remembered
from anycastlb.core.model import Change, Decision, Failure, Inputs, Memory, Service, State, Table, Verdict

VIP_TABLES: tuple[Table, ...] = ("addresses", "services", "destinations", "routes")
"""Tables whose rows are about a VIP, or about a firewall mark."""
AGAIN = 10.0
"""Seconds after which what was left out is tried again."""


def decide_around(last: Remembered, inputs: Inputs, memory: Memory, now: float) -> Remembered:
    """What ``decide_again`` decides, without the services with which it fails. Raises what it raises without any."""
    past = last.decision
    last = last if last.whole is None else replace(last, decision=last.whole, whole=None)
    try:
        return decide_again(last, inputs, memory, now)
    except Exception as exc:
        services = inputs.catalog.services
        found = [service for service in services if _label(service) in past.faults]
        made = _without(found, last, inputs, memory, now) if found else None
        if made is None:
            found = culprits(
                services, lambda some: _decided(FROM_SCRATCH, _only(inputs, some), memory, now) is not None
            )
            made = _without(found, last, inputs, memory, now)
        if made is None:
            raise
        return _marked(made, found, _beside(found, services), past, exc, now)


def _label(service: Service) -> str:
    """The subject of the fault of a service that is left out."""
    return f"service {service.name}"


def _only(inputs: Inputs, services: Iterable[Service]) -> Inputs:
    return replace(inputs, catalog=replace(inputs.catalog, services=tuple(services)))


def _decided(last: Remembered, inputs: Inputs, memory: Memory, now: float) -> Remembered | None:
    try:
        return decide_again(last, inputs, memory, now)
    except Exception:  # why is known from the decision with all of them
        return None


def _beside(found: Iterable[Service], services: Iterable[Service]) -> list[Service]:
    """These services, and those that share a VIP with them."""
    vips = {vip for service in found for vip in service.vips}
    return [service for service in services if not vips.isdisjoint(service.vips)]


def _without(
    found: Sequence[Service], last: Remembered, inputs: Inputs, memory: Memory, now: float
) -> Remembered | None:
    """The decision without these services and those on their VIPs; None if it fails too."""
    out = {service.name for service in _beside(found, inputs.catalog.services)}
    rest = _only(inputs, [service for service in inputs.catalog.services if service.name not in out])
    return _decided(last, rest, memory, now) or _decided(FROM_SCRATCH, rest, memory, now)


def _marked(
    made: Remembered, found: Iterable[Service], out: Iterable[Service], past: Decision, exc: Exception, now: float
) -> Remembered:
    """The decision, with the gates of what was left out of it."""
    decision = made.decision
    faults = {_label(service): internal_error(_label(service), exc, "is left out") for service in found}
    if not faults:
        return made
    why = next(iter(faults.values()))
    verdicts = dict(decision.verdicts)
    for vip in dict.fromkeys(vip for service in out for vip in service.vips):
        before = past.verdicts.get(vip)
        since = before.since if before is not None and not before.open else now
        verdicts[vip] = Verdict(vip, open=False, reason=why, since=since)
    wakes = [now + AGAIN, *([] if decision.wake_at is None else [decision.wake_at])]
    marked = replace(decision, verdicts=verdicts, faults={**decision.faults, **faults}, wake_at=min(wakes))
    return replace(made, decision=marked, whole=decision)


def compare_around(last: Comparison, actual: State, desired: State) -> Comparison:
    """What ``compare_again`` finds, without the VIPs with which it fails: they stay as they are, but for a route that
    must go. Raises what it raises without any of them."""
    try:
        return compare_again(last, actual, desired)
    except Exception as exc:
        vips = dict.fromkeys(
            _vip(key) for table in VIP_TABLES for state in (actual, desired) for key in state.rows(table)
        )
        bad = culprits(list(vips), lambda some: _comparable(_of_vips(actual, some), _of_vips(desired, some)))
        rest = vips.keys() - bad
        made = compare_again(UNCOMPARED, _of_vips(actual, rest), _of_vips(desired, rest))
        routes = {vip: row for vip, row in actual.routes.items() if vip in bad and vip not in desired.routes}
        withdrawn = tuple(Change("routes", vip, row, None) for vip, row in routes.items())
        whys = tuple(Failure(Change("addresses", vip, None, None), internal_error(vip, exc)) for vip in bad)
        return Comparison(actual, desired, (*withdrawn, *made.changes), (*made.failures, *whys))


def _comparable(actual: State, desired: State) -> bool:
    try:
        compare_again(UNCOMPARED, actual, desired)
    except Exception:  # why is known from the comparison of all of them
        return False
    return True


def _vip(key: Any) -> Any:
    """What a row is about: its VIP, or the firewall mark."""
    key = getattr(key, "service", key)
    return key if getattr(key, "protocol", "fwmark") == "fwmark" else key.address


def _of_vips(state: State, vips: Collection[Any]) -> State:
    """The state without the rows of other VIPs."""
    rows = {table: {key: row for key, row in state.rows(table).items() if _vip(key) in vips} for table in VIP_TABLES}
    return replace(state, **rows)
