"""Single questions to belief and budget; what they do together is in the laws and the stories."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from anycastlb.core.decision import peer_health, peer_reports
from anycastlb.core.decision.withdrawal_budget import WINDOW, withdrawal_budget
from anycastlb.core.model import (
    Announce,
    Cluster,
    Condition,
    Gate,
    LocalTrouble,
    Peer,
    Reason,
    ServiceKey,
    ServiceSummary,
    ServiceVerdict,
    SessionSummary,
    Share,
    Status,
    VipSummary,
)

VIP, OTHER, THIRD = (ip_address(f"192.0.2.{number}") for number in (1, 2, 3))
KEY = ServiceKey("tcp", VIP, 80)
DOWN = Reason("too_few_backends", "0/2 backends up, needs 1")
DEAD = ServiceVerdict("web", KEY, False, 0, 2, 1, DOWN, condition=Condition(False, True, True, 2.0))
FREE = withdrawal_budget(None, 3, {}, (), 0.0)
SERVING = Status(
    "lb2",
    ready=True,
    vips={VIP: VipSummary(True, True, "2/2 backends up", "well")},
    services={"web": {VIP: ServiceSummary(True, 2, 2)}},
)
ILL = Status(
    "lb2",
    ready=True,
    vips={VIP: VipSummary(True, True, "kept", "ill")},
    services={"web": {VIP: ServiceSummary(False, 0, 2, ("*",), True)}},
)


def case(last: str = "withdraw", open: bool = True, lasts: float = 100.0, name: str = "lb1") -> peer_health.Case:
    services = [(Announce(last=last), DEAD)]  # type: ignore[arg-type]
    doubt = LocalTrouble(frozenset({"web"}), True, 1000.0 - lasts)
    return peer_health.Case(name, VIP, services, open, False, DEAD.reason, "ill", doubt, 1000.0)


def shut(status: Status, **summary: object) -> Status:
    return replace(status, vips={VIP: replace(status.vips[VIP], **summary)})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "status",
    [
        replace(SERVING, stopping=True),
        replace(SERVING, drained=True),
        replace(SERVING, services={}),
        replace(SERVING, vips={}),
        shut(SERVING, announced=False),
        replace(SERVING, sessions=(SessionSummary("192.0.2.254", "down"), SessionSummary("2001:db8::1", "up"))),
        shut(SERVING, open=False),
        shut(SERVING, own="ill"),
        shut(SERVING, own="unable"),
        ILL,
    ],
)
def test_whose_word_counts_for_nothing(status: Status) -> None:
    assert peer_health.judge(case(), (SERVING,), FREE).reason == Reason(
        "peers_reach", "0/2 backends up; 1 of 1 peers reach these backends"
    )
    assert peer_health.judge(case(), (status,), FREE) == peer_health.Opinion(False, DEAD.reason)


def test_peers_are_those_that_live_and_can_be_read() -> None:
    peers = {
        "lb2": Peer("lb2", True, SERVING),
        "lb3": Peer("lb3", False, replace(SERVING, node="lb3")),
        "lb4": Peer("lb4", True, replace(SERVING, node="lb4"), "garbage"),
        "lb5": Peer("lb5", True),
    }
    known = Cluster(follows=True, connected=True, peers=peers)
    assert peer_reports.statuses(known) == (SERVING,)
    assert peer_reports.statuses(replace(known, connected=False)) is None
    assert peer_reports.statuses(Cluster()) is None


@pytest.mark.parametrize(
    ("summary", "is_dead"),
    [
        (ServiceSummary(True, 0, 2, ("*",), dead=True), True),
        (ServiceSummary(True, 0, 2, ("*",)), False),  # an older node that keeps it open does not say so
        (ServiceSummary(False, 0, 2, ("*",)), True),
        (ServiceSummary(False, 1, 2, ("b1",)), False),
        (ServiceSummary(False, 0, 0), False),
    ],
)
def test_which_service_a_peer_reaches_nothing_of(summary: ServiceSummary, is_dead: bool) -> None:
    status = replace(SERVING, services={"web": {VIP: summary}, "api": {VIP: ServiceSummary(True, 1, 1)}})
    assert peer_reports.dead(status, VIP, ["web", "api"]) == (frozenset({"web"}) if is_dead else frozenset())
    older = shut(status, own="")
    assert peer_reports.serves(older, VIP, ["web", "api"])  # by its services, unless all of them are dead
    assert peer_reports.serves(older, VIP, ["web"]) is not is_dead


def test_a_peer_is_informed_only_if_it_judges_every_service_of_the_vip() -> None:
    assert peer_reports.informed([SERVING], VIP, ["web"]) == [SERVING]
    assert peer_reports.informed([SERVING], VIP, ["web", "api"]) == []


@pytest.mark.parametrize(
    ("status", "able"),
    [
        (ILL, True),
        (replace(ILL, ready=False), False),
        (shut(ILL, open=False), True),
        (SERVING, True),
        (shut(SERVING, open=False), False),
        (shut(SERVING, own="unable"), False),
        (replace(ILL, sessions=(SessionSummary("192.0.2.254", "down"),)), False),
        (replace(ILL, sessions=(SessionSummary("2001:db8::1", "down"),)), True),
    ],
)
def test_who_could_hold_the_last_route(status: Status, able: bool) -> None:
    assert peer_reports.could_hold(status, VIP) == able


def web(summary: ServiceSummary) -> Status:
    return replace(SERVING, services={"web": {VIP: summary}})


@pytest.mark.parametrize(
    ("status", "is_news"),
    [
        (SERVING, False),
        (replace(SERVING), False),
        (replace(SERVING, version="2", missing=("x",), omitted=("y",)), False),
        (shut(SERVING, reason="1/2 backends up"), False),
        (web(ServiceSummary(True, 1, 2)), False),
        (web(ServiceSummary(True, 2, 2, ("b1",))), True),
        (web(ServiceSummary(True, 2, 2, dead=True)), True),
        (web(ServiceSummary(False, 0, 2)), True),
        (web(ServiceSummary(False, 1, 2)), False),
        (shut(SERVING, open=False), True),
        (replace(SERVING, ready=False), True),
        (replace(SERVING, stopping=True), True),
        (replace(SERVING, drained=True), True),
        (replace(SERVING, withdrawn={VIP: 5}), True),
        (replace(SERVING, sessions=(SessionSummary("192.0.2.254", "up"),)), False),
        (replace(SERVING, sessions=(SessionSummary("192.0.2.254", "down"),)), True),
        (replace(SERVING, node="lb3"), True),
    ],
)
def test_what_is_news(status: Status, is_news: bool) -> None:
    def known(*statuses: Status) -> Cluster:
        return Cluster(True, connected=True, peers={s.node: Peer(s.node, True, s) for s in statuses})

    other = replace(SERVING, node="lb9")
    assert peer_reports.news(known(other, SERVING), known(other, status)) == is_news
    assert peer_reports.news(known(SERVING), known(SERVING, other))
    assert peer_reports.news(known(SERVING), Cluster()) and peer_reports.news(Cluster(), known(SERVING))
    assert not peer_reports.news(Cluster(), Cluster(error="away"))


def test_backends_that_peers_reach_stay_in() -> None:
    half = replace(web(ServiceSummary(True, 1, 2, ("b1",))), node="lb3")
    reach = peer_health.alive((half, ILL), VIP, ["web"], "web", ["b1", "b2"])
    assert reach.names == {"b2"} and reach.why.text == "kept, as 1 of 2 peers reach this service"
    both = peer_health.alive((half, SERVING), VIP, ["web"], "web", ["b1", "b2"])
    assert both.names == {"b1", "b2"} and both.why.code == "kept_peers"


def test_a_withdrawal_waits_for_what_the_cluster_can_bear() -> None:
    room = withdrawal_budget(Share(1), 3, {}, (), 10.0)
    spent = withdrawal_budget(Share(1), 3, {OTHER: Gate(False, 0.0, withdrawn_wall=5)}, (), 10.0)
    fresh = case(lasts=1.0)
    assert peer_health.judge(case(), (), room).withdrawn
    waits = peer_health.judge(case(), (), spent)
    assert waits.ready and waits.kept == "limit" and waits.wake == 1000.0 + 5 + WINDOW - 10
    assert not peer_health.judge(case(), (SERVING,), spent).ready  # somebody else serves it
    asks = peer_health.judge(fresh, (SERVING,), spent)
    assert asks.ready and asks.kept == "asks" and asks.wake == fresh.settled_at == 999.0 + 2.0 + peer_health.GOSSIP
    assert peer_health.judge(fresh, (SERVING,), FREE) == peer_health.Opinion(
        False, Reason("peers_reach", "0/2 backends up; 1 of 1 peers reach these backends")
    )


def test_who_holds_the_last_route() -> None:
    assert peer_health.judge(case("keep"), (ILL,), FREE).kept == "last"
    away = peer_health.judge(case("keep", name="lb3"), (ILL,), FREE)
    assert not away.ready and away.reason.code == "last_elsewhere"
    assert away.reason.text.endswith("; lb2 keeps the last route")
    waits = peer_health.judge(case("keep", name="lb3"), (shut(ILL, announced=False),), FREE)
    assert waits.kept == "last" and waits.reason.text.endswith("until lb2 announces it")
    assert peer_health.judge(case("keep", name="lb3"), (replace(ILL, ready=False),), FREE).kept == "last"
    assert peer_health.judge(case("keep", name="lb3"), None, FREE).kept == "last"
    assert not peer_health.judge(case("keep", name="lb3"), (SERVING,), FREE).ready


def test_a_closed_gate_opens_again_only_for_the_last_route() -> None:
    assert peer_health.judge(case("keep", open=False), (ILL,), FREE).kept == "last"
    assert not peer_health.judge(case("keep", open=False, name="lb3"), (ILL,), FREE).ready
    assert not peer_health.judge(case("keep", open=False), (SERVING,), FREE).ready
    assert not peer_health.judge(case("keep", open=False), None, FREE).ready
    assert not peer_health.judge(case(open=False), (ILL,), FREE).ready
    soon = peer_health.judge(case("keep", open=False, lasts=1.0), (ILL,), FREE)
    assert not soon.ready and soon.wake == 999.0 + 2.0 + peer_health.GOSSIP


def test_one_that_is_well_and_waits_is_passed_over() -> None:
    """It may be damped for minutes: meanwhile this node has the route."""
    waiting = shut(SERVING, open=False, announced=False)
    assert peer_health.judge(case("keep", open=False, name="lb3"), (waiting,), FREE).kept == "last"


def test_what_the_machine_refuses_is_not_kept() -> None:
    assert peer_health.judge(replace(case("keep"), own="unable"), (ILL,), FREE) == peer_health.Opinion(
        False, DEAD.reason
    )
    spent = withdrawal_budget(Share(1), 3, {OTHER: Gate(False, 0.0, withdrawn_wall=5)}, (), 10.0)
    assert not peer_health.judge(replace(case(), own="unable"), (ILL,), spent).ready
    assert peer_health.judge(case(), (ILL,), spent).kept == "limit"


def test_trouble_grows_older_unless_more_is_added() -> None:
    one, both = frozenset({"web"}), frozenset({"web", "api"})
    first = peer_health.local_trouble(None, one, False, 1.0)
    assert first == LocalTrouble(one, False, 1.0)
    assert peer_health.local_trouble(first, one, False, 2.0) == first
    assert peer_health.local_trouble(first, one, True, 3.0) == LocalTrouble(one, True, 3.0)
    more = peer_health.local_trouble(first, both, False, 4.0)
    assert more == LocalTrouble(both, False, 4.0)
    assert peer_health.local_trouble(more, one, False, 5.0) == LocalTrouble(one, False, 4.0)
    assert peer_health.local_trouble(more, frozenset(), False, 6.0) is None


def test_a_withdrawal_counts_for_a_minute_whoever_did_it() -> None:
    gates = {VIP: Gate(False, 0.0, withdrawn_wall=1000)}
    peer = Status("lb2", withdrawn={VIP: 1010, OTHER: 1005, THIRD: 900})
    budget = withdrawal_budget(Share(3), 10, gates, (peer,), 1020.0)
    assert budget.spent == 2 and budget.wait == 1005 + WINDOW - 1020
    assert budget.allows(VIP) and budget.spend(VIP).spent == 2, "a VIP counts once"
    assert budget.allows(THIRD) and budget.spend(THIRD).spent == 3
    assert not budget.spend(THIRD).allows(ip_address("192.0.2.4"))
    assert withdrawal_budget(Share(percent=50), 10, gates, (peer,), 1020.0).limit == 5
    assert withdrawal_budget(Share(3), 10, {}, (Status("lb2", withdrawn={VIP: 10**15}),), 1020.0).spent == 0, (
        "a clock gone mad"
    )
    assert FREE.allows(VIP) and FREE.spend(VIP).spent == 0 and FREE.wait == 0
