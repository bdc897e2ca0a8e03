"""What a node concludes of each VIP from what the others report."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from anycastlb.core.decision.basis import Basis
from anycastlb.core.decision.gate import NEVER
from anycastlb.core.decision.judgement import Judgement, Observed, judge
from anycastlb.core.decision.member import ObservedBackend
from anycastlb.core.decision.peer_health import KEPT, Case, Kept, Opinion
from anycastlb.core.decision.peer_votes import Following, PeerVote, hear_peers
from anycastlb.core.decision.pool import KeptBackends
from anycastlb.core.model import (
    Address,
    Announce,
    Backend,
    Check,
    CheckState,
    Cluster,
    Gate,
    Inputs,
    LocalTrouble,
    Memory,
    NodeDrain,
    Peer,
    Policy,
    Reason,
    Result,
    Service,
    ServiceKey,
    ServiceSummary,
    Share,
    Status,
    VipSummary,
    VirtualService,
)

NOW, WALL = 100.0, 1000.0
VIP, OTHER = ip_address("192.0.2.1"), ip_address("192.0.2.2")
WEB = ("web", ServiceKey("tcp", VIP, 80))
KEEP = KeptBackends(frozenset({"b1"}), Reason("kept_peers", "kept"))
CASE = Case("lb1", VIP, [], True, True, Reason("", ""), "well", None, NOW)
UP, DOWN = (CheckState(ok, since=50.0, last=Result(ok, "seen", 0.1, 50.0)) for ok in (True, False))


def followed(*services: tuple[float | None, float]) -> dict[Any, Following]:
    """Services, with since when a backend of each is up here again, and until when it follows."""
    return {(f"s{n}", WEB[1]): Following(since, KEEP, until) for n, (since, until) in enumerate(services)}


@pytest.mark.parametrize(
    ("services", "wake", "catching_up", "wakes"),
    [
        ((), None, NEVER, ()),
        ((), 120.0, NEVER, (120.0,)),
        (((None, 300.0),), None, NEVER, (300.0,)),
        (((None, NEVER),), None, NEVER, ()),
        (((None, 300.0), (90.0, 108.0), (95.0, 105.0)), 120.0, 108.0, (300.0, 108.0, 105.0, 120.0)),
    ],
)
def test_until_when_a_gate_waits_for_what_the_peers_reach(
    services: tuple[tuple[float | None, float], ...], wake: float | None, catching_up: float, wakes: tuple[float, ...]
) -> None:
    vote = PeerVote(CASE, Opinion(True, Reason("", ""), wake=wake), followed(*services))
    assert (vote.catching_up, vote.wakes) == (catching_up, wakes)


@pytest.mark.parametrize(
    ("kept", "able", "still_open", "keeps"),
    [
        ("last", True, True, KeptBackends(None, KEPT["last"])),
        ("last", False, True, None),
        ("last", True, False, None),
        ("", True, True, None),
    ],
)
def test_a_gate_that_is_kept_open_keeps_its_backends(
    kept: Kept, able: bool, still_open: bool, keeps: KeptBackends | None
) -> None:
    opinion = Opinion(True, Reason("", ""), kept)
    assert PeerVote(CASE, opinion).keeps(WEB, able, still_open) == keeps
    assert PeerVote(CASE, opinion, {WEB: Following(None, KEEP, NEVER)}).keeps(WEB, able, still_open) == KEEP


def judged(*up: bool | None, vip: Address = VIP, name: str = "web", **observed: Any) -> Judgement:
    """A service with these backends, each probed every 10 s for 1 s, with a rise of 2: 32 s until one is back."""
    backends = []
    for number in range(1, len(up) + 1):
        address = ip_address(f"10.0.0.{number}")
        backends.append(Backend(f"b{number}", address, 80, Check("tcp", address, 80, (), 10, 1, 2, 1)))
    service = Service(name, (vip,), "tcp", 80, VirtualService("mh"), tuple(backends), announce=Announce(Share(1)))
    states = [CheckState() if ok is None else UP if ok else DOWN for ok in up]
    return judge(service, vip, Observed(tuple(ObservedBackend(state) for state in states), **observed), NOW)


def report(*down: str, name: str = "lb2", **more: Any) -> Peer:
    """Of a node that serves, and does not reach these backends."""
    services = {"web": {VIP: ServiceSummary(True, 2 - len(down), 2, down)}}
    return Peer(
        name, True, Status(name, True, vips={VIP: VipSummary(True, True, "", "well")}, services=services, **more)
    )


def basis(*peers: Peer, limit: int | None = None, replaced: Any = (), refused: Any = None, **memory: Any) -> Basis:
    cluster = Cluster(bool(peers), connected=True, peers={peer.name: peer for peer in peers})
    policy = Policy("lb1", max_withdrawals=None if limit is None else Share(limit))
    gates = {vip: Gate(True, 0.0) for vip in (VIP, OTHER)}
    inputs = Inputs(policy, cluster=cluster, wall=WALL)
    return Basis(inputs, Memory(**{"gates": gates, **memory}), NOW, refused or {}, frozenset(replaced), vips=2)


def trouble(since: float, *dead: str) -> dict[str, Any]:
    return {"troubles": {VIP: LocalTrouble(frozenset(dead), True, since)}}


@pytest.mark.parametrize(
    ("up", "peer", "memory", "following"),
    [
        # All backends are dead here: what the peer reaches stays in; nothing moves until it can have seen the same.
        ((False, False), report(), trouble(50.0, "web"), (None, {"b1", "b2"}, False, NEVER)),
        ((False, False), report("b1"), trouble(50.0, "web"), (None, {"b2"}, False, NEVER)),
        ((False, False), report(), trouble(86.0, "web"), (None, {"b1", "b2"}, False, NEVER)),
        ((False, False), report(), trouble(86.5, "web"), (None, {"b1", "b2"}, True, 100.5)),
        ((False, False), report("b1", "b2"), trouble(50.0, "web"), None),
        # One is back: the others follow within 32 s, or not at all.
        ((True, False), report(), {}, None),
        ((True, False), report(), {"followed": {WEB: None}}, (NOW, {"b2"}, False, 132.0)),
        ((True, False), report(), {"followed": {WEB: 80.0}}, (80.0, {"b2"}, False, 112.0)),
        ((True, False), report(), {"followed": {WEB: 68.5}}, (68.5, {"b2"}, False, 100.5)),
        ((True, False), report(), {"followed": {WEB: 68.0}}, None),
        ((True, False), report("b2"), {"followed": {WEB: None}}, None),
        ((True, True), report(), {"followed": {WEB: None}}, None),
    ],
)
def test_when_weights_follow_the_peers(
    up: tuple[bool, ...], peer: Peer, memory: dict[str, Any], following: tuple[Any, ...] | None
) -> None:
    (vote,) = hear_peers(basis(peer, **memory), [judged(*up)], None)
    if following is None:
        assert vote.followed == {}
        return
    ((service, item),) = vote.followed.items()
    assert service == WEB
    assert (item.since, item.keep.names, item.keep.still, item.until) == following


def test_without_peers_nothing_is_followed() -> None:
    (vote,) = hear_peers(basis(**trouble(50.0, "web")), [judged(False)], None)
    assert vote.followed == {} and vote.opinion == Opinion(False, vote.case.reason)


def test_the_case_of_a_vip() -> None:
    (vote,) = hear_peers(basis(), [judged(True)], None)
    case = vote.case
    assert (case.open, case.ready, case.own, case.trouble) == (True, True, "well", None)
    (vote,) = hear_peers(basis(gates={VIP: Gate(False, 0.0)}), [judged(False), judged(True, name="api")], None)
    case = vote.case
    assert not case.open and case.trouble == LocalTrouble(frozenset({"web"}), False, NOW)
    (vote,) = hear_peers(basis(gates={}), [judged(False)], None)
    assert not vote.case.open and vote.case.trouble == LocalTrouble(frozenset({"web"}), True, NOW)
    refusal = Reason("kernel_refused", "no such device")
    (vote,) = hear_peers(basis(refused={VIP: refusal}), [judged(True)], None)
    case = vote.case
    assert (case.ready, case.own, case.reason) == (False, "unable", Reason("refused", "no such device"))


@pytest.mark.parametrize(
    ("items", "replaced", "ready"),
    [
        ([judged(None, announced=True)], (), False),
        ([judged(None, announced=True)], (VIP,), True),
        ([judged(None, announced=True)], (OTHER,), False),
        ([judged(None, announced=True, replaced=True)], (), True),
        ([judged(None, announced=True, replaced=True), judged(False, name="api")], (), True),
    ],
)
def test_what_an_edit_replaced_serves_on(items: list[Judgement], replaced: tuple[Address, ...], ready: bool) -> None:
    (vote,) = hear_peers(basis(replaced=replaced), items, None)
    assert vote.case.ready is ready


def test_a_node_that_left_announces_nothing() -> None:
    left = NodeDrain("withdrawn", "drained", 0.0, None, Reason("withdrawn", ""))
    (vote,) = hear_peers(basis(), [judged(True)], left)
    assert vote.opinion == Opinion(False, Reason("node_drained", "this node is drained (drain/lb1)", "lb1"))


def test_one_after_the_other_spends_of_the_budget() -> None:
    dying = [judged(False), judged(False, vip=OTHER)]
    first, second = hear_peers(basis(limit=1), dying, None)
    assert first.opinion.withdrawn and second.opinion.kept == "limit"
    first, second = hear_peers(basis(limit=1), [judged(True), judged(False, vip=OTHER)], None)
    assert first.opinion.ready and second.opinion.withdrawn, "only withdrawals spend of it"
    spent = {VIP: Gate(True, 0.0), OTHER: Gate(False, 0.0, withdrawn_wall=int(WALL + NOW) - 10)}
    (vote,) = hear_peers(basis(limit=1, gates=spent), [judged(False)], None)
    assert vote.opinion.kept == "limit" and vote.opinion.wake == NOW + 50.0
    by_others = report(withdrawn={OTHER: int(WALL + NOW)})
    (vote,) = hear_peers(basis(by_others, limit=1), [judged(False)], None)
    assert vote.opinion.kept == "asks", "the peer serves it, and may not know yet"


def test_a_vip_that_cannot_be_judged_is_left_out() -> None:
    broken = replace(judged(True), verdict=None)  # type: ignore[arg-type]
    given = basis()
    votes = hear_peers(given, [broken, judged(True, vip=OTHER)], None)
    assert [vote.case.vip for vote in votes] == [OTHER] and list(given.contained.faults) == [VIP]
