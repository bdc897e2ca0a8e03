"""Single questions to a pool; what holds for every pool is in the laws."""

from __future__ import annotations

from ipaddress import ip_address

from anycastlb.core.decision.judgement import Observed, ObservedBackend, judge
from anycastlb.core.decision.pool import KeptBackends, weigh
from anycastlb.core.decision.withdrawal_budget import withdrawal_budget
from anycastlb.core.model import (
    Backend,
    Check,
    CheckState,
    Gate,
    Reason,
    Result,
    Service,
    Share,
    Status,
    VirtualService,
)

VIP, NOW = ip_address("192.0.2.1"), 100.0
UP, DOWN = (CheckState(ok, since=99.0, last=Result(ok, "seen", 0.1, 99.0)) for ok in (True, False))
KEPT = KeptBackends(frozenset({"b1"}), Reason("kept_peers", "kept, as peers reach it"))


def backend(number: int, fallback: bool = False) -> Backend:
    address = ip_address(f"10.0.0.{number}")
    return Backend(f"b{number}", address, 80, Check("tcp", address, 80, (), 1, 1, 1, 1), fallback=fallback)


def weights(*seen: ObservedBackend, followed: bool = False, keep: KeptBackends | None = None) -> dict[str, int]:
    """Of ``b1``, and of the fallback ``b2`` if two are given."""
    members = (backend(1), backend(2, fallback=True))[: len(seen)]
    service = Service("web", (VIP,), "tcp", 80, VirtualService("mh"), members, slow_start=10.0)
    judged = judge(service, VIP, Observed(seen, followed=followed), NOW)
    return {verdict.backend: verdict.weight for verdict in weigh(judged, keep, NOW).backends.values()}


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
