"""The gates around a whole decision and a whole comparison: what makes them fail is left out, and all else goes on.

The steps that are taken for one service or VIP contain their own faults (``containment``), which costs the service
nothing but its route. This is for all the rest of a decision, whatever it is: a service that makes it fail is looked
for, and left out, together with those on the same VIPs. Their routes are withdrawn, their gates are closed with the
reason, and their rows leave the kernel as those of services that are gone: after their drain time. They are tried again
when one of them is edited, and every ``AGAIN`` seconds; until then they cost a decision nothing. If a decision fails
without any service, nothing can be decided.

A comparison that fails is made without the VIPs with which it does: their rows stay as they are, but a route that must
go is withdrawn.

Pure. Decision record: docs/decisions/0011-decisions-as-a-pipeline-reasons-as-values.md.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from anycastlb.core.culprits import culprits
from anycastlb.core.decision.comparison import UNCOMPARED, Comparison, compare_again
from anycastlb.core.decision.containment import internal_error
from anycastlb.core.decision.decide import decide_again
from anycastlb.core.decision.remembered import FROM_SCRATCH, LeftOut, Remembered
from anycastlb.core.decision.rows import RowId
from anycastlb.core.decision.scope import scope_of
from anycastlb.core.model import Change, Decision, Failure, Inputs, Memory, Reason, Service, State, Table, Verdict

K = TypeVar("K")
T = TypeVar("T")
VIP_TABLES: tuple[Table, ...] = ("addresses", "services", "destinations", "routes")
"""Tables whose rows are about a VIP, or about a firewall mark."""
AGAIN = 10.0
"""Seconds after which what was left out is tried again."""


def decide_around(last: Remembered, inputs: Inputs, memory: Memory, now: float) -> Remembered:
    """What ``decide_again`` decides, without the services with which it fails. Raises what it raises without any."""
    past, aside = last.decision, last.aside
    last = last if last.whole is None else replace(last, decision=last.whole, whole=None, aside=None)
    if aside is not None and now < aside.tried_at + AGAIN and _are_in(aside.services, inputs):
        made = _without(aside.services, last, inputs, memory, now)
        if made is not None:
            return _marked(made, aside, inputs.catalog.services, past, now)
    try:
        return decide_again(last, inputs, memory, now)
    except Exception as exc:
        services = inputs.catalog.services
        failing = tuple(service for service in services if _label(service) in past.faults)
        made = _without(failing, last, inputs, memory, now) if failing else None
        if made is None:
            failing = _failing(last, inputs, memory, now)
            made = _without(failing, last, inputs, memory, now)
        if made is None:
            raise
        faults = {_label(service): internal_error(_label(service), exc, "is left out") for service in failing}
        return _marked(made, LeftOut(failing, faults, now), services, past, now)


def _are_in(services: Iterable[Service], inputs: Inputs) -> bool:
    """Are these very services still in the catalog?"""
    known = set(map(id, inputs.catalog.services))
    return all(id(service) in known for service in services)


def _failing(last: Remembered, inputs: Inputs, memory: Memory, now: float) -> tuple[Service, ...]:
    """The services that make a decision fail: looked for first among those of which something has changed."""
    services = inputs.catalog.services
    suspects = _suspects(last, inputs, memory, now)
    others = [service for service in services if service.name not in suspects]
    if others and _decided(last, _only(inputs, others), memory, now) is not None:

        def works(some: Sequence[Service]) -> bool:
            names = suspects - {service.name for service in some}
            rest = [service for service in services if service.name not in names]
            return _decided(last, _only(inputs, rest), memory, now) is not None

        return tuple(culprits([service for service in services if service.name in suspects], works))
    parts = _Parts(memory)
    return tuple(
        culprits(services, lambda some: _decided(FROM_SCRATCH, _only(inputs, some), parts.of(some), now) is not None)
    )


def _suspects(last: Remembered, inputs: Inputs, memory: Memory, now: float) -> set[str]:
    """The services of which something is decided anew; all of them if that cannot be told."""
    try:
        scope = scope_of(last, inputs, memory, now)
        return {service.name for name in scope.anew for service, _ in scope.grouping.groups[name].places}
    except Exception:  # why is known from the decision with all of them
        return {service.name for service in inputs.catalog.services}


class _Parts:
    """A memory of which no more is taken than what some services need: the rows of all others would seem to leave each
    time."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._rows, self._leaving = _by_vip(memory.rows), _by_vip(memory.leaving)

    def of(self, services: Iterable[Service]) -> Memory:
        vips = list(dict.fromkeys(vip for service in services for vip in service.vips))
        return replace(self._memory, rows=_joined(self._rows, vips), leaving=_joined(self._leaving, vips))


def _by_vip(rows: Mapping[RowId, T]) -> dict[Any, dict[RowId, T]]:
    parts: dict[Any, dict[RowId, T]] = {}
    for row_id, row in rows.items():
        parts.setdefault(_vip(row_id[1]), {})[row_id] = row
    return parts


def _joined(parts: Mapping[Any, Mapping[K, T]], vips: Iterable[Any]) -> dict[K, T]:
    return {key: row for vip in vips for key, row in parts.get(vip, {}).items()}


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


def _beside(failing: Iterable[Service], services: Iterable[Service]) -> list[Service]:
    """These services, and those that share a VIP with them."""
    vips = {vip for service in failing for vip in service.vips}
    return [service for service in services if not vips.isdisjoint(service.vips)]


def _without(
    failing: Sequence[Service], last: Remembered, inputs: Inputs, memory: Memory, now: float
) -> Remembered | None:
    """The decision without these services and those on their VIPs; None if it fails too."""
    out = {service.name for service in _beside(failing, inputs.catalog.services)}
    rest = _only(inputs, [service for service in inputs.catalog.services if service.name not in out])
    return _decided(last, rest, memory, now) or _decided(FROM_SCRATCH, rest, memory, now)


def _marked(made: Remembered, aside: LeftOut, services: Iterable[Service], past: Decision, now: float) -> Remembered:
    """The decision, with the gates of what was left out of it."""
    decision, faults = made.decision, aside.faults
    if not faults:
        return made
    why = next(iter(faults.values()))
    verdicts = dict(decision.verdicts)
    for vip in dict.fromkeys(vip for service in _beside(aside.services, services) for vip in service.vips):
        before = past.verdicts.get(vip)
        since = before.since if before is not None and not before.open else now
        verdicts[vip] = Verdict(vip, open=False, reason=why, since=since)
    wakes = [aside.tried_at + AGAIN, *([] if decision.wake_at is None else [decision.wake_at])]
    marked = replace(decision, verdicts=verdicts, faults={**decision.faults, **faults}, wake_at=min(wakes))
    return replace(made, decision=marked, whole=decision, aside=aside)


def compare_around(last: Comparison, actual: State, desired: State) -> Comparison:
    """What ``compare_again`` finds, without the VIPs with which it fails: they stay as they are, but for a route that
    must go. Raises what it raises without any of them."""
    if last.left_out and last.rest is not None:
        some = _of_vips(actual, last.left_out), _of_vips(desired, last.left_out)
        if not any(_comparable(*(_of_vips(state, (vip,)) for state in some)) for vip in last.left_out):
            return _compared_without(last.left_out, last.rest, actual, desired)
    try:
        return compare_again(last, actual, desired)
    except Exception as exc:
        states = _states(actual), _states(desired)
        vips = list(dict.fromkeys(vip for state in states for vip in state))
        bad = culprits(vips, lambda some: _comparable(*(_united(state, some) for state in states)))
        return _compared_without({vip: internal_error(vip, exc) for vip in bad}, UNCOMPARED, actual, desired)


def _compared_without(bad: Mapping[Any, Reason], rest: Comparison, actual: State, desired: State) -> Comparison:
    """``rest``: the last comparison without these VIPs."""
    made = compare_again(rest, _of_others(actual, bad), _of_others(desired, bad))
    routes = {vip: row for vip, row in actual.routes.items() if vip in bad and vip not in desired.routes}
    withdrawn = tuple(Change("routes", vip, row, None) for vip, row in routes.items())
    whys = tuple(Failure(Change("addresses", vip, None, None), why) for vip, why in bad.items())
    return Comparison(actual, desired, (*withdrawn, *made.changes), (*made.failures, *whys), bad, made)


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
    return _rows_where(state, lambda key: _vip(key) in vips)


def _of_others(state: State, vips: Collection[Any]) -> State:
    """The state without the rows of these VIPs."""
    return _rows_where(state, lambda key: _vip(key) not in vips)


def _rows_where(state: State, wanted: Callable[[Any], bool]) -> State:
    rows = {table: {key: row for key, row in state.rows(table).items() if wanted(key)} for table in VIP_TABLES}
    return replace(state, **rows)


def _states(state: State) -> dict[Any, State]:
    """Of each VIP its own."""
    parts: dict[Any, dict[str, dict[Any, Any]]] = {}
    for table in VIP_TABLES:
        for key, row in state.rows(table).items():
            parts.setdefault(_vip(key), {}).setdefault(table, {})[key] = row
    return {vip: State(**rows) for vip, rows in parts.items()}


def _united(states: Mapping[Any, State], vips: Iterable[Any]) -> State:
    some = [states[vip] for vip in vips if vip in states]
    return State(**{table: {k: row for one in some for k, row in one.rows(table).items()} for table in VIP_TABLES})
