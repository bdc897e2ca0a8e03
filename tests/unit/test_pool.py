"""Single questions to a pool; what holds for every pool is in the laws."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from anycastlb.core.decision.judgement import Observed, judge
from anycastlb.core.decision.member import ObservedBackend
from anycastlb.core.decision.pool import KeptBackends, Pool, weigh
from anycastlb.core.decision.withdrawal_budget import withdrawal_budget
from anycastlb.core.model import (
    Announce,
    Backend,
    Check,
    CheckState,
    Destination,
    Gate,
    Reason,
    Result,
    Service,
    Share,
    Status,
    VirtualService,
    Weights,
)

VIP, NOW = ip_address("192.0.2.1"), 100.0
UP, DOWN = (CheckState(ok, since=99.0, last=Result(ok, "seen", 0.1, 99.0)) for ok in (True, False))
REFUSAL = Reason("refused", "the kernel refused it")


def kept(*names: str, still: bool = False) -> KeptBackends:
    return KeptBackends(frozenset(names), Reason("kept_peers", "kept, as peers reach it"), still)


KEPT, ALL = kept("b1"), KeptBackends(None, Reason("kept_last", "kept with the last route"))
SIGHTS = {
    "+": ObservedBackend(UP, 0.0, 100),
    "-": ObservedBackend(DOWN, None, 100),
    "before": ObservedBackend(replace(DOWN, since=80.0), None, 100),
    "before, with 1": ObservedBackend(replace(DOWN, since=80.0), None, 1),
    "out": ObservedBackend(DOWN, None, 0),
    "no row": ObservedBackend(DOWN),
    "?": ObservedBackend(),
    "? in": ObservedBackend(weight=0),
    "refused": ObservedBackend(UP, 0.0, 100, REFUSAL),
}
"""What is known of a backend: ``before`` is down for longer than ``-``, and ``out`` has no flows."""
KINDS: dict[str, dict[str, Any]] = {
    "fallback": {"fallback": True},
    "weightless": {"weight": 0},
    "half": {"weight": 50},
    "idle": {"override": 0},
    "set to 30": {"override": 30},
    "drained": {"drain": True},
}
KEEP = {"announce": Announce(fail="keep")}


def pool(backends: str, keep: KeptBackends | None = None, observed: Any = None, **service: Any) -> Pool:
    """Weigh these backends, with bars between them: each one is of ``SIGHTS``, and may have one of ``KINDS`` before
    it."""
    members, seen = [], []
    for number, text in enumerate(backends.split(" | "), 1):
        kind, _, sight = text.rpartition(": ")
        members.append(replace(backend(number), **KINDS.get(kind, {})))
        seen.append(SIGHTS[sight])
    of = Service("web", (VIP,), "tcp", 80, VirtualService("mh"), tuple(members), **service)
    return weigh(judge(of, VIP, Observed(tuple(seen), **(observed or {})), NOW), keep, NOW)


def backend(number: int, fallback: bool = False) -> Backend:
    address = ip_address(f"10.0.0.{number}")
    return Backend(f"b{number}", address, 80, Check("tcp", address, 80, (), 1, 1, 1, 1), fallback=fallback)


def weights(*seen: ObservedBackend, followed: bool = False, keep: KeptBackends | None = None) -> dict[str, int]:
    """Of ``b1``, and of the fallback ``b2`` if two are given."""
    members = (backend(1), backend(2, fallback=True))[: len(seen)]
    service = Service("web", (VIP,), "tcp", 80, VirtualService("mh"), members, slow_start=10.0)
    judged = judge(service, VIP, Observed(seen, followed=followed), NOW)
    return {verdict.backend: verdict.weight for verdict in weigh(judged, keep, NOW).backends.values()}


@pytest.mark.parametrize(
    ("backends", "rules", "expected"),
    [
        ("+ | -", {}, "100 check_passed, 0 check_failed"),
        ("? | refused", {}, "0 not_checked, 0 refused"),
        # The floor keeps in what failed last, and what is in before what is out.
        ("- | before", {"max_failed": Share(1)}, "100 kept_floor, 0 check_failed"),
        ("before | -", {"max_failed": Share(1)}, "0 check_failed, 100 kept_floor"),
        ("out | before", {"max_failed": Share(1)}, "0 check_failed, 100 kept_floor"),
        ("out | before, with 1", {"max_failed": Share(1)}, "0 check_failed, 100 kept_floor"),
        ("no row | before", {"max_failed": Share(1)}, "0 check_failed, 100 kept_floor"),
        ("before | - | -", {"max_failed": Share(1)}, "0 check_failed, 100 kept_floor, 100 kept_floor"),
        ("- | -", {"max_failed": Share(0)}, "100 kept_floor, 100 kept_floor"),
        ("before | -", {"max_failed": Share(percent=50)}, "0 check_failed, 100 kept_floor"),
        ("- | +", {"max_failed": Share(1)}, "0 check_failed, 100 check_passed"),
        ("- | +", {"max_failed": Share(0)}, "100 kept_floor, 100 check_passed"),
        # One whose check is new is in if it has a row.
        ("? | ? in", {"max_failed": Share(0)}, "0 not_checked, 100 kept_floor"),
        # Fallback backends serve instead of the floor, once nothing else does.
        ("- | fallback: +", {"max_failed": Share(0)}, "0 check_failed, 100 check_passed"),
        ("- | + | fallback: +", {"max_failed": Share(0)}, "100 kept_floor, 100 check_passed, 0 fallback_idle"),
        ("weightless: + | fallback: +", {}, "0 weight_zero, 100 check_passed"),
        ("+ | - | fallback: +", {}, "100 check_passed, 0 check_failed, 0 fallback_idle"),
        # ``fail: keep`` keeps all of them, once nothing else serves.
        ("- | out", KEEP, "100 kept_fail_open, 100 kept_fail_open"),
        ("- | +", KEEP, "0 check_failed, 100 check_passed"),
        ("- | fallback: +", KEEP, "0 check_failed, 100 check_passed"),
        ("- | idle: -", KEEP, "100 kept_fail_open, 0 check_failed"),
    ],
)
def test_which_backends_stay_in_by_the_rules_of_their_service(
    backends: str, rules: dict[str, Any], expected: str
) -> None:
    assert shown(pool(backends, **rules)) == expected


@pytest.mark.parametrize(
    ("backends", "keep", "expected"),
    [
        ("- | -", kept("b2"), "0 check_failed, 100 kept_peers"),
        ("- | +", kept("b1", "b2"), "100 kept_peers, 100 check_passed"),
        ("- | -", ALL, "100 kept_last, 100 kept_last"),
        ("- | +", ALL, "0 check_failed, 100 check_passed"),
        ("- | fallback: +", ALL, "0 check_failed, 100 check_passed"),
        # Nothing moves for now, unless nothing is in.
        ("- | out", kept("b2"), "0 check_failed, 100 kept_peers"),
        ("- | out", kept("b2", still=True), "100 kept_peers, 0 check_failed"),
        ("out | no row", kept("b2", still=True), "0 check_failed, 100 kept_peers"),
    ],
)
def test_which_backends_stay_in_for_the_peers(backends: str, keep: KeptBackends, expected: str) -> None:
    assert shown(pool(backends, keep)) == expected


def test_the_rules_of_the_service_hold_where_the_peers_keep_nothing() -> None:
    assert shown(pool("- | out", kept("b9"), **KEEP)) == "100 kept_fail_open, 100 kept_fail_open"


@pytest.mark.parametrize("rules", [KEEP, {"max_failed": Share(0)}])
@pytest.mark.parametrize("keep", [None, ALL])
def test_nothing_is_kept_in_while_what_an_edit_replaced_serves_on(
    rules: dict[str, Any], keep: KeptBackends | None
) -> None:
    edited = {"announced": True, "replaced": True}
    assert shown(pool("- | ?", keep, edited, **rules)) == "0 check_failed, 0 not_checked"
    assert shown(pool("- | ? | fallback: +", keep, edited, **rules)) == "0 check_failed, 0 not_checked, 0 fallback_idle"


def shown(of: Pool) -> str:
    in_order = sorted(of.backends.values(), key=lambda verdict: verdict.backend)
    return ", ".join(f"{verdict.weight} {verdict.reason.code}" for verdict in in_order)


@pytest.mark.parametrize(
    ("document", "seen", "rules", "parts", "code", "text", "notes"),
    [
        ({}, {}, {}, Weights(100), "check_passed", "seen", ()),
        ({}, {"state": DOWN}, {}, Weights(100, None, 0.0), "check_failed", "down: seen", ()),
        (
            {},
            {"state": CheckState()},
            {},
            Weights(100),
            "not_checked",
            "not checked yet; up so far",
            ("not checked yet; up so far",),
        ),
        (
            {},
            {"refusal": REFUSAL},
            {},
            Weights(100, None, 0.0),
            "refused",
            "down: the kernel refused it",
            ("the kernel refused it",),
        ),
        (
            {"override": 30},
            {"state": CheckState(), "refusal": REFUSAL},
            {},
            Weights(100, 30, 0.0),
            "refused",
            "down: the kernel refused it; weight set to 30",
            ("the kernel refused it", "weight set to 30"),
        ),
        ({"drain": True}, {}, {}, Weights(100, 0), "drained", "drained", ("drained",)),
        ({"drain": True}, {"state": DOWN}, {}, Weights(100, 0, 0.0), "drained", "drained; down: seen", ("drained",)),
        ({}, {"state": replace(UP, asks=(None, True))}, {}, Weights(100, 0), "drained", "drained", ("drained",)),
        ({"weight": 0}, {}, {}, Weights(0), "weight_zero", "weight 0 in the catalog", ("weight 0 in the catalog",)),
        ({"override": 30}, {}, {}, Weights(100, 30), "weight_set", "seen; weight set to 30", ("weight set to 30",)),
        (
            {"override": 30},
            {"state": DOWN},
            {},
            Weights(100, 30, 0.0),
            "check_failed",
            "down: seen; weight set to 30",
            ("weight set to 30",),
        ),
        (
            {},
            {"state": replace(UP, asks=(40, False))},
            {},
            Weights(100, None, 0.4),
            "weight_asked",
            "seen; asks for 40%",
            ("asks for 40%",),
        ),
        (
            {},
            {"up_since": 99.0},
            {"slow_start": 10.0},
            Weights(100, None, 1.0, 0.2),
            "slow_start",
            "seen; slow start: 20%",
            ("slow start: 20%",),
        ),
        ({}, {"up_since": 90.0}, {"slow_start": 10.0}, Weights(100), "check_passed", "seen", ()),
        (
            {},
            {"state": DOWN, "up_since": 99.0},
            {"slow_start": 10.0},
            Weights(100, None, 0.0),
            "check_failed",
            "down: seen",
            (),
        ),
        (
            {},
            {"state": replace(UP, record=(5.0, 10))},
            {"slow_start": 1000.0, "slow_start_by_history": True},
            Weights(100, None, 1.0, 0.5),
            "slow_start",
            "seen; slow start: 50%",
            ("slow start: 50%",),
        ),
    ],
)
def test_the_parts_of_a_weight_and_the_clauses_of_its_reason(
    document: dict[str, Any],
    seen: dict[str, Any],
    rules: dict[str, Any],
    parts: Weights,
    code: str,
    text: str,
    notes: tuple[str, ...],
) -> None:
    service = Service("web", (VIP,), "tcp", 80, VirtualService("mh"), (replace(backend(1), **document),), **rules)
    observed = Observed((ObservedBackend(**{"state": UP, "up_since": 0.0, **seen}),))
    (verdict,) = weigh(judge(service, VIP, observed, NOW), None, NOW).backends.values()
    assert (verdict.weights, verdict.reason.code, verdict.reason.text) == (parts, code, text)
    assert verdict.notes == notes


def test_when_a_slow_start_goes_on() -> None:
    assert pool("+ | +").wakes == ()
    late = ObservedBackend(UP, 99.5, 100)
    service = Service("web", (VIP,), "tcp", 80, VirtualService("mh"), (backend(1), backend(2)), slow_start=10.0)
    judged = judge(service, VIP, Observed((late, replace(late, up_since=97.0))), NOW)
    assert weigh(judged, None, NOW).wakes == (100.5, 101.0)


def test_the_rows_of_a_pool() -> None:
    """The last weight of a row is the one by which the kernel builds its table: that of a backend that gets no flows
    is its own, or the largest."""
    document = replace(backend(1), forward="tunnel", upper=7, lower=5, tunnel_port=4789)
    service = Service("web", (VIP,), "tcp", 80, VirtualService("mh"), (document,))
    judged = judge(service, VIP, Observed((SIGHTS["+"],)), NOW)
    (row,) = weigh(judged, None, NOW).rows.values()
    assert row == Destination("tunnel", 100, last_weight=100, upper=7, lower=5, tunnel_port=4789)
    rows = pool("half: - | weightless: + | idle: + | refused | set to 30: + | drained: +").rows
    weights = {str(key.address): (row.weight, row.last_weight) for key, row in rows.items()}
    assert weights == {
        "10.0.0.1": (0, 50),
        "10.0.0.2": (0, 100),
        "10.0.0.3": (0, 100),
        "10.0.0.4": (0, 100),
        "10.0.0.5": (30, 30),
    }, "a drained one has no row"
    assert [str(key.address)[-1] for key in pool("refused | +").rows] == ["2", "1"], "what is refused goes last"


def test_what_followed_the_peers_was_never_away() -> None:
    """It had a weight all the time, so it has no slow start; one that had none begins it."""
    assert weights(ObservedBackend(UP, None, 100), followed=True) == {"b1": 100}
    assert weights(ObservedBackend(UP, None, 0), followed=True) == {"b1": 10}
    assert weights(ObservedBackend(UP, None, 100)) == {"b1": 10}


def test_nobody_is_kept_in_for_the_peers_while_a_fallback_serves() -> None:
    dead, helper = ObservedBackend(DOWN, None, 100), ObservedBackend(UP, 0.0, 100)
    assert weights(dead, keep=KEPT) == {"b1": 100}
    assert weights(dead, helper, keep=KEPT) == {"b1": 0, "b2": 100}


def test_the_last_of_several_withdrawals_counts() -> None:
    gates = {VIP: Gate(False, 0.0, withdrawn_wall=1010)}
    budget = withdrawal_budget(Share(1), 3, gates, (Status("lb2", withdrawn={VIP: 1000}),), 1020.0)
    assert budget.withdrawn == {VIP: 1010}
