"""The changes that a comparison takes from the last one, and those it makes anew: always the ones from scratch."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from anycastlb.core.decision import plan
from anycastlb.core.decision.comparison import UNCOMPARED, Comparison, compare_again
from anycastlb.core.model import Destination, DestinationKey, Failure, Reason, Route, ServiceKey, State, VirtualService
from tests.support.effort import calls

A, B, C, D = (ip_address(f"192.0.2.{number}") for number in (1, 2, 3, 4))
ONE, TWO = Route(med=1), Route(med=2)
NEITHER = {A: ONE, B: ONE, C: ONE}
EACH = 25
"""Calls for each other row that differs, at most. Comparing it anew takes about 40."""


def compared(actual: State, desired: State, last: Comparison = UNCOMPARED) -> Comparison:
    """Compared again, and the same as from scratch."""
    made = compare_again(last, actual, desired)
    assert (made.changes, made.failures) == plan.compare(actual, desired)
    assert made.actual is actual and made.desired is desired
    return made


def told(made: Comparison) -> list[tuple[str, Any]]:
    return [(change.verb, change.key) for change in made.changes]


@pytest.mark.parametrize(
    ("before", "after", "changes"),
    [
        # What is and what should be, then the same again.
        ((NEITHER, NEITHER), (NEITHER, NEITHER), []),
        (({}, NEITHER), ({}, NEITHER), [("create", A), ("create", B), ("create", C)]),
        # A row that differed is as it should be, by what the kernel does or by what is wanted.
        (({}, NEITHER), ({B: ONE}, NEITHER), [("create", A), ("create", C)]),
        (({A: TWO, B: ONE, C: TWO}, NEITHER), (NEITHER, NEITHER), []),
        (({A: TWO, B: ONE, C: TWO}, NEITHER), ({A: TWO, B: ONE, C: ONE}, NEITHER), [("update", A)]),
        ((NEITHER, {**NEITHER, B: TWO}), (NEITHER, {**NEITHER, B: ONE}), []),
        # One that was as it should be differs: also between two that differed before.
        ((NEITHER, NEITHER), (NEITHER, {**NEITHER, B: TWO}), [("update", B)]),
        (
            (NEITHER, {A: TWO, B: ONE, C: TWO}),
            (NEITHER, {A: TWO, B: TWO, C: TWO}),
            [("update", A), ("update", B), ("update", C)],
        ),
        # One that differed differs in another way, with the same verb or with another.
        ((NEITHER, {A: TWO, B: TWO, C: TWO}), (NEITHER, {A: TWO, B: Route(med=3), C: TWO}), None),
        (({A: TWO, C: TWO}, NEITHER), ({A: TWO, B: TWO, C: TWO}, NEITHER), None),
        ((NEITHER, {A: TWO, C: TWO}), (NEITHER, {A: TWO, B: TWO, C: TWO}), None),
        ((NEITHER, {A: TWO, B: TWO, C: TWO}), (NEITHER, {A: TWO, B: TWO}), None),
        # One that is new where others differ, and one equal row in place of another.
        ((NEITHER, {A: TWO, B: ONE, C: ONE}), (NEITHER, {A: TWO, B: Route(med=1), C: ONE}), [("update", A)]),
        (({}, NEITHER), ({}, {D: ONE, **NEITHER}), [("create", D), ("create", A), ("create", B), ("create", C)]),
        # The same rows in another order, wanted or in the kernel.
        (({}, NEITHER), ({}, {C: ONE, A: ONE, B: ONE}), [("create", C), ("create", A), ("create", B)]),
        ((NEITHER, {}), ({C: ONE, A: ONE, B: ONE}, {}), [("delete", C), ("delete", A), ("delete", B)]),
        ((NEITHER, {}), ({C: TWO, A: TWO, B: TWO}, {}), [("delete", C), ("delete", A), ("delete", B)]),
    ],
)
def test_routes(before: Any, after: Any, changes: list[tuple[str, Any]] | None) -> None:
    last = compared(*(State(routes=routes) for routes in before))
    made = compared(*(State(routes=routes) for routes in after), last)
    assert changes is None or told(made) == changes


def test_two_rows_turn_at_a_time_in_opposite_ways() -> None:
    """As many differ as before, and others."""
    last = compared(State(routes=NEITHER), State(routes={A: TWO, B: ONE, C: ONE}))
    assert told(compared(last.actual, State(routes={A: ONE, B: TWO, C: ONE}), last)) == [("update", B)]
    assert told(compared(last.actual, State(routes={A: TWO, B: TWO, C: ONE}), last)) == [("update", A), ("update", B)]
    both = compared(State(routes=NEITHER), State(routes={A: TWO, B: TWO, C: ONE}))
    assert told(compared(both.actual, State(routes={A: ONE, B: Route(med=3), C: ONE}), both)) == [("update", B)]


WEB, DNS = ServiceKey("tcp", A, 80), ServiceKey("udp", A, 53)
KEYS = [DestinationKey(service, ip_address(f"10.0.0.{n}"), service.port) for service in (WEB, DNS) for n in (1, 2, 3)]
SERVICES = {WEB: VirtualService("mh"), DNS: VirtualService("mh")}


def pool(*weights: int | None) -> State:
    """Of both services the same; without a weight, a backend has no row."""
    rows = {key: Destination("dr", w, w or 100) for key, w in zip(KEYS, weights * 2, strict=True) if w is not None}
    return State(addresses={A: "a row"}, services=SERVICES, destinations=rows)  # type: ignore[dict-item]


def backwards(state: State) -> State:
    return replace(state, destinations=dict(reversed(state.destinations.items())))


@pytest.mark.parametrize(
    "weights",
    [
        ((100, 100, 100), (100, 0, 100), (100, 0, 0)),
        ((100, 100, 100), (100, None, 100), (100, 0, 100)),
        ((100, None, 100), (100, 100, 100), (100, 50, 100)),
        ((100, None, None), (None, 100, 100), (100, 100, 100)),
        ((100, 100, None), (50, 50, None), (50, 50, 50)),
    ],
)
def test_destinations(weights: tuple[Any, ...]) -> None:
    states = [pool(*one) for one in weights]
    last = UNCOMPARED
    for actual in states:
        for desired in (*states, *reversed(states)):
            last = compared(actual, desired, last)
            moved = compared(actual, backwards(desired), last)
            for weighed in states:  # of backends that are moved anyway
                compared(actual, backwards(weighed), moved)


def test_what_is_compared_again_unchanged_is_the_same_comparison() -> None:
    actual, desired = pool(100, 100, 100), pool(100, 0, 100)
    last = compared(actual, desired)
    assert compare_again(last, actual, desired) is last
    assert compare_again(last, replace(actual), replace(desired)) is not last


def test_after_a_comparison_that_failed_everything_is_compared_anew() -> None:
    actual, desired = pool(100, 100, 100), pool(100, 0, 100)
    change = plan.compare(actual, desired)[0][0]
    failed = Comparison(actual, desired, (), (Failure(change, Reason("internal_error", "oops")),))
    compared(actual, replace(desired), failed)


def differing(vips: int) -> int:
    """The calls that comparing one changed route takes while all others differ, as they do as long as BGP is down."""
    wanted = {ip_address("192.0.2.0") + number: Route() for number in range(vips)}
    actual = State()
    last = compared(actual, State(routes=wanted))
    return calls(lambda: compare_again(last, actual, State(routes={**wanted, A: ONE})))


def test_a_row_that_changes_costs_little_for_every_other_that_differs() -> None:
    few, many = 20, 200
    assert differing(many) - differing(few) < EACH * (many - few)


def test_destinations_that_are_made_come_service_by_service() -> None:
    """Also where the rows of two services stand between each other, as they do in no decision."""
    rows = {key: Destination("dr", 100, 100) for pair in zip(KEYS[:3], KEYS[3:], strict=True) for key in pair}
    last = compared(State(), State(destinations=rows))
    made = compared(State(), State(destinations={**rows, KEYS[0]: Destination("dr", 50, 50)}), last)
    assert [change.key for change in made.changes][:6] == KEYS
