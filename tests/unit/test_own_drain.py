"""What the stages of this node's drain go by."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from anycastlb.core.decision.basis import Basis
from anycastlb.core.decision.judgement import Judgement, Observed, judge
from anycastlb.core.decision.member import ObservedBackend
from anycastlb.core.decision.node_drain import COMMUNITY
from anycastlb.core.decision.own_drain import administrative, drain_step, graceful, unused, withdrawn
from anycastlb.core.model import (
    Backend,
    Catalog,
    Check,
    CheckState,
    Cluster,
    Destination,
    DestinationKey,
    Drain,
    DrainRules,
    Inputs,
    Memory,
    NodeDrain,
    Peer,
    Policy,
    Reason,
    Result,
    Route,
    Service,
    ServiceKey,
    Status,
    Traffic,
    VipSummary,
    VirtualService,
)

NOW = 100.0
VIP, OTHER = ip_address("192.0.2.1"), ip_address("192.0.2.2")
WEB = ServiceKey("tcp", VIP, 80)
RULES = DrainRules(graceful=10.0, settle=20.0, deadline=60.0)
UP, DOWN = (CheckState(ok, since=50.0, last=Result(ok, "seen", 0.1, 50.0)) for ok in (True, False))
STATUS = Status("lb2", True, vips={vip: VipSummary(True, True) for vip in (VIP, OTHER)})
PEERS = Cluster(True, connected=True, peers={"lb2": Peer("lb2", True, STATUS)})
DRAINED = Catalog(drained=frozenset({"lb1"}), drains={"lb1": Drain()})


def stage(name: Any, **more: Any) -> NodeDrain:
    return NodeDrain(name, "drained", 90.0, None, Reason(name, ""), **more)


@pytest.mark.parametrize(
    ("drain", "is_withdrawn", "is_graceful", "is_unused"),
    [
        (None, False, False, False),
        (stage("waiting"), False, False, False),
        (stage("graceful"), False, True, False),
        (stage("withdrawn"), True, False, False),
        (stage("drained"), True, False, True),
        (stage("drained", overdue=True), True, False, False),
    ],
)
def test_what_a_stage_means_for_the_other_steps(
    drain: NodeDrain | None, is_withdrawn: bool, is_graceful: bool, is_unused: bool
) -> None:
    assert (withdrawn(drain), graceful(drain), unused(drain)) == (is_withdrawn, is_graceful, is_unused)


def basis(catalog: Catalog = DRAINED, cluster: Cluster = PEERS, stopping: bool = False, **memory: Any) -> Basis:
    policy = Policy("lb1", drain_rules=RULES)
    inputs = Inputs(policy, catalog, cluster=cluster, stopping=stopping, traffic=Traffic(NOW, 7, 1))
    return Basis(inputs, Memory(**{"routes": {VIP: Route()}, **memory}), NOW, {})


@pytest.mark.parametrize(
    ("drain", "routes", "stopping", "reason"),
    [
        (stage("waiting"), {}, False, None),
        (stage("graceful"), {VIP: Route()}, False, None),
        (stage("graceful"), {OTHER: Route()}, False, Reason("node_drained", "this node is drained (drain/lb1)", "lb1")),
        (stage("withdrawn"), {VIP: Route()}, True, Reason("node_stopping", "this node is stopping", "lb1")),
    ],
)
def test_why_a_vip_may_not_be_announced(
    drain: NodeDrain, routes: dict[Any, Route], stopping: bool, reason: Reason | None
) -> None:
    assert administrative(basis(stopping=stopping, routes=routes), drain, VIP) == reason


def judged(state: CheckState = UP, up_since: float = 0.0, weight: int = 100) -> Judgement:
    address = ip_address("10.0.0.1")
    backend = Backend("b1", address, 80, Check("tcp", address, 80, (), 10, 1, 2, 1), weight=weight)
    service = Service("web", (VIP,), "tcp", 80, VirtualService("mh"), (backend,), slow_start=10.0)
    seen = ObservedBackend(state, up_since if state.up else None, weight)
    return judge(service, VIP, Observed((seen,)), NOW)


@pytest.mark.parametrize(
    ("given", "name", "cause", "until"),
    [
        (basis(), "waiting", "drained", 20.0),
        (basis(stopping=True), "graceful", "stopping", 10.0),
        (basis(cluster=Cluster()), "graceful", "drained", 10.0),  # nobody else has a table
        (basis(routes={VIP: Route(), OTHER: Route(communities=(COMMUNITY,))}), "graceful", "drained", 10.0),
        (basis(routes={}), "withdrawn", "drained", 60.0),
        (basis(replace(DRAINED, drains={"lb1": Drain(deadline=5.0)}), routes={}), "withdrawn", "drained", 5.0),
        (basis(replace(DRAINED, drains={"lb2": Drain(deadline=5.0)}), routes={}), "withdrawn", "drained", 60.0),
        (basis(Catalog(), stopping=True, routes={}), "withdrawn", "stopping", None),
    ],
)
def test_where_a_drain_begins(given: Basis, name: str, cause: str, until: float | None) -> None:
    drain, _ = drain_step(given, [judged()])
    assert drain is not None
    assert (drain.stage, drain.cause, drain.until) == (name, cause, None if until is None else NOW + until)


def test_a_node_that_stays_has_no_drain() -> None:
    others = Catalog(drained=frozenset({"lb2"}))
    assert drain_step(basis(others), [judged()]) == drain_step(basis(Catalog()), [judged()]) == (None, None)


def test_the_traffic_is_counted() -> None:
    drain, _ = drain_step(basis(node_drain=stage("withdrawn"), routes={}), [judged()])
    assert drain is not None and drain.samples == (Traffic(NOW, 7, 1),)


def leaving(service: ServiceKey) -> dict[str, Any]:
    """A backend that the catalog does not name any more, and a service of which nothing is left."""
    key = DestinationKey(service, ip_address("10.0.0.9"), 80)
    api = ServiceKey("tcp", OTHER, 80)
    rows = {("destinations", key): Destination("tunnel", 100, 100), ("services", api): VirtualService("mh")}
    return {"rows": {row_id: (row, 30.0) for row_id, row in rows.items()}}


@pytest.mark.parametrize(
    ("given", "items", "code"),
    [
        (basis(), [judged()], "settling"),
        (basis(), [judged(DOWN)], "settling"),
        (basis(), [judged(up_since=NOW - 5.0)], "slow_start"),
        (basis(), [judged(up_since=NOW - 10.0)], "settling"),
        (basis(), [judged(CheckState())], "not_checked"),
        (basis(**leaving(WEB)), [judged()], "row_leaving"),
        (basis(**leaving(replace(WEB, port=81))), [judged()], "settling"),
        (basis(cluster=replace(PEERS, connected=False)), [judged()], "peers_unknown"),
        (basis(routes={VIP: Route(), ip_address("192.0.2.3"): Route()}), [judged()], "last_announcer"),
    ],
)
def test_what_a_planned_drain_waits_for(given: Basis, items: list[Judgement], code: str) -> None:
    drain, _ = drain_step(given, items)
    assert drain is not None and (drain.stage, drain.reason.code) == ("waiting", code)
    again, _ = drain_step(replace(given, memory=replace(given.memory, node_drain=stage("graceful"))), items)
    assert again is not None and again.stage == "graceful", "it waits only once"


def test_the_number_of_a_table_changes_with_its_rows_and_with_the_routes() -> None:
    def number(given: Basis, *items: Judgement) -> int:
        drain, _ = drain_step(given, items)
        assert drain is not None and drain.unchanged is not None
        return drain.unchanged[0]

    first = number(basis(), judged())
    assert first == number(basis(), judged())
    assert first != number(basis(), judged(weight=50))
    assert first != number(basis(routes={OTHER: Route()}), judged())
    waiting = stage("waiting", unchanged=(first, 95.0))
    after, _ = drain_step(basis(node_drain=waiting), [judged()])
    assert after is not None and after.stage == "graceful", "it has not changed for more than 3 s"


def test_a_pool_that_cannot_be_weighed_holds_up_no_drain() -> None:
    given = basis()
    drain, _ = drain_step(given, [replace(judged(), members=None), judged()])  # type: ignore[arg-type]
    assert drain is not None and drain.reason.code == "settling" and list(given.contained.faults) == [VIP]
