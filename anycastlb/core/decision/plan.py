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

*Failures are contained* (``failed_changes``). A change that depends on one that failed is not tried; everything else
goes on.

*Why it is safe.* It is pure: nothing here looks at the machine, or decides what should be. ``apply`` says what one
change means; applying a whole plan to a state gives the desired state, and the difference to that is empty (a law).

Decision record: docs/decisions/0011-decisions-as-a-pipeline-reasons-as-values.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from operator import itemgetter
from typing import Any, TypeAlias

from anycastlb.core.decision.containment import Containment
from anycastlb.core.delta import in_one_piece
from anycastlb.core.model import (
    ALL_TABLES,
    Change,
    Destination,
    DestinationKey,
    Failure,
    HttpServer,
    ServerState,
    ServiceKey,
    State,
    Table,
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
    ("http_engine", "create"),  # HAProxy listens on addresses that are there
    ("http_engine", "update"),
    ("http_certificates", "create"),
    ("http_certificates", "update"),
    ("http_servers", "create"),
    ("http_servers", "raise"),
    ("http_sites", "create"),
    ("http_sites", "update"),
    ("services", "create"),
    ("services", "update"),
    ("destinations", "create"),  # and moved: both append, in canonical order
    ("destinations", "raise"),
    ("ingress_marks", "create"),
    ("ingress_marks", "update"),
    ("routes", "create"),
    ("routes", "update"),
    ("dns_records", "create"),
    ("dns_records", "update"),
    ("consul_services", "create"),
    ("consul_services", "update"),
    ("ingress_marks", "delete"),
    ("destinations", "lower"),
    ("destinations", "delete"),
    ("services", "delete"),
    ("http_servers", "lower"),
    ("http_sites", "delete"),
    ("http_servers", "delete"),
    ("http_certificates", "delete"),
    ("http_engine", "delete"),
    ("addresses", "delete"),
)
SERVER_STATES: tuple[ServerState, ...] = ("maint", "drain", "ready")
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
    if change.table == "http_servers" and change.verb == "update":
        return "http_servers", "lower" if _use(change.new) < _use(change.old) else "raise"
    if change.table == "consul_services" and change.verb == "update" and not change.new.passing:
        return "consul_services", "close"
    return change.table, change.verb


def _use(server: HttpServer) -> tuple[int, int]:
    """How many of the requests it gets, as far as two of them can be compared."""
    return SERVER_STATES.index(server.state), server.weight


def diff(actual: State, desired: State) -> tuple[Change, ...]:
    """The changes that turn ``actual`` into ``desired``, in ``ORDER``; empty when nothing differs."""
    return compare(actual, desired)[0]


def compare(actual: State, desired: State) -> tuple[tuple[Change, ...], tuple[Failure, ...]]:
    """The changes, and a failure of each service whose destinations cannot be compared: they stay as they are."""
    contained = Containment()
    changes: list[Change] = []
    for table in ALL_TABLES:
        if table == "destinations":
            changes += destination_changes(actual.destinations, desired.destinations, contained)
        else:
            changes += row_changes(table, actual.rows(table), desired.rows(table))
    return ordered(changes, contained), faults_of(contained, desired)


def ordered(changes: Iterable[Change], contained: Containment) -> tuple[Change, ...]:
    """The changes in ``ORDER``; those of one phase stay in the order in which they were found.

    One whose place cannot be told is noted in ``contained`` and left out; but a route that must go is withdrawn first.
    """
    ranked: list[tuple[int, Change]] = []
    for change in changes:
        rank = contained.of(change.key, _rank, change)
        if rank is None and change.table == "routes" and change.new is None:
            rank = _RANK["routes", "delete"]
        if rank is not None:
            ranked.append((rank, change))
    return tuple(change for _, change in sorted(ranked, key=itemgetter(0)))


def _rank(change: Change) -> int:
    return _RANK[phase(change)]


def faults_of(contained: Containment, desired: State) -> tuple[Failure, ...]:
    """A failure of each service or VIP whose rows could not be compared."""
    failures = {}
    for subject, why in contained.faults.items():
        key: Any = subject.service if isinstance(subject, DestinationKey) else subject
        table: Table = "services" if isinstance(key, ServiceKey) else "addresses"
        failures[key] = Failure(Change(table, key, None, desired.rows(table).get(key)), why)
    return tuple(failures.values())


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
    before, after = by_service(actual), by_service(desired)
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


def by_service(rows: Iterable[DestinationKey]) -> dict[ServiceKey, list[DestinationKey]]:
    grouped: dict[ServiceKey, list[DestinationKey]] = defaultdict(list)
    for key in rows:
        grouped[key.service].append(key)
    return grouped


def tears_down(change: Change) -> bool:
    """Is it one of those that come last, and are not tried before all that is built was?"""
    return _RANK[phase(change)] >= _RANK["destinations", "lower"]


def apply(state: State, change: Change) -> State:
    """What one change makes of a state: the meaning the drivers must give it."""
    rows = dict(in_one_piece(state.rows(change.table)))
    if change.new is None or change.moved:
        rows.pop(change.key, None)
    if change.new is not None:
        rows[change.key] = change.new
    return replace(state, **{change.table: rows})
