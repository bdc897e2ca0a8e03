"""The laws of the planner: every pair of states, every step of every plan."""

from __future__ import annotations

from functools import reduce

from hypothesis import given

from anycastlb.core.decision.plan import ORDER, apply, diff, phase
from anycastlb.core.model import State
from tests.support.states import states


def run(state: State, plan) -> list[State]:
    """The state before the plan and after each of its steps."""
    return reduce(lambda seen, change: [*seen, apply(seen[-1], change)], plan, [state])


def order(state: State) -> dict:
    """Every service's destinations in kernel order."""
    found: dict = {}
    for key in state.destinations:
        found.setdefault(key.service, []).append(key)
    return found


@given(states(), states())
def test_converges(a: State, b: State) -> None:
    end = run(a, diff(a, b))[-1]
    assert end == b
    assert order(end) == order(b), "the order of destinations is part of the state"


@given(states())
def test_quiet(a: State) -> None:
    assert diff(a, a) == ()


@given(states(), states())
def test_survives_interruption(a: State, b: State) -> None:
    for half_way in run(a, diff(a, b)):
        end = run(half_way, diff(half_way, b))[-1]
        assert end == b and order(end) == order(b)


@given(states(), states())
def test_no_black_hole(a: State, b: State) -> None:
    for state in run(a, diff(a, b)):
        for vip in state.routes:
            assert vip in state.addresses, f"{vip} is announced without its address"
            served = {key.service for key in state.destinations if key.service.address == vip}
            assert served & state.services.keys(), f"{vip} is announced without a service that has a destination"


@given(states(), states())
def test_no_name_leads_to_a_vip_that_is_not_announced(a: State, b: State) -> None:
    for state in run(a, diff(a, b)):
        routes = set(map(str, state.routes))
        assert {key.data for key in state.dns_records} <= routes
        assert {str(row.address) for row in state.consul_services.values() if row.passing} <= routes


@given(states(), states())
def test_always_a_weight(a: State, b: State) -> None:
    """A VIP that is announced throughout, and has a weight at both ends, has one at every step."""

    def weighted(state: State) -> set:
        return {key.service.address for key, row in state.destinations.items() if row.weight}

    steady = a.routes.keys() & b.routes.keys() & weighted(a) & weighted(b)
    for state in run(a, diff(a, b)):
        assert steady <= weighted(state)


@given(states(), states())
def test_in_order(a: State, b: State) -> None:
    ranks = [ORDER.index(phase(change)) for change in diff(a, b)]
    assert ranks == sorted(ranks)


@given(states(), states())
def test_nothing_unchanged_is_written(a: State, b: State) -> None:
    for change in diff(a, b):
        assert change.old != change.new or change.moved
        if change.moved:
            old, new = order(a)[change.key.service], order(b)[change.key.service]
            assert old != new, "moved although the order was right"
