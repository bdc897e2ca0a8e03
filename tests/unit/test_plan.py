"""Orders of destinations, and what a failure blocks. The rest of the planner is under laws."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from anycastlb.core.decision import plan
from anycastlb.core.decision.failed_changes import FailedChanges, Fwmarks
from anycastlb.core.decision.plan import Destinations, diff
from anycastlb.core.model import (
    EMPTY,
    Change,
    ConsulKey,
    ConsulService,
    Destination,
    DestinationKey,
    Failure,
    HttpSite,
    Reason,
    Route,
    ServiceKey,
    ServiceVerdict,
    SiteKey,
    State,
    SyncDaemon,
    Verdict,
    VipAddress,
    VirtualService,
    on_vip,
)

VIP = ip_address("192.0.2.1")
WEB = ServiceKey("tcp", VIP, 80)


def destination(number: int) -> DestinationKey:
    return DestinationKey(WEB, ip_address(f"10.0.0.{number}"), 80)


def rows(*numbers: int) -> State:
    return State(destinations={destination(n): Destination("tunnel", 100, 100) for n in numbers})


def written(before: State, after: State) -> list[tuple[str, int]]:
    return [
        ("move" if change.moved else change.verb, int(str(change.key.address).rsplit(".", 1)[1]))
        for change in diff(before, after)
    ]


def test_an_append_is_one_write() -> None:
    assert written(rows(1, 2, 3), rows(1, 2, 3, 4)) == [("create", 4)]


def test_a_removal_is_one_write() -> None:
    assert written(rows(1, 2, 3), rows(1, 3)) == [("delete", 2)]


def test_only_what_stands_wrong_is_moved() -> None:
    assert written(rows(2, 1, 3), rows(1, 2, 3)) == [("move", 2), ("move", 3)]
    assert written(rows(1, 3), rows(1, 2, 3)) == [("create", 2), ("move", 3)]


def test_an_unknown_table_weight_is_asserted_again() -> None:
    key = destination(1)
    drained = State(destinations={key: Destination("tunnel", 0, None)})
    wanted = State(destinations={key: Destination("tunnel", 0, 100)})
    (change,) = diff(drained, wanted)
    assert change.verb == "update" and not diff(wanted, wanted)


def test_what_nobody_asks_for_is_deleted() -> None:
    other = ip_address("192.0.2.2")
    actual = State(addresses={VIP: VipAddress(), other: VipAddress()})
    assert diff(actual, State(addresses={VIP: VipAddress()})) == (Change("addresses", other, VipAddress(), None),)


def test_a_new_one_in_front_moves_all_behind_it() -> None:
    assert written(rows(1), rows(3, 1)) == [("create", 3), ("move", 1)]


def test_a_move_raises_at_once_and_lowers_in_a_write_of_its_own() -> None:
    """Its table weight is that of the weight it has meanwhile."""
    first, second = destination(1), destination(2)
    heavy, light = Destination("tunnel", 100, 100), Destination("tunnel", 50, 100)
    raised = diff(State(destinations={second: light, first: heavy}), State(destinations={first: heavy, second: heavy}))
    assert raised == (Change("destinations", second, light, heavy, moved=True),)
    lowered = diff(State(destinations={second: heavy, first: heavy}), State(destinations={first: heavy, second: light}))
    assert lowered == (
        Change("destinations", second, heavy, heavy, moved=True),
        Change("destinations", second, heavy, light),
    )
    wanted = Destination("tunnel", 0, 70)
    kept, _ = diff(
        State(destinations={second: light, first: heavy}), State(destinations={first: heavy, second: wanted})
    )
    assert kept.new == Destination("tunnel", 50, 50)


def test_what_is_moved_stands_last() -> None:
    change = Change(
        "destinations", destination(1), Destination("tunnel", 1, 1), Destination("tunnel", 2, 2), moved=True
    )
    assert list(plan.apply(rows(1, 2), change).destinations) == [destination(2), destination(1)]
    assert list(plan.apply(rows(1, 2), replace(change, moved=False)).destinations) == [destination(1), destination(2)]


def weighted(old: int | None, new: int | None, moved: bool = False) -> Change:
    before, after = (None if weight is None else Destination("tunnel", weight, 100) for weight in (old, new))
    return Change("destinations", destination(1), before, after, moved)


def registered(old: bool | None, new: bool | None) -> Change:
    before, after = (None if ok is None else ConsulService("web", VIP, 80, (), ok, "") for ok in (old, new))
    return Change("consul_services", ConsulKey("web", VIP, "lb1"), before, after)


@pytest.mark.parametrize(
    ("change", "phase", "comes_last"),
    [
        (Change("sysctls", "a", "0", "1"), ("sysctls", "set"), False),
        (Change("config", "a", 1, None), ("config", "set"), False),
        (Change("routes", VIP, Route(), None), ("routes", "delete"), False),
        (weighted(None, 100), ("destinations", "create"), False),
        (weighted(50, 100), ("destinations", "raise"), False),
        (weighted(100, 100), ("destinations", "raise"), False),
        (weighted(100, 50), ("destinations", "lower"), True),
        (weighted(100, 100, moved=True), ("destinations", "create"), False),
        (weighted(100, None), ("destinations", "delete"), True),
        (registered(None, True), ("consul_services", "create"), False),
        (registered(None, False), ("consul_services", "create"), False),
        (registered(False, True), ("consul_services", "update"), False),
        (registered(True, False), ("consul_services", "close"), False),
        (registered(True, None), ("consul_services", "delete"), False),
        (Change("dns_records", "a", 1, 2), ("dns_records", "update"), False),
        (Change("services", WEB, VirtualService("mh"), VirtualService("rr")), ("services", "update"), False),
        (Change("services", WEB, VirtualService("mh"), None), ("services", "delete"), True),
        (Change("addresses", VIP, VipAddress(), None), ("addresses", "delete"), True),
    ],
)
def test_when_a_change_is_made(change: Change, phase: tuple[str, str], comes_last: bool) -> None:
    assert plan.phase(change) == phase and plan.tears_down(change) == comes_last


class Incomparable(Destination):
    def __eq__(self, other: object) -> bool:
        raise ZeroDivisionError

    __hash__ = Destination.__hash__


def test_destinations_that_cannot_be_compared_stay_and_the_others_do_not_wait_for_them() -> None:
    other = DestinationKey(ServiceKey("tcp", VIP, 81), ip_address("10.0.0.9"), 81)
    service = VirtualService("mh")
    desired = State(services={WEB: service}, destinations={destination(1): Incomparable("tunnel", 100, 100)})
    actual = State(
        services={WEB: service}, destinations={**rows(1, 2).destinations, other: Destination("tunnel", 1, 1)}
    )
    changes, (failure,) = plan.compare(actual, desired)
    assert changes == (Change("destinations", other, Destination("tunnel", 1, 1), None),)
    assert failure.change == Change("services", WEB, None, service) and failure.reason.code == "internal_error"


UP, NO = Reason("backends_up", "1/1 backends up"), Reason("kernel_refused", "no")
VERDICTS = {VIP: Verdict(VIP, True, UP, 0.0, (ServiceVerdict("web", WEB, True, 1, 1, 1, UP),))}
SERVICE = Change("services", WEB, None, VirtualService("mh"))
ADDRESS = Change("addresses", VIP, None, VipAddress())
ANNOUNCE = Change("routes", VIP, None, Route())
WITHDRAW = Change("routes", VIP, Route(), None)


def blocked(
    change: Change, *failures: Failure, fwmarks: Fwmarks = EMPTY, desired: Destinations = EMPTY
) -> Reason | None:
    outcome = FailedChanges(VERDICTS, fwmarks, failures, desired).blocks(change)
    return outcome.reason if outcome else None


def test_no_route_to_what_could_not_be_built() -> None:
    for failed in (SERVICE, ADDRESS):
        reason = blocked(ANNOUNCE, Failure(failed, Reason("kernel_refused", "no such module")))
        assert reason == Reason("vip_incomplete", "not announced: no such module", str(failed.key))
    other = Change("services", ServiceKey("tcp", ip_address("192.0.2.2"), 80), None, VirtualService("mh"))
    assert blocked(ANNOUNCE, Failure(other, NO)) is None, "a failure is contained"


def test_a_withdrawal_waits_for_nothing() -> None:
    assert blocked(WITHDRAW, Failure(SERVICE, NO), Failure(ADDRESS, NO)) is None


def test_a_failure_that_gives_no_weight_is_none_of_a_weight() -> None:
    fine = rows(1).destinations
    address = Change("addresses", VIP, VipAddress(), VipAddress("dummy0"))
    deleted = Change("destinations", destination(1), Destination("tunnel", 0, 100), None)
    for change in (address, deleted, weight(1, 0, 0), weight(1, 100, 0)):
        assert blocked(weight(2, 100, 0), Failure(change, NO), desired=fine) is None


def test_what_is_not_served_keeps_nothing() -> None:
    """The decision knows that it cannot be served, and what it replaces is not needed for it."""
    verdict = replace(VERDICTS[VIP].services[0], open=False)
    failed = FailedChanges({VIP: replace(VERDICTS[VIP], services=(verdict,))}, failures=[Failure(SERVICE, NO)])
    assert failed.blocks(Change("destinations", destination(1), Destination("tunnel", 1, 1), None)) is None
    assert failed.blocks(ANNOUNCE) is not None


def test_what_is_under_way_is_no_failure_unless_something_else_failed() -> None:
    waits, failed = Failure(SERVICE, Reason("pending", "soon"), pending=True), Failure(SERVICE, NO)
    for failures, reason, pending in (
        ((waits,), "soon", True),
        ((waits, failed), "no", False),
        ((failed, waits), "no", False),
        ((waits, Failure(SERVICE, Reason("pending", "later"), pending=True)), "soon", True),
        ((failed, Failure(SERVICE, Reason("x", "later"))), "no", False),
        ((Failure(ADDRESS, Reason("pending", "soon"), pending=True), failed), "no", False),
    ):
        outcome = FailedChanges(VERDICTS, failures=failures).blocks(ANNOUNCE)
        assert outcome is not None and outcome.pending == pending
        assert outcome.reason.text == f"not announced: {reason}"


def test_a_gateway_is_announced_once_haproxy_knows_a_hostname_of_it() -> None:
    """A HAProxy that starts with an older file may know none, and answers everything with 404 then."""
    verdict = replace(VERDICTS[VIP].services[0], service=on_vip("web"))
    verdicts = {VIP: replace(VERDICTS[VIP], services=(verdict,))}
    sites = [SiteKey("web", "a.example"), SiteKey("web", "b.example"), SiteKey("blog", "c.example")]
    one, two, other = (
        Failure(Change("http_sites", key, None, HttpSite("root")), Reason("haproxy_reload_waits", "soon"), pending=True)
        for key in sites
    )
    outcome = FailedChanges(verdicts, failures=[one, two], sites=sites).blocks(ANNOUNCE)
    assert outcome is not None and outcome.pending and outcome.reason.text == "not announced: soon"
    update = Change("http_sites", sites[0], HttpSite("old"), HttpSite("root"))
    for failures in ([one, other], [two, Failure(update, NO)]):
        assert FailedChanges(verdicts, failures=failures, sites=sites).blocks(ANNOUNCE) is None


def test_nothing_is_torn_down_under_a_route() -> None:
    failure = Failure(WITHDRAW, Reason("bridge_silent", "no answer"))
    for change in (
        Change("addresses", VIP, VipAddress(), None),
        Change("services", WEB, VirtualService("mh"), None),
        Change("destinations", destination(1), Destination("tunnel", 1, 1), None),
    ):
        assert blocked(change, failure)
    lower = Change("destinations", destination(1), Destination("tunnel", 1, 1), Destination("tunnel", 0, 1))
    assert blocked(lower, failure) is None, "a dead backend loses its weight all the same"
    row = ("destinations", destination(1))
    outcome = FailedChanges(VERDICTS, failures=[failure], leaving={row}).blocks(lower)
    assert outcome is not None and outcome.reason.code == "route_still_up", "one that was taken out serves on"


def test_a_route_that_cannot_be_announced_keeps_no_removed_backend() -> None:
    """While ExaBGP is away every announcement fails; that a backend leaves has nothing to do with it."""
    leaves = Change("destinations", destination(1), Destination("tunnel", 1, 1), None)
    assert blocked(leaves, Failure(ANNOUNCE, Reason("bridge_away", "ExaBGP's bridge is not connected"))) is None


def test_a_service_that_was_not_made_gets_no_destinations() -> None:
    create = Change("destinations", destination(1), None, Destination("tunnel", 1, 1))
    assert blocked(create, Failure(SERVICE, NO))
    update = Change("services", WEB, VirtualService("rr"), VirtualService("mh"))
    assert blocked(create, Failure(update, NO)) is None, "it still serves as it was"


def weight(number: int, old: int, new: int) -> Change:
    return Change("destinations", destination(number), Destination("tunnel", old, 100), Destination("tunnel", new, 100))


def test_no_route_to_a_service_that_got_none_of_its_weights() -> None:
    failures = [Failure(weight(1, 0, 100), NO), Failure(weight(2, 0, 100), NO)]
    reason = blocked(ANNOUNCE, *failures, desired=rows(1, 2).destinations)
    assert reason == Reason("vip_incomplete", "not announced: no", str(destination(1)))
    assert blocked(ANNOUNCE, *failures, desired=rows(1, 2, 3).destinations) is None, "the third has its weight"


def test_the_last_weight_is_not_taken_when_no_other_could_be_given() -> None:
    failure = Failure(weight(1, 0, 100), NO)
    reason = blocked(weight(2, 100, 0), failure, desired=rows(1).destinations)
    assert reason is not None and reason.code == "replacement_missing"
    leaves = Change("destinations", destination(2), Destination("tunnel", 100, 100), None)
    assert blocked(leaves, failure, desired=rows(1).destinations) == reason
    assert blocked(weight(2, 100, 0), failure, desired=rows(1, 3).destinations) is None, "the third has its weight"
    assert blocked(weight(2, 100, 50), failure, desired=rows(1).destinations) is None
    unmade = Failure(Change("destinations", destination(2), None, Destination("tunnel", 100, 100)), NO)
    assert blocked(weight(4, 100, 0), failure, unmade, desired=rows(1, 2).destinations) == reason
    less = Failure(weight(3, 50, 100), NO)
    assert blocked(weight(2, 100, 0), failure, less, desired=rows(1, 3).destinations) is None, "the third has one"
    idle = {**rows(1).destinations, destination(3): Destination("tunnel", 0, 100)}
    assert blocked(weight(2, 100, 0), failure, desired=idle) == reason, "the third is to have none"
    less = Failure(weight(1, 50, 100), NO)
    assert blocked(weight(2, 100, 0), less, desired=rows(1).destinations) is None, "it has a weight, if not all of it"


class Counted:
    """A key that counts how often it is compared."""

    compared = 0

    def __init__(self, number: int) -> None:
        self.number = number

    def __hash__(self) -> int:
        return hash(self.number)

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return isinstance(other, Counted) and other.number == self.number


def test_the_work_of_containing_grows_with_changes_plus_failures() -> None:
    failed = FailedChanges({}, failures=[Failure(Change("routes", Counted(n), Route(), None), NO) for n in range(5000)])
    Counted.compared = 0
    changes = [Change("addresses", Counted(n), VipAddress(), None) for n in range(10_000)]
    assert sum(failed.blocks(change) is not None for change in changes) == 5000
    assert Counted.compared < 4 * (5000 + 10_000), "each change is compared with a few failures, not with all"


def test_settings_come_first_and_go_only_when_asked() -> None:
    daemon = SyncDaemon("lan", 1, ip_address("224.0.0.81"), 8848)
    actual = State(sysctls={"a": "0"}, config={"tcp_timeout": 900, "sync_master": daemon, "sync_backup": daemon})
    assert plan.diff(actual, State()) == ()
    config = {"tcp_timeout": 300, "sync_master": None, "udp_timeout": 9}
    desired = State(sysctls={"a": "1"}, config=config, addresses={ip_address("192.0.2.10"): VipAddress()})
    changes = plan.diff(actual, desired)
    assert [(change.table, change.key, change.verb) for change in changes] == [
        ("sysctls", "a", "update"),
        ("config", "tcp_timeout", "update"),
        ("config", "sync_master", "delete"),
        ("config", "udp_timeout", "create"),
        ("addresses", ip_address("192.0.2.10"), "create"),
    ]
    state = actual
    for change in changes:
        state = plan.apply(state, change)
    assert plan.diff(state, desired) == ()
    assert state.config == {"tcp_timeout": 300, "sync_backup": daemon, "udp_timeout": 9}


def test_nothing_is_torn_down_before_its_successor_is_there() -> None:
    """Until the next look: the next decision knows of the failure, and asks for the new backend with no weight."""
    leaves = Change("destinations", destination(1), Destination("tunnel", 100, 100), None)
    counted, idle = (
        Failure(Change("destinations", destination(2), None, Destination("tunnel", weight, 100)), NO)
        for weight in (100, 0)
    )
    assert blocked(leaves, counted) == Reason(
        "replacement_missing",
        "kept until the next look, because what replaces it could not be made: no",
        f"{destination(2)}",
    )
    assert blocked(ANNOUNCE, counted), "and it is not announced over a backend that is missing"
    assert blocked(leaves, idle) is None and blocked(ANNOUNCE, idle) is None
    assert blocked(leaves, Failure(SERVICE, NO))


def test_the_rows_of_a_fwmark_service_belong_to_its_vips() -> None:
    mark, probe = (ServiceKey("fwmark", ip_address("0.0.0.0"), number) for number in (7, 9))
    failure = Failure(WITHDRAW, Reason("bridge_silent", "no answer"))
    for key, kept in ((mark, True), (probe, False)):
        for change in (
            Change("services", key, VirtualService("mh"), None),
            Change("destinations", DestinationKey(key, ip_address("10.0.0.1"), 0), Destination("tunnel", 1, 1), None),
        ):
            reason = blocked(change, failure, fwmarks={mark: frozenset({VIP})})
            assert (reason is not None and reason.code == "route_still_up") == kept
