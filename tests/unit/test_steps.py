"""The steps of a decision together: what becomes of a VIP when one of them fails, and what the later ones go by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from anycastlb.core.decision import assessment, peer_votes, steps, vip_gates
from anycastlb.core.decision.basis import Basis
from anycastlb.core.decision.decide import decide
from anycastlb.core.decision.gate import NEVER
from anycastlb.core.decision.peer_votes import Following
from anycastlb.core.decision.pool import KeptBackends
from anycastlb.core.decision.steps import Steps, take_steps, weigh_pools
from anycastlb.core.decision.vip_groups import group_vips
from anycastlb.core.model import (
    Address,
    Catalog,
    Cluster,
    Decision,
    DrainRules,
    Memory,
    NodeDrain,
    Peer,
    Policy,
    Reason,
    ServiceSummary,
    Status,
    VipSummary,
)
from tests.support.two_vips import API, DOWN, FIRST, FOURTH, INPUTS, ONE, REST, TWO, WEB, at_rest, service

LATER = REST + 10.0
BEFORE = INPUTS
AFTER = replace(BEFORE, health={**BEFORE.health, FIRST.check: DOWN})


def broken_about(vip: Address, step: Callable[..., Any]) -> Callable[..., Any]:
    """It fails when it is called for this VIP."""

    def broken(*args: Any) -> Any:
        if any(
            vip in (arg, getattr(arg, "vip", None), getattr(getattr(arg, "case", None), "vip", None)) for arg in args
        ):
            raise ZeroDivisionError("oops")
        return step(*args)

    return broken


STEPS = {
    "assess": (assessment, "judge"),
    "peers": (peer_votes, "hear"),
    "gate": (vip_gates, "step_gate"),
    "weigh": (steps, "weigh"),
}


def of(vip: Address, decision: Decision) -> dict[str, Any]:
    """All that a decision says of the rows of one VIP."""
    wanted = decision.desired
    return {
        "addresses": {key: row for key, row in wanted.addresses.items() if key == vip},
        "services": {key: row for key, row in wanted.services.items() if key.address == vip},
        "destinations": {key: row for key, row in wanted.destinations.items() if key.service.address == vip},
        "up since": {key: at for key, at in decision.memory.up_since.items() if key.service.address == vip},
    }


def closed_and_kept(before: Decision, after: Decision) -> None:
    assert after.faults.keys() == {str(ONE)}
    assert not after.verdicts[ONE].open and after.verdicts[ONE].reason.code == "internal_error"
    assert after.desired.routes.keys() == {TWO} and after.memory.routes.keys() == {TWO}
    assert of(ONE, after) == of(ONE, before) and of(ONE, before)["destinations"]
    assert not after.memory.leaving, "its rows are asked for, not on their way out"


@pytest.mark.parametrize("step", STEPS)
def test_a_vip_on_which_a_step_fails_closes_and_keeps_its_rows(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    before = at_rest().decision
    assert before.desired.routes.keys() == {ONE, TWO} and len(of(ONE, before)["up since"]) == 2
    module, name = STEPS[step]
    well = decide(AFTER, before.memory, LATER)
    assert of(ONE, well) != of(ONE, before), "a backend has died"
    monkeypatch.setattr(module, name, broken_about(ONE, getattr(module, name)))
    after = decide(AFTER, before.memory, LATER)
    closed_and_kept(before, after)
    assert of(TWO, after) == of(TWO, well) and after.verdicts[TWO] == well.verdicts[TWO]


def test_a_vip_whose_route_cannot_be_made_keeps_its_rows_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The step before has passed, and so would the one after: its weights stay as they are all the same."""
    before, route_of = at_rest().decision, steps.route_of

    def broken(*args: Any) -> Any:
        if any(announce.route.med == 7 for announce in args[-1]):
            raise ZeroDivisionError("oops")
        return route_of(*args)

    monkeypatch.setattr(steps, "route_of", broken)
    closed_and_kept(before, decide(AFTER, before.memory, LATER))


def test_a_service_that_cannot_be_judged_keeps_its_rows_beside_one_that_can(monkeypatch: pytest.MonkeyPatch) -> None:
    dns = replace(service("dns", ONE, 4), port=53)
    inputs = replace(BEFORE, catalog=Catalog((WEB, dns)))
    before = decide(inputs, Memory(), 100.0)
    judge: Callable[..., Any] = assessment.judge

    def broken(*args: Any) -> Any:
        if args[0] is WEB:
            raise ZeroDivisionError("oops")
        return judge(*args)

    monkeypatch.setattr(assessment, "judge", broken)
    after = decide(replace(inputs, health={**AFTER.health, dns.backends[0].check: DOWN}), before.memory, LATER)
    rows = {key.service.port: [] for key in before.desired.destinations}
    for key, row in after.desired.destinations.items():
        rows[key.service.port].append(row.weight)
    assert rows == {80: [100, 100, 0], 53: [100]}, "nobody knows what is right for this VIP"


def basis(**inputs: Any) -> Basis:
    return Basis(replace(BEFORE, **inputs), at_rest().decision.memory, LATER, {}, vips=2)


def taken(given: Basis) -> Steps:
    grouping = group_vips(given.inputs.catalog.services)
    return take_steps(given, grouping, grouping.groups)


@pytest.mark.parametrize(
    ("stopping", "stage", "rows"),
    [
        (False, None, True),
        (False, "withdrawn", True),
        (True, "waiting", True),
        (True, "graceful", True),
        (True, "withdrawn", False),
    ],
)
def test_a_node_that_stops_asks_for_its_rows_until_its_routes_are_gone(stopping: bool, stage: Any, rows: bool) -> None:
    given = basis(stopping=stopping)
    drain = None if stage is None else NodeDrain(stage, "drained", 90.0, None, Reason(stage, ""))
    group = group_vips(given.inputs.catalog.services).groups[ONE]
    parts = replace(taken(given), drain=drain).of_group(given, group, steady=True)
    assert bool(parts.rows) is rows


@pytest.mark.parametrize(("name", "weights"), [("web", [100, 100, 100]), ("api", [100, 100, 0])])
def test_backends_that_the_peers_reach_keep_the_weight_of_that_service_only(name: str, weights: list[int]) -> None:
    given = basis()
    made = taken(given)
    keep = KeptBackends(frozenset({"b1", "b3"}), Reason("kept_peers", "kept"))
    votes = [
        replace(vote, followed={(name, WEB.key(ONE)): Following(None, keep, NEVER)}) for vote in made.votes.values()
    ]
    pools = weigh_pools(given, made.judged, votes, {vip: made.gates[vip] for vip in made.gates})
    rows = next(pool.rows for item, pool in pools if item.vip == ONE)
    assert [row.weight for row in rows.values()] == weights


REACHED = {"api": {TWO: ServiceSummary(True, 1, 1, ())}}
REPORT = Status("lb2", True, vips={TWO: VipSummary(True, True, "", "well")}, services=REACHED)
PEERS = Cluster(True, connected=True, peers={"lb2": Peer("lb2", True, REPORT)})


def test_what_the_steps_wait_for_is_what_wakes_the_next_decision() -> None:
    """The peers, to see the same trouble; a gate, to open; the node, to go one step further."""
    waiting = replace(WEB, announce=replace(WEB.announce, hold_up=40.0))
    health = {**BEFORE.health, FOURTH.check: DOWN}
    given = basis(catalog=Catalog((waiting, API)), health=health, cluster=PEERS)
    reopens = replace(given, memory=replace(given.memory, gates={TWO: given.memory.gates[TWO]}))
    assert taken(reopens).wakes == [154.0, 180.0]
    leaves = basis(policy=Policy("lb1", drain_rules=DrainRules(graceful=30.0)), stopping=True)
    drain = taken(leaves).drain
    assert drain is not None and drain.stage == "graceful"
    assert taken(leaves).wakes == [141.0], "it looks at what still comes once a second"
    assert taken(basis()).wakes == []
