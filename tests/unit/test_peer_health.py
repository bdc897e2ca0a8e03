"""Single questions to belief and budget; what they do together is in the laws and the stories."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from anycastlb.core.decision import peer_health, peer_reports
from anycastlb.core.decision.withdrawal_budget import WINDOW, WithdrawalBudget, withdrawal_budget
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


API = ServiceVerdict("api", KEY, True, 2, 2, 1, Reason("backends_up", "2/2 backends up"))
GONE = Reason("too_few_backends", "web is gone")
REACH = Reason("peers_reach", "0/2 backends up; 1 of 1 peers reach these backends")
BOTH = Status(
    "lb2",
    ready=True,
    vips={VIP: VipSummary(True, True, "fine", "well")},
    services={"web": {VIP: ServiceSummary(True, 2, 2)}, "api": {VIP: ServiceSummary(True, 2, 2)}},
)
SAME = replace(BOTH, services={**BOTH.services, "web": {VIP: ServiceSummary(False, 0, 2, ("*",), True)}})
"""A node that reaches the backends of ``api``, and none of ``web``, as this one does."""
ROOM = withdrawal_budget(Share(1), 3, {}, (), 10.0)
SPENT = withdrawal_budget(Share(1), 3, {OTHER: Gate(False, 0.0, withdrawn_wall=5)}, (), 10.0)
ASKS = "kept open until the peers can have seen the same"
LIMIT = "its withdrawal waits: 1 VIPs were withdrawn by health within a minute, and cluster.max_withdrawals allows 1"


KEPT = "kept as the last route (last = keep)"
LAST, UNKNOWN = (DOWN.also(f"{KEPT}{more}", "kept_last") for more in ("", ": nothing is known of other nodes"))
UNTIL = DOWN.also(f"{KEPT} until lb2 announces it", "kept_last")
ELSEWHERE = DOWN.also("lb2 keeps the last route", "last_elsewhere")
OPENED = DOWN.also("opened as the last route (last = keep)", "kept_last")
WEB = Reason("peers_reach", "web: 0/2 backends up; 1 of 1 peers reach these backends", "web")


def two(last: str = "withdraw", open: bool = True, lasts: float = 100.0, ready: bool = True) -> peer_health.Case:
    """``api`` is well, and no backend of ``web`` is up."""
    services = [(Announce(), API), (Announce(last=last), DEAD)]  # type: ignore[arg-type]
    return replace(case(last, open, lasts), services=services, ready=ready, reason=GONE)


def shut(status: Status, **summary: object) -> Status:
    return replace(status, vips={VIP: replace(status.vips[VIP], **summary)})  # type: ignore[arg-type]


QUIET = shut(ILL, announced=False)


def unchecked(case: peer_health.Case) -> peer_health.Case:
    """The same, where a backend of the first service was not checked yet."""
    (announce, verdict), *others = case.services
    return replace(case, services=[(announce, replace(verdict, unsettled=5.0)), *others])


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
    assert peer_reports.statuses(replace(known, follows=False)) is None
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
        (web(ServiceSummary(True, 0, 2)), False),
        (web(ServiceSummary(False, 0, 0)), False),
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
    silent = shut(SERVING, announced=False)
    assert peer_health.alive((silent, SAME), VIP, ["web"], "web", ["b1"]).names == frozenset(), "nobody serves it"
    assert peer_health.alive((SAME,), VIP, ["web", "api"], "api", ["b1"]).names == {"b1"}
    assert peer_health.alive((SAME,), VIP, ["web", "api"], "web", ["b1"]).names == frozenset()


@pytest.mark.parametrize(
    ("case", "known", "budget", "opinion"),
    [
        # Nobody wants the last route kept: local health decides at once.
        (case(lasts=1.0), (ILL,), FREE, peer_health.Opinion(False, DOWN)),
        (case(lasts=1.0), None, FREE, peer_health.Opinion(False, DOWN)),
        (case(lasts=1.0), (SERVING,), FREE, peer_health.Opinion(False, REACH)),
        (case(name="lb3"), (ILL,), FREE, peer_health.Opinion(False, DOWN)),
        # The last route: asked for until the trouble is 2 + 3 s old, then kept by the first by name.
        (
            case("keep", lasts=4.9),
            (ILL,),
            FREE,
            peer_health.Opinion(True, DOWN.also(ASKS, "kept_asks"), "asks", 1000.1),
        ),
        (case("keep", lasts=5.0), (ILL,), FREE, peer_health.Opinion(True, LAST, "last")),
        (case("keep", lasts=1.0), (), FREE, peer_health.Opinion(True, LAST, "last")),
        (
            case("keep", lasts=1.0),
            None,
            FREE,
            peer_health.Opinion(True, UNKNOWN, "last"),
        ),
        (case("keep", name="lb3"), (ILL,), FREE, peer_health.Opinion(False, ELSEWHERE)),
        (case("keep", name="lb3"), (replace(ILL, ready=False),), FREE, peer_health.Opinion(True, LAST, "last")),
        (case("keep", name="lb3"), (QUIET, replace(ILL, node="lb4")), FREE, peer_health.Opinion(True, UNTIL, "last")),
        (case("keep", name="lb3"), (ILL, replace(ILL, node="lb4")), FREE, peer_health.Opinion(False, ELSEWHERE)),
        (case("keep", name="lb3"), (SERVING,), FREE, peer_health.Opinion(False, REACH)),
        (case("keep"), (SERVING,), FREE, peer_health.Opinion(False, REACH)),
        (two("keep", ready=False), (), FREE, peer_health.Opinion(True, GONE.also(KEPT, "kept_last"), "last")),
        # A closed gate opens again only for it.
        (case("keep", open=False, lasts=5.0), (ILL,), FREE, peer_health.Opinion(True, OPENED, "last")),
        (case("keep", open=False, lasts=4.9), (ILL,), FREE, peer_health.Opinion(False, DOWN, wake=1000.1)),
        (case("keep", open=False, name="lb3"), (ILL,), FREE, peer_health.Opinion(False, ELSEWHERE)),
        (case("keep", open=False, name="lb3"), (QUIET,), FREE, peer_health.Opinion(False, DOWN)),
        (case("keep", open=False), (SERVING,), FREE, peer_health.Opinion(False, REACH)),
        (case("keep", open=False), None, FREE, peer_health.Opinion(False, DOWN)),
        (case(open=False), (ILL,), FREE, peer_health.Opinion(False, DOWN)),
        (unchecked(case("keep", open=False)), (ILL,), FREE, peer_health.Opinion(False, DOWN)),
        (unchecked(two("keep", open=False, ready=False)), (), FREE, peer_health.Opinion(False, GONE)),
        # One service is dead here, and a peer reaches it: this gate closes once the peer can have seen the same.
        (two(), (BOTH,), FREE, peer_health.Opinion(False, WEB)),
        (two(lasts=4.9), (BOTH,), FREE, peer_health.Opinion(True, WEB.also(ASKS, "kept_asks"), "", 1000.1)),
        (two("keep", open=False), (BOTH,), FREE, peer_health.Opinion(False, WEB)),
        (two(), (SAME,), FREE, peer_health.Opinion(True, GONE)),
        (two(lasts=1.0), (SAME,), FREE, peer_health.Opinion(True, GONE)),
        (two(), (), FREE, peer_health.Opinion(True, GONE)),
        # The cluster's limit: what nobody serves instead is counted, and waits.
        (case(), (), ROOM, peer_health.Opinion(False, DOWN, withdrawn=True)),
        (case(lasts=1.0), (SERVING,), ROOM, peer_health.Opinion(False, REACH, withdrawn=True)),
        (case(), (SERVING,), ROOM, peer_health.Opinion(False, REACH)),
        (case("keep", name="lb3"), (ILL,), ROOM, peer_health.Opinion(False, ELSEWHERE)),
        (case("keep", name="lb3"), (ILL,), SPENT, peer_health.Opinion(False, ELSEWHERE)),
        (case(), (), SPENT, peer_health.Opinion(True, DOWN.also(LIMIT, "kept_limit"), "limit", 1055.0)),
        (case(lasts=1.0), (ILL,), SPENT, peer_health.Opinion(True, DOWN.also(LIMIT, "kept_limit"), "limit", 1055.0)),
        (case(), (SERVING,), SPENT, peer_health.Opinion(False, REACH)),
        (case(lasts=4.9), (SERVING,), SPENT, peer_health.Opinion(True, REACH.also(ASKS, "kept_asks"), "asks", 1000.1)),
    ],
)
def test_what_the_peers_change(
    case: peer_health.Case,
    known: tuple[Status, ...] | None,
    budget: WithdrawalBudget,
    opinion: peer_health.Opinion,
) -> None:
    assert peer_health.judge(case, known, budget) == opinion


@pytest.mark.parametrize(
    ("services", "own"),
    [
        ([("any", True, True)], "well"),
        ([("any", False, True)], "ill"),
        ([("any", False, False)], "unable"),
        ([("any", True, True), ("any", False, False)], "well"),
        ([("any", True, True), ("all", False, True)], "ill"),
        ([("any", True, True), ("all", False, False)], "unable"),
        ([("all", True, True), ("all", True, True)], "well"),
    ],
)
def test_what_a_node_says_of_its_own_probes(services: list[tuple[str, bool, bool]], own: str) -> None:
    judged = [
        (Announce(when=when), replace(API, open=not well, condition=Condition(well, False, able)))  # type: ignore[arg-type]
        for when, well, able in services
    ]
    assert peer_health.own(judged) == own


def test_the_slowest_check_says_when_the_peers_can_have_seen_the_same() -> None:
    """``web`` is probed within 2 s, ``api`` in no time."""
    assert two(lasts=1.0).settled_at == 999.0 + 2.0 + peer_health.GOSSIP
    assert replace(two(), trouble=None).settled_at == 1000.0 + 2.0 + peer_health.GOSSIP


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
    assert peer_health.local_trouble(None, frozenset(), True, 7.0) == LocalTrouble(frozenset(), True, 7.0)


def test_a_withdrawal_counts_for_a_minute_whoever_did_it() -> None:
    gates = {VIP: Gate(False, 0.0, withdrawn_wall=1000)}
    peer = Status("lb2", withdrawn={VIP: 1010, OTHER: 1005, THIRD: 900})
    budget = withdrawal_budget(Share(3), 10, gates, (peer,), 1020.0)
    assert budget.spent == 2 and budget.wait == 1005 + WINDOW - 1020
    assert budget.allows(VIP) and budget.spend(VIP).spent == 2, "a VIP counts once"
    assert withdrawal_budget(Share(1), 10, gates, (), 1020.0).allows(VIP), "also where there is no room for another"
    assert withdrawal_budget(Share(1), 10, gates, (), 1059.9).spent == 1
    assert withdrawal_budget(Share(1), 10, gates, (), 1060.0).spent == 0
    assert withdrawal_budget(None, 10, gates, (peer,), 1020.0).spent == 0, "without a limit nothing is counted"
    assert budget.allows(THIRD) and budget.spend(THIRD).spent == 3
    assert not budget.spend(THIRD).allows(ip_address("192.0.2.4"))
    assert withdrawal_budget(Share(percent=50), 10, gates, (peer,), 1020.0).limit == 5
    assert withdrawal_budget(Share(3), 10, {}, (Status("lb2", withdrawn={VIP: 10**15}),), 1020.0).spent == 0, (
        "a clock gone mad"
    )
    assert FREE.allows(VIP) and FREE.spend(VIP).spent == 0 and FREE.wait == 0
