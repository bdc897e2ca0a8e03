"""The laws of the brain: no history, restart or edit breaks them."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from anycastlb.core.decision.decide import adopt, decide
from anycastlb.core.decision.plan import diff
from anycastlb.core.model import (
    Catalog,
    CheckState,
    Inputs,
    Memory,
    Policy,
    Result,
    State,
)
from tests.support.catalogs import SECONDS, backend, catalogs


@st.composite
def inputs(draw: st.DrawFn, unknown: tuple[None, ...] = (None,)) -> Inputs:
    states = {}
    for number in range(1, 5):
        up = draw(st.sampled_from([True, True, False, *unknown]))
        if up is not None:
            states[backend(number).check] = CheckState(up, last=Result(up, "seen", 0.1, 0.0))
    return Inputs(Policy("lb1"), draw(catalogs()), health=states, stopping=draw(st.sampled_from([False] * 5 + [True])))


histories = st.lists(st.tuples(SECONDS, inputs()), min_size=1, max_size=6)


def replay(history):
    """Every (now, inputs, decision) of a history."""
    memory, now = Memory(), 100.0
    for pause, given_inputs in history:
        now += pause
        decision = decide(given_inputs, memory, now)
        yield now, given_inputs, decision
        memory = decision.memory


@given(histories)
def test_an_announced_vip_can_be_served(history) -> None:
    for _, _, decision in replay(history):
        for vip in decision.desired.routes:
            assert vip in decision.desired.addresses
            weights = [r.weight for k, r in decision.desired.destinations.items() if k.service.address == vip]
            assert any(weights), f"{vip} announced with nothing to send flows to: {decision.verdicts[vip]}"


@given(histories)
def test_every_verdict_has_a_reason(history) -> None:
    for _, _, decision in replay(history):
        for verdict in (*decision.verdicts.values(), *decision.backends.values()):
            assert verdict.reason.text and verdict.reason.code
        assert all(verdict.open == (vip in decision.desired.routes) for vip, verdict in decision.verdicts.items())


@given(histories)
def test_deciding_twice_changes_nothing(history) -> None:
    *_, (now, last, decision) = replay(history)
    again = decide(last, decision.memory, now)
    assert again.desired == decision.desired and diff(again.desired, decision.desired) == ()


@given(histories, SECONDS)
def test_wakes_in_time(history, later: float) -> None:
    """Between a decision and its wake_at the mere passing of time changes nothing."""
    *_, (now, last, decision) = replay(history)
    then = now + later
    if decision.wake_at is not None:
        assert decision.wake_at > now
        then = min(then, decision.wake_at - 0.001)
    assert diff(decision.desired, decide(last, decision.memory, then).desired) == ()


@given(histories, catalogs())
def test_drains(history, after: Catalog) -> None:
    """What was served stays, for its drain time, whatever the catalog says next; and is gone after it."""
    *_, (now, last, before) = replay(history)
    if last.stopping:
        return
    edited = replace(last, catalog=after)
    soon = decide(edited, before.memory, now)
    for service in last.catalog.services:
        for vip in service.vips if service.drain else ():
            assert vip in soon.desired.addresses
            assert service.key(vip) in soon.desired.services
    late = decide(edited, soon.memory, now + 1000)
    wanted = {service.key(vip) for service in after.services for vip in service.vips}
    assert late.desired.services.keys() == wanted
    assert late.desired.addresses.keys() == after.vips
    assert {key.service for key in late.desired.destinations} <= wanted


@given(histories)
def test_a_stopping_node_ends_empty(history) -> None:
    *_, (now, last, before) = replay(history)
    stopping = replace(last, stopping=True)
    first = decide(stopping, before.memory, now)
    assert not first.desired.routes
    end = decide(stopping, first.memory, now + 1000).desired
    assert not (end.addresses or end.services or end.destinations or end.routes)


@given(catalogs(), st.booleans())
def test_hitless_restart(catalog: Catalog, checked: bool) -> None:
    """Same catalog, healthy backends: the first plan after a restart is empty, before and after the first results."""
    up = {b.check: CheckState(True, last=Result(True, "connected", 0.1, 0.0)) for b in map(backend, range(1, 5))}
    served = Inputs(Policy("lb1"), catalog, health=up)
    *_, (_, _, before) = replay([(0, served), (1000, served)])
    steady = decide(served, before.memory, 5000.0).desired
    health = up if checked else {}
    after = decide(Inputs(Policy("lb1"), catalog, health=health), adopt(steady, 9000.0), 9000.0).desired
    assert diff(steady, after) == ()


@given(histories, inputs(unknown=()))
def test_one_table(history, end: Inputs) -> None:
    """Any history that ends in the same inputs ends, once drained, in the same destinations in the same order.

    (A backend whose check says nothing yet counts as it did before: that is the one thing that is history's.)
    """
    *_, (now, _, decision) = replay([*history, (0.0, end)])
    later = decide(end, decision.memory, now + 1000).desired
    fresh_first = decide(end, Memory(), now)
    fresh = decide(end, fresh_first.memory, now + 1000).desired
    assert list(later.destinations.items()) == list(fresh.destinations.items())


@given(histories)
def test_only_the_unwanted_leaves(history) -> None:
    """Removing a backend moves no other: what stays keeps its place."""
    *_, (now, last, before) = replay(history)
    if last.stopping:
        return
    fewer = replace(
        last,
        catalog=replace(
            last.catalog, services=tuple(replace(s, backends=s.backends[1:]) for s in last.catalog.services)
        ),
    )
    after = decide(fewer, before.memory, now)
    assert not [change for change in diff(before.desired, after.desired) if change.moved]


def test_gates_never_open_on_an_empty_state() -> None:
    assert decide(Inputs(Policy("lb1")), adopt(State(), 0.0), 0.0).desired == State()
