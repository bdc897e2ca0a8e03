"""The laws of leaving: whatever happens meanwhile, a node gets out in time, politely, and comes back."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from anycastlb.core.decision import node_drain
from anycastlb.core.decision.decide import decide
from anycastlb.core.decision.plan import diff
from anycastlb.core.model import (
    Catalog,
    CheckState,
    Cluster,
    Decision,
    Difference,
    DrainRules,
    Inputs,
    Memory,
    Peer,
    Policy,
    Result,
    Status,
    Traffic,
    VipSummary,
)
from tests.support.catalogs import SECONDS, backend, catalogs

VIPS = [ip_address("192.0.2.1"), ip_address("192.0.2.2")]
BOUND = 100.0
"""Seconds; more than all stages of any rules drawn here."""
rules = st.builds(
    DrainRules,
    graceful=st.sampled_from([0.0, 0.5, 5.0]),
    med=st.sampled_from([None, 1000]),
    prepend=st.sampled_from([0, 3]),
    settle=st.sampled_from([0.0, 2.0, 20.0]),
    deadline=st.sampled_from([0.0, 3.0, 30.0]),
    max_drained=st.sampled_from([0, 1]),
)


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    announced = {vip: VipSummary(draw(st.booleans()), True) for vip in VIPS}
    status = Status("lb2", drained=draw(st.booleans()), vips=announced)
    peers = {"lb2": Peer("lb2", draw(st.booleans()), status)} if draw(st.booleans()) else {}
    differing = {"web": Difference({"a": ("lb1",), "b": ("lb2",)}, 0.0)} if draw(st.booleans()) else {}
    return Cluster(follows=True, connected=draw(st.booleans()), peers=peers, tables=differing)


@st.composite
def moments(draw: st.DrawFn) -> Inputs:
    """What may be so at one moment, but for whether the node leaves."""
    states = {
        backend(n).check: CheckState(up, last=Result(up, "seen", 0.1, 0.0))
        for n in range(1, 5)
        if (up := draw(st.sampled_from([True, True, True, False])))
    }
    catalog = replace(draw(catalogs()), drained=frozenset())
    cluster = draw(st.one_of(st.just(Cluster()), clusters()))
    packets = draw(st.sampled_from([None, 0, 3, 1000]))
    traffic = None if packets is None else Traffic(0.0, packets, 1)
    return Inputs(Policy("lb1"), catalog, health=states, cluster=cluster, traffic=traffic)


def told(inputs: Inputs, how: str, given_rules: DrainRules, now: float) -> Inputs:
    drained = frozenset({"lb1"} if how == "drained" else ())
    traffic = inputs.traffic and replace(inputs.traffic, at=now, packets=inputs.traffic.packets + int(now * 10))
    catalog = replace(inputs.catalog, drained=drained)
    return replace(
        inputs,
        catalog=catalog,
        stopping=how == "stopping",
        policy=Policy("lb1", drain_rules=given_rules),
        traffic=traffic,
    )


histories = st.lists(
    st.tuples(SECONDS, moments(), st.sampled_from(["", "", "drained", "drained", "stopping"])), min_size=1, max_size=6
)


def replay(history, given_rules: DrainRules) -> list[tuple[float, Inputs, Decision]]:
    """Every look of a history: at what changes, and whenever a decision asks for another."""
    memory, now, found = Memory(), 100.0, []
    stopped = False
    last: Inputs | None = None
    for pause, moment, how in history:
        then = now + pause
        while last is not None and found[-1][2].wake_at is not None and found[-1][2].wake_at < then:
            now = found[-1][2].wake_at
            assert len(found) < 2 or not 0 < now - found[-2][0] < 0.01, "it looks again and again"
            found.append((now, last, decide(last, memory, now)))
            memory = found[-1][2].memory
        now, stopped = then, stopped or how == "stopping"  # who stops does not come back
        last = told(moment, "stopping" if stopped else how, given_rules, now)
        found.append((now, last, decide(last, memory, now)))
        memory = found[-1][2].memory
    return found


def settled(history):
    """The same with one catalog throughout, time to serve before and time to leave after."""
    first = history[0][1].catalog
    same = [(pause, replace(moment, catalog=first), how) for pause, moment, how in history]
    up = {b.check: CheckState(True, last=Result(True, "seen", 0.1, 0.0)) for b in map(backend, range(1, 5))}
    serving = replace(same[0][1], health=up)
    return [(0.0, serving, ""), (BOUND, serving, ""), *same, (BOUND, *same[-1][1:])]


@given(histories, rules, st.sampled_from(["drained", "stopping"]))
def test_who_leaves_is_out_in_time(history, given_rules, how: str) -> None:
    """Withdrawn within settle and graceful, whatever is wrong with the cluster; drained within the deadline."""
    *_, (now, last, before) = replay(history, given_rules)
    if last.stopping:
        how = "stopping"
    last, memory = told(last, how, given_rules, now), before.memory
    began = now
    while True:
        decision = decide(last, memory, now)
        memory = decision.memory
        assert memory.node_drain is not None and now - began < BOUND
        if not decision.desired.routes and memory.node_drain.stage in ("withdrawn", "drained"):
            break
        assert decision.wake_at is not None, "it waits for nothing"
        now = decision.wake_at
        last = replace(last, traffic=last.traffic and replace(last.traffic, at=now, packets=last.traffic.packets + 100))
    assert now - began <= given_rules.settle + given_rules.graceful + 0.1
    while how == "drained" and memory.node_drain.stage != "drained":
        decision = decide(last, memory, now)
        memory = decision.memory
        assert memory.node_drain is not None
        if memory.node_drain.stage != "drained":
            assert decision.wake_at is not None
            now = decision.wake_at
        assert now - began <= given_rules.settle + given_rules.graceful + given_rules.deadline + 0.2
    assert not decision.desired.routes


@given(histories, rules)
def test_no_route_goes_before_it_was_the_last_choice(history, given_rules) -> None:
    """A node that leaves withdraws what could be served only after it carried the community, for as long as it must."""
    if not given_rules.graceful:
        return
    since: dict[object, float] = {}
    found = replay(settled(history), given_rules)
    for (_, _, before), (now, last, after) in pairwise(found):
        for vip, route in before.desired.routes.items():
            if node_drain.COMMUNITY not in route.communities:
                since.pop(vip, None)
        for vip, route in after.desired.routes.items():
            if node_drain.COMMUNITY in route.communities:
                since.setdefault(vip, now)
                leaving = last.stopping or last.catalog.drained
                assert leaving and vip in before.desired.routes, "only what was announced before"
            else:
                since.pop(vip, None)
        if not (last.stopping or last.catalog.drained):
            continue
        for vip in before.desired.routes.keys() - after.desired.routes.keys():
            verdict = after.verdicts.get(vip)
            if verdict and verdict.reason.code in ("node_drained", "node_stopping"):
                assert vip in since and now - since[vip] >= given_rules.graceful - 0.001


@given(histories, rules)
def test_undraining_comes_back_to_what_would_be(history, given_rules) -> None:
    """At any stage: then the same is desired as if the node had never been drained."""
    kept = [(pause, moment, "drained" if how == "stopping" else how) for pause, moment, how in history]
    *_, (now, last, before) = replay(kept, given_rules)
    *_, (_, _, never) = replay([(pause, moment, "") for pause, moment, _ in kept], given_rules)
    back = told(last, "", given_rules, now)
    after = decide(back, before.memory, now)
    assert after.memory.node_drain is None
    late, same = (decide(back, decide(back, d.memory, now).memory, now + 1000).desired for d in (before, never))
    assert late == same
    assert not any(node_drain.COMMUNITY in route.communities for route in after.desired.routes.values())


@given(histories, rules, SECONDS)
def test_wakes_in_time(history, given_rules, later: float) -> None:
    *_, (now, last, decision) = replay(history, given_rules)
    then = now + later
    if decision.wake_at is not None:
        assert decision.wake_at > now
        then = min(then, decision.wake_at - 0.001)
    assert diff(decision.desired, decide(last, decision.memory, then).desired) == ()


@given(histories, rules, SECONDS)
def test_it_does_not_look_again_and_again_for_nothing(history, given_rules, left: float) -> None:
    """A decision may ask for another a moment later, but then it has something to do. In the end the node is drained,
    and stopped before or after it was out."""
    moment = history[-1][1]
    whole = [*history, (0.0, moment, "drained"), (left, moment, "stopping"), (BOUND, moment, "stopping")]
    *_, (_, _, last) = replay(whole, given_rules)  # which sees to it
    assert not last.desired.routes


@given(histories, rules)
def test_deciding_twice_changes_nothing(history, given_rules) -> None:
    """Once the routes are out of the memory that this very decision withdraws, as their VIPs left the catalog."""
    *_, (now, last, first) = replay(history, given_rules)
    decision = decide(last, first.memory, now)
    assert decision.desired == first.desired
    again = decide(last, decision.memory, now)
    assert again.desired == decision.desired
    one, two = decision.memory.node_drain, again.memory.node_drain
    assert (one and (one.stage, one.since, one.reason)) == (two and (two.stage, two.since, two.reason))


@given(catalogs(), rules)
def test_a_node_that_starts_drained_announces_nothing(catalog: Catalog, given_rules) -> None:
    up = {b.check: CheckState(True, last=Result(True, "connected", 0.1, 0.0)) for b in map(backend, range(1, 5))}
    drained = replace(catalog, drained=frozenset({"lb1"}))
    decision = decide(Inputs(Policy("lb1", drain_rules=given_rules), drained, health=up), Memory(), 100.0)
    assert not decision.desired.routes
