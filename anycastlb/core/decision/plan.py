"""From two states to ordered changes.

Theory of operation
-------------------

*The difference* (``diff``) of what is and what should be is a list of changes, one a row. Rows of settings that
nobody asks for are not ours, and are left alone; every other row that is not wanted is deleted.

*The order* (``ORDER``) is one table: traffic leaves before anything is torn down, and arrives after everything is
built. A route is withdrawn first and announced last; weights are raised before they are lowered, so that no flow is
without a backend in between. Changes of one phase keep the order in which they were made.

*Destinations have an order of their own.* The kernel can only append one, and the ``mh`` table depends on their
order. So the longest run of old destinations that stand in the right order stays in place, and every other one is
*moved*: deleted and added again in one batch, without a lower weight in between.

*Failures are contained* (``Failed``). A change that depends on one that failed is not tried: nothing is torn down
under a route that could not be withdrawn, or before what replaces it was made, and no route is announced whose address,
services or backends could not be built, or whose backends got no weight. Everything else goes on.

*Why it is safe.* It is pure: nothing here looks at the machine, or decides what should be. ``apply`` says what one
change means; applying a whole plan to a state gives the desired state, and the difference to that is empty (a law).

Decision record: docs/decisions/0011-decisions-as-a-pipeline-reasons-as-values.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from anycastlb.core.decision.containment import Containment
from anycastlb.core.decision.handover import vips_of
from anycastlb.core.model import (
    EMPTY,
    TABLES,
    Address,
    Change,
    Destination,
    DestinationKey,
    Failure,
    Reason,
    ServiceKey,
    State,
    Table,
    Verdict,
)

ORDER: tuple[tuple[Table, str], ...] = (
    ("sysctls", "set"),
    ("config", "set"),
    ("dns_records", "delete"),
    ("consul_services", "delete"),
    ("consul_services", "close"),
    ("routes", "delete"),
    ("addresses", "create"),
    ("addresses", "update"),
    ("services", "create"),
    ("services", "update"),
    ("destinations", "create"),  # and moved: both append, in canonical order
    ("destinations", "raise"),
    ("routes", "create"),
    ("routes", "update"),
    ("dns_records", "create"),
    ("dns_records", "update"),
    ("consul_services", "create"),
    ("consul_services", "update"),
    ("destinations", "lower"),
    ("destinations", "delete"),
    ("services", "delete"),
    ("addresses", "delete"),
)
_RANK = {phase: rank for rank, phase in enumerate(ORDER)}


def phase(change: Change) -> tuple[Table, str]:
    """Which line of ``ORDER`` a change belongs to."""
    if change.table in ("sysctls", "config"):
        return change.table, "set"
    if change.table == "destinations":
        if change.moved:
            return "destinations", "create"
        if change.verb == "update":
            return "destinations", "lower" if change.new.weight < change.old.weight else "raise"
    if change.table == "consul_services" and change.verb == "update" and not change.new.passing:
        return "consul_services", "close"
    return change.table, change.verb


def diff(actual: State, desired: State) -> tuple[Change, ...]:
    """The changes that turn ``actual`` into ``desired``, in ``ORDER``; empty when nothing differs."""
    return compare(actual, desired)[0]


def compare(actual: State, desired: State) -> tuple[tuple[Change, ...], tuple[Failure, ...]]:
    """The changes, and a failure of each service whose destinations cannot be compared: they stay as they are."""
    contained = Containment()
    changes: list[Change] = []
    for table in TABLES:
        if table == "destinations":
            changes += destination_changes(actual.destinations, desired.destinations, contained)
        else:
            changes += row_changes(table, actual.rows(table), desired.rows(table))
    return ordered(changes), faults_of(contained, desired)


def ordered(changes: Iterable[Change]) -> tuple[Change, ...]:
    """The changes in ``ORDER``; those of one phase stay in the order in which they were found."""
    return tuple(sorted(changes, key=lambda change: _RANK[phase(change)]))


def faults_of(contained: Containment, desired: State) -> tuple[Failure, ...]:
    """A failure of each service whose destinations could not be compared."""
    return tuple(
        Failure(Change("services", key, None, desired.rows("services").get(key)), why)
        for key, why in contained.faults.items()
    )


def row_changes(table: Table, actual: Mapping[Any, Any], desired: Mapping[Any, Any]) -> Iterable[Change]:
    """The changes of a table whose rows have no order."""
    for key, new in desired.items():
        old = actual.get(key)
        if old != new:
            yield Change(table, key, old, new)
    if table not in ("sysctls", "config"):  # settings: those nobody asks for are not ours
        for key, old in actual.items():
            if key not in desired:
                yield Change(table, key, old, None)


Destinations: TypeAlias = Mapping[DestinationKey, Destination]


def destination_changes(actual: Destinations, desired: Destinations, contained: Containment) -> Iterable[Change]:
    """The changes of destinations, service by service. What cannot be compared is noted in ``contained``."""
    before, after = _by_service(actual), _by_service(desired)
    for service, wanted in after.items():
        yield from contained.of(service, _of_service, actual, desired, before.get(service, ()), wanted) or ()
    for key, old in actual.items():
        if key not in desired and key.service not in contained.faults:
            yield Change("destinations", key, old, None)


def _of_service(
    actual: Destinations, desired: Destinations, before: Iterable[DestinationKey], wanted: Iterable[DestinationKey]
) -> list[Change]:
    changes: list[Change] = []
    in_place = _in_place(before, wanted)
    for place, key in enumerate(wanted):
        old, new = actual.get(key), desired[key]
        if old is not None and place >= in_place:
            changes += _move(key, old, new)
        elif old != new:
            changes.append(Change("destinations", key, old, new))
    return changes


def _move(key: DestinationKey, old: Destination, new: Destination) -> Iterable[Change]:
    """Delete and append. It never lowers the weight on the way: a raise elsewhere must come first."""
    if new.weight >= old.weight:
        yield Change("destinations", key, old, new, moved=True)
        return
    between = replace(new, weight=old.weight, last_weight=old.weight)
    yield Change("destinations", key, old, between, moved=True)
    yield Change("destinations", key, between, new)


def _in_place(actual: Iterable[DestinationKey], wanted: Iterable[DestinationKey]) -> int:
    """How many of the oldest wanted destinations stand in the right relative order already.

    Only appending is possible, so what stays must be a prefix of the wanted list.
    """
    positions = {key: place for place, key in enumerate(actual)}
    last, count = -1, 0
    for key in wanted:
        position = positions.get(key, -1)
        if position <= last:
            break
        last, count = position, count + 1
    return count


def _by_service(rows: Iterable[DestinationKey]) -> dict[ServiceKey, list[DestinationKey]]:
    grouped: dict[ServiceKey, list[DestinationKey]] = defaultdict(list)
    for key in rows:
        grouped[key.service].append(key)
    return grouped


Fwmarks: TypeAlias = Mapping[ServiceKey, frozenset[Address]]
"""The VIPs of fwmark services (``Memory.fwmarks``)."""


class Failed:
    """The failures of a plan so far, by what depends on them.

    A failure is contained in what depends on it: nothing is torn down under a route that could not be withdrawn, or
    before what replaces it is there, and no route is announced whose address, services or backends could not be built.
    ``desired``: the destinations that the plan leads to. Of a service that gets none of its weights, none is taken.
    ``leaving``: the rows nobody asks for any more. They lose no weight under a route that is still up.
    """

    def __init__(
        self,
        verdicts: Mapping[Address, Verdict],
        fwmarks: Fwmarks = EMPTY,
        failures: Iterable[Failure] = (),
        desired: Destinations = EMPTY,
        leaving: Container[tuple[Table, Any]] = (),
    ) -> None:
        self._verdicts, self._fwmarks, self._desired, self._leaving = verdicts, fwmarks, desired, leaving
        self._first: dict[tuple[Table, Any], Failure] = {}
        """The first failure of each row."""
        self._of_service: dict[ServiceKey, Failure] = {}
        """The first failure of each service, or of a backend that it was to get; one that is under way comes last."""
        self._raises: dict[ServiceKey, Failure] = {}
        """The first failure of each service to give a weight to a destination that had none."""
        self._weighted: dict[ServiceKey, list[DestinationKey]] | None = None
        self.add(failures)

    def add(self, failures: Iterable[Failure]) -> None:
        for failure in failures:
            change = failure.change
            self._first.setdefault((change.table, change.key), failure)
            if change.table == "services":
                self._note(change.key, failure)
            elif change.table == "destinations" and change.verb == "create" and change.new.weight:
                self._note(change.key.service, failure)
            elif change.table == "destinations" and _gives_weight(change):
                self._raises.setdefault(change.key.service, failure)

    def _note(self, service: ServiceKey, failure: Failure) -> None:
        known = self._of_service.get(service)
        if known is None or (known.pending and not failure.pending):
            self._of_service[service] = failure

    def blocks(self, change: Change) -> Failure | None:
        """What becomes of a change that must not be tried after these failures; None = go ahead.

        A change that waits only for what is under way is under way itself.
        """
        if change.table == "routes" and change.new is not None:
            return self._incomplete(change)
        if change.verb == "delete" and (vips := _vips(change, self._fwmarks)):
            return self._still_needed(change, vips)
        if change.table != "destinations":
            return None
        if change.verb == "update" and not change.new.weight and (outcome := self._last_weight(change)):
            return outcome
        service = self._first.get(("services", change.key.service))
        if service and service.change.verb == "create":
            why = Reason("service_missing", f"its service is missing: {service.reason}", str(service.change.key))
            return Failure(change, why, service.pending)
        return None

    def _incomplete(self, change: Change) -> Failure | None:
        """A route whose VIP lacks its address, a service or a backend that the decision counts on."""
        address = self._first.get(("addresses", change.key))
        cause = _worst([*([address] if address else []), *self._services(change.key)])
        if cause is None:
            return None
        why = Reason("vip_incomplete", f"not announced: {cause.reason}", str(cause.change.key))
        return Failure(change, why, cause.pending)

    def _last_weight(self, change: Change) -> Failure | None:
        """A weight that must stay: no other could be given, or a route that is still up leads to what is leaving."""
        if cause := self._weightless(change.key.service):
            return _kept(change, cause)
        if ("destinations", change.key) in self._leaving:
            return self._still_led_to(change, _vips(change, self._fwmarks))
        return None

    def _still_led_to(self, change: Change, vips: frozenset[Address]) -> Failure | None:
        """A row under a route that is still up."""
        for vip in vips:
            if (up := self._first.get(("routes", vip))) and up.change.verb == "delete":
                why = f"kept, because the route is still up: {up.reason}"
                return Failure(change, Reason("route_still_up", why, str(up.change.key)), up.pending)
        return None

    def _still_needed(self, change: Change, vips: frozenset[Address]) -> Failure | None:
        """A row under a route that is still up, or whose replacement could not be made."""
        if up := self._still_led_to(change, vips):
            return up
        cause = _worst([failure for vip in vips for failure in self._services(vip, replacing=True)])
        return None if cause is None else _kept(change, cause)

    def _weightless(self, service: ServiceKey) -> Failure | None:
        """The failure that leaves a service without any of the weights that the plan leads to; None if it has one."""
        failure = self._raises.get(service)
        if failure is None:
            return None
        if self._weighted is None:
            self._weighted = _by_service(key for key, row in self._desired.items() if row.weight)
        has_one = any(not self._lost(key) for key in self._weighted.get(service, ()))
        return None if has_one else failure

    def _lost(self, key: DestinationKey) -> bool:
        failure = self._first.get(("destinations", key))
        return failure is not None and (failure.change.old is None or _gives_weight(failure.change))

    def _services(self, vip: Address, replacing: bool = False) -> list[Failure]:
        """The failures of the services that the decision to announce a VIP counts on.

        ``replacing``: only of services that can be served. The next decision knows of the failure, and counts on it no
        more, so that nothing is kept for long.
        """
        verdict = self._verdicts.get(vip)
        services = [item for item in verdict.services if item.open or not replacing] if verdict else []
        failures = (self._of_service.get(item.key) or self._weightless(item.key) for item in services)
        return [failure for failure in failures if failure]


def _gives_weight(change: Change) -> bool:
    """Does it give a weight to a destination that had none?"""
    return change.old is not None and change.new is not None and bool(change.new.weight) and not change.old.weight


def _kept(change: Change, cause: Failure) -> Failure:
    why = f"kept until the next look, because what replaces it could not be made: {cause.reason}"
    return Failure(change, Reason("replacement_missing", why, str(cause.change.key)), cause.pending)


def _worst(failures: Sequence[Failure]) -> Failure | None:
    """The first that is not merely under way; else the first."""
    return min(failures, key=lambda failure: failure.pending, default=None)


def _vips(change: Change, fwmarks: Fwmarks) -> frozenset[Address]:
    """The VIPs that a row serves; none for a name, a route or a probe's row."""
    if change.table == "addresses":
        return frozenset({change.key})
    if change.table in ("services", "destinations"):
        return vips_of(change.key.service if change.table == "destinations" else change.key, fwmarks)
    return frozenset()


def tears_down(change: Change) -> bool:
    """Is it one of those that come last, and are not tried before all that is built was?"""
    return _RANK[phase(change)] >= _RANK["destinations", "lower"]


def apply(state: State, change: Change) -> State:
    """What one change makes of a state: the meaning the drivers must give it."""
    rows = dict(state.rows(change.table))
    if change.new is None or change.moved:
        rows.pop(change.key, None)
    if change.new is not None:
        rows[change.key] = change.new
    return replace(state, **{change.table: rows})
