"""The laws of the planner: every pair of states, every step of every plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import reduce
from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st

from anycastlb.core.decision.failed_changes import FailedChanges
from anycastlb.core.decision.plan import ORDER, apply, diff, phase, tears_down
from anycastlb.core.model import Address, Change, Failure, Reason, ServiceKey, ServiceVerdict, State, Verdict
from tests.support.states import VIPS, states


def run(state: State, plan) -> list[State]:
    """The state before the plan and after each of its steps."""
    return reduce(lambda seen, change: [*seen, apply(seen[-1], change)], plan, [state])


def order(state: State) -> dict:
    """Every service's destinations in kernel order."""
    order: dict = {}
    for key in state.destinations:
        order.setdefault(key.service, []).append(key)
    return order


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


MARKED = {ServiceKey("fwmark", type(vip)(0), mark): frozenset({vip}) for mark, vip in enumerate(VIPS, 1)}
"""A fwmark service for each VIP."""
DRIVER = {"services": "ipvs", "destinations": "ipvs", "addresses": "addresses", "routes": "bgp"}
MARKS = {vip: key for key, vips in MARKED.items() for vip in vips}


def marked(state: State) -> State:
    """The same state, with every service on port 443 by firewall mark."""

    def key(service: ServiceKey) -> ServiceKey:
        return MARKS[service.address] if service.port == 443 else service

    services = {key(service): row for service, row in state.services.items()}
    rows = {replace(k, service=key(k.service)): row for k, row in state.destinations.items()}
    return replace(state, services=services, destinations=rows)


def vips_of(service: ServiceKey) -> frozenset[Address]:
    return MARKED.get(service, frozenset({service.address}))


def verdicts(wanted: State) -> dict[Address, Verdict]:
    """What a decision for this state thinks of its VIPs."""
    why = Reason("backends_up", "1/1 backends up")
    by_vip: dict[Address, Verdict] = {}
    for vip in VIPS:
        services = [key for key in wanted.services if vip in vips_of(key)]
        judged = tuple(ServiceVerdict(str(key), key, True, 1, 1, 1, why) for key in services)
        by_vip[vip] = Verdict(vip, vip in wanted.routes, why, 0.0, judged)
    return by_vip


def carried_out(state: State, wanted: State, broken: Change) -> Iterator[State]:
    """Every state of a plan of which one change fails, as the reconciler carries plans out."""
    failures: list[Failure] = []
    parts = groupby(diff(state, wanted), key=lambda change: (DRIVER.get(change.table), tears_down(change)))
    for _, run_ in parts:
        ready = []
        for change in run_:
            if outcome := FailedChanges(verdicts(wanted), MARKED, failures, wanted.destinations).blocks(change):
                failures.append(outcome)
            else:
                ready.append(change)
        for change in ready:
            if change == broken:
                failures.append(Failure(change, Reason("kernel_refused", "no")))
            else:
                state = apply(state, change)
                yield state


def weighted(state: State, vip: Address) -> bool:
    return any(row.weight for key, row in state.destinations.items() if vip in vips_of(key.service))


@given(states().map(marked), states().map(marked), st.data())
def test_no_black_hole_though_a_change_fails(a: State, b: State, data: st.DataObject) -> None:
    plan = diff(a, b)
    if not plan:
        return
    for state in carried_out(a, b, data.draw(st.sampled_from(plan))):
        for vip in state.routes:
            assert vip in state.addresses, f"{vip} is announced without its address"
            serving = {key.service for key in state.destinations if vip in vips_of(key.service)}
            if weighted(b, vip) or vip not in b.routes:  # no row without a weight is waited for
                assert serving & state.services.keys(), f"{vip} is announced without a service that has a destination"
            if weighted(a, vip) and weighted(b, vip):
                assert weighted(state, vip), f"{vip} is announced without a weight"
