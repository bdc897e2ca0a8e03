"""What of the services and the peers' reports the gate of a VIP goes by."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from anycastlb.core.decision.basis import Basis
from anycastlb.core.decision.gate import NEVER
from anycastlb.core.decision.judgement import Judgement
from anycastlb.core.decision.peer_health import Case, Opinion
from anycastlb.core.decision.peer_votes import Following, PeerVote
from anycastlb.core.decision.pool import KeptBackends
from anycastlb.core.decision.vip_gates import GateStep, shut_faulty, step_gate, step_gates
from anycastlb.core.model import (
    Address,
    Announce,
    Catalog,
    Damping,
    Gate,
    Inputs,
    Memory,
    NodeDrain,
    Policy,
    Reason,
    Route,
    Service,
    ServiceKey,
    ServiceVerdict,
    Verdict,
    VirtualService,
)

NOW = 100.0
VIP, OTHER, THIRD, FOURTH = (ip_address(f"192.0.2.{number}") for number in (1, 2, 3, 4))
FINE, BAD = Reason("backends_up", "fine"), Reason("too_few_backends", "bad")
KEPT = KeptBackends(frozenset({"b1"}), Reason("kept_peers", "kept"))
NO: dict[str, Any] = {}


def verdict(name: str = "web", vip: Address = VIP, **more: float) -> ServiceVerdict:
    return ServiceVerdict(name, ServiceKey("tcp", vip, 80), True, 1, 1, 1, FINE, **more)


def vote(
    opinion: Opinion,
    announces: tuple[dict[str, Any], ...] = (NO,),
    verdicts: tuple[dict[str, float], ...] = (NO,),
    until: float | None = None,
) -> PeerVote:
    """``until``: when the backends that the peers reach must be up here too."""
    services = [(Announce(**rules), verdict(**more)) for rules, more in zip(announces, verdicts, strict=True)]
    followed = {} if until is None else {("web", ServiceKey("tcp", VIP, 80)): Following(90.0, KEPT, until)}
    return PeerVote(Case("lb1", VIP, services, False, True, FINE, "well", None, NOW), opinion, followed)


def basis(gate: Gate | None = None, **memory: Any) -> Basis:
    gates = {} if gate is None else {VIP: gate}
    return Basis(Inputs(Policy("lb1"), wall=1000.5), Memory(gates=gates, **memory), NOW, {})


@pytest.mark.parametrize(
    ("announces", "verdicts", "until", "code", "at"),
    [
        ((NO, NO), (NO, NO), None, "backends_up", None),
        (({"hold_up": 3.0}, {"hold_up": 5.0}), (NO, NO), None, "hold_up", 105.0),
        (({"hold_up": 5.0}, {"hold_up": 3.0}), (NO, NO), None, "hold_up", 105.0),
        (({"hold_down": 40.0}, {"hold_down": 30.0}), (NO, NO), None, "hold_down", 120.0),
        (({"hold_down": 30.0}, {"hold_down": 40.0}), (NO, NO), None, "hold_down", 120.0),
        ((NO, NO), ({"unsettled": 3.0}, {"unsettled": 5.0}), None, "unsettled", 105.0),
        ((NO, NO), ({"unsettled": 5.0}, {"unsettled": 3.0}), None, "unsettled", 105.0),
        ((NO, NO), ({"returning": 3.0}, {"returning": 5.0}), None, "returning", 105.0),
        ((NO, NO), ({"returning": 5.0}, {"returning": 3.0}), None, "returning", 105.0),
        ((NO, NO), (NO, NO), 108.0, "catching_up", 108.0),
        ((NO, {"damping": Damping()}), (NO, NO), None, "damped", 160.0),
    ],
)
def test_a_gate_waits_for_the_slowest_of_its_services(
    announces: tuple[dict[str, Any], ...],
    verdicts: tuple[dict[str, float], ...],
    until: float | None,
    code: str,
    at: float | None,
) -> None:
    flapped = Gate(False, 80.0, NOW, 1500.0, NOW, suppressed_since=80.0)
    step = step_gate(basis(flapped), None, vote(Opinion(True, FINE), announces, verdicts, until))
    assert (step.verdict.open, step.verdict.reason.code, step.wake) == (at is None, code, at)
    assert step.announces == tuple(Announce(**rules) for rules in announces)


def drain(stage: Any) -> NodeDrain:
    return NodeDrain(stage, "drained", 90.0, None, Reason(stage, ""))


@pytest.mark.parametrize(
    ("stage", "routes", "penalty"),
    [(None, {}, 1000.0), ("withdrawn", {}, 0.0), ("graceful", {}, 0.0), ("graceful", {VIP: Route()}, 1000.0)],
)
def test_a_node_that_leaves_is_no_flap(stage: str | None, routes: dict[Address, Route], penalty: float) -> None:
    case = vote(Opinion(False, BAD), ({"damping": Damping()},))
    step = step_gate(basis(Gate(True, 50.0), routes=routes), drain(stage) if stage else None, case)
    assert step.verdict.penalty == step.gate.penalty == penalty


def test_what_the_budget_has_counted_carries_its_wall_clock_second() -> None:
    before = basis(Gate(True, 50.0))
    assert step_gate(before, None, vote(Opinion(False, BAD, withdrawn=True))).gate.withdrawn_wall == 1100
    assert step_gate(before, None, vote(Opinion(False, BAD))).gate.withdrawn_wall == 0


@pytest.mark.parametrize(
    ("opinion", "stage", "is_open", "kept", "reason"),
    [
        (Opinion(True, FINE), None, True, "", FINE),
        (Opinion(True, BAD, "last"), None, True, "last", BAD),
        (Opinion(False, BAD, "last"), None, False, "", BAD),
        (Opinion(True, FINE), "waiting", True, "", FINE),
        (
            Opinion(True, FINE),
            "graceful",
            True,
            "",
            Reason("graceful", "fine; this node is drained (drain/lb1): still announced, with 65535:0"),
        ),
        (Opinion(False, BAD), "graceful", False, "", BAD),
    ],
)
def test_the_verdict_of_a_vip(opinion: Opinion, stage: str | None, is_open: bool, kept: str, reason: Reason) -> None:
    before = basis(Gate(True, 50.0, 50.0), routes={VIP: Route()})
    step = step_gate(before, drain(stage) if stage else None, vote(opinion))
    since = 50.0 if is_open else NOW
    assert step.verdict == Verdict(VIP, is_open, reason, since, (verdict(),), 0.0, "well", kept)  # type: ignore[arg-type]
    assert step.gate == Gate(is_open, since, 50.0 if is_open else None)


def test_a_step_that_fails_is_missing() -> None:
    before = basis()
    steps = step_gates(before, None, [vote(Opinion(True, FINE), (), ())])
    assert steps == {} and before.contained.faults[VIP].code == "internal_error"
    assert list(step_gates(before, None, [vote(Opinion(True, FINE))])) == [VIP]


def test_a_gate_closes_where_a_step_has_failed() -> None:
    gates = {VIP: Gate(True, 50.0, 50.0, 7.0, 90.0), OTHER: Gate(False, 60.0)}
    before = Basis(Inputs(catalog=Catalog()), Memory(gates=gates), NOW, {})
    fine = step_gate(before, None, vote(Opinion(True, FINE)))
    assert shut_faulty(before, [VIP], [], {VIP: fine}) == (fine,)
    before.contained.faults.update({VIP: BAD, OTHER: BAD, THIRD: BAD})
    service = Service("web", (VIP,), "tcp", 80, VirtualService("mh"), ())
    judged = [Judgement(service, VIP, verdict(), ()), Judgement(service, VIP, verdict("api"), ())]
    both = (verdict(), verdict("api"))
    assert shut_faulty(before, [VIP, OTHER, THIRD], judged, {}) == (
        GateStep(Verdict(VIP, False, BAD, NOW, both, 7.0, "unable"), Gate(False, NOW, None, 7.0, 90.0), None, ()),
        GateStep(Verdict(OTHER, False, BAD, 60.0, (), 0.0, "unable"), Gate(False, 60.0), None, ()),
        GateStep(Verdict(THIRD, False, BAD, NEVER, (), 0.0, "unable"), Gate(False, NEVER), None, ()),
    )
    assert shut_faulty(before, [FOURTH], judged, {FOURTH: fine}) == (fine,)
