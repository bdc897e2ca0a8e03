"""Passive failures: what HAProxy's counters say of a backend, and when a pool goes without it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import ip_address

import pytest

from anycastlb.adapters.drivers.haproxy.errors import UnknownAnswer
from anycastlb.adapters.drivers.haproxy.tries import counted
from anycastlb.core.decision.http import passive
from anycastlb.core.decision.http.passive import NOTHING_KNOWN, out, take
from anycastlb.core.decision.http.pools import NEW, decide_pool
from anycastlb.core.model import (
    NO_REASON,
    Check,
    CheckState,
    Endpoint,
    HttpServerKey,
    Passive,
    PassiveFailure,
    Reason,
    Service,
    Share,
    TryCounters,
)
from tests.support.passive import Counting, at, backend, pool, tried

UP, DOWN = CheckState(True), CheckState(False)


def test_what_was_counted_before_anybody_asked_counts_for_nothing() -> None:
    known = take(pool(), NOTHING_KNOWN, {("shop", at(1)): tried(0, 100)}, 5.0)
    assert not known.failures
    assert not take(pool(), known, {("shop", at(1)): tried(0, 100), ("shop", at(2)): tried(9, 9)}, 6.0).failures


@pytest.mark.parametrize(
    ("counters", "failed"),
    [
        (TryCounters(9, errors=3), True),
        (TryCounters(9, errors=2), False),
        (TryCounters(9, unanswered=3), True),
        (TryCounters(9, refused=3), True),
        (TryCounters(0, retried=3, redispatched=3), True),
        (TryCounters(0, redispatched=3), True),
        (TryCounters(0, retried=2, redispatched=2), False),
        (TryCounters(0, unanswered=2, redispatched=2), False),
        (TryCounters(9), False),
    ],
)
def test_max_fails_failed_requests_put_a_backend_out(counters: TryCounters, failed: bool) -> None:
    world = Counting(pool()).tried(b1=counters, b2=tried(9), b3=tried(9))
    assert bool(world.ask().failures) == failed


def test_the_reason_says_what_was_counted() -> None:
    (failure,) = Counting(pool()).tried(b1=tried(6, 3), b2=tried(9)).ask().failures.values()
    assert (failure.at, failure.until) == (101.0, 111.0)
    assert failure.what == "3 of 9 requests failed within 10 s"
    (reason,) = out(pool(), [True] * 3, {at(1): failure}, 101.0).values()
    assert reason == Reason(passive.FAILED, "out: 3 of 9 requests failed within 10 s; it gets none for 10 s")


def test_failures_add_up_within_fail_timeout_and_no_longer() -> None:
    world = Counting(pool())
    for expected in (set(), set(), {"b1"}):
        world.tried(b1=tried(0, 1), b2=tried(5), b3=tried(5)).ask(4.0)
        assert world.failing == expected
    world = Counting(pool())
    for _ in range(6):
        world.tried(b1=tried(0, 1), b2=tried(5), b3=tried(5)).ask(5.5)
        assert not world.failing, "at most two within 10 s"


def test_what_all_fail_alike_is_no_fault_of_one() -> None:
    world = Counting(pool())
    for _ in range(20):
        world.tried(b1=tried(4, 5), b2=tried(5, 4), b3=tried(4, 6)).ask()
        assert not world.failing
    assert Counting(pool()).tried(b1=tried(0, 9), b2=tried(0, 9), b3=tried(9)).ask().failures.keys() == {at(1), at(2)}


def test_a_large_pool_that_fails_as_a_whole_is_summed_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with each would take a second for a thousand backends."""
    world, summed = Counting(pool(200)), 0

    def once(spans: Iterable[passive.Span], begin: float) -> tuple[int, int]:
        nonlocal summed
        summed += 1
        return sum_of(spans, begin)

    sum_of = passive._sum
    monkeypatch.setattr(passive, "_sum", once)
    for turn in range(1, 4):
        world.tried(**{f"b{number}": tried(0, 9) for number in range(1, 201)}).ask()
        assert not world.failing and summed == 200 * turn


def test_while_nothing_is_counted_the_record_is_the_same_object() -> None:
    world = Counting(pool())
    first = world.record
    assert world.ask() is first and world.ask(1000.0) is first
    world.tried(b1=tried(1)).ask()
    assert world.record is not first
    world.ask(11.0)
    second = world.record
    assert not second.spans and world.ask() is second


def test_one_that_nobody_serves_beside_is_compared_with_none() -> None:
    assert not Counting(pool()).tried(b1=tried(0, 9)).ask().failures
    world = Counting(pool(2)).tried(b1=tried(0, 9), b2=tried(9))
    world.ask()
    world.tried(b2=tried(0, 9)).ask()
    assert world.failing == {"b1"}, "b2 is the last one"


def test_it_is_back_after_fail_timeout_and_starts_anew() -> None:
    world = Counting(pool()).tried(b1=tried(0, 5), b2=tried(9), b3=tried(9))
    world.ask()
    world.tried(b1=tried(0, 5)).ask(5.0)  # of requests that it had already
    assert world.record.failures[at(1)].until == 111.0, "nothing prolongs it"
    world.ask(5.0)
    assert not world.failing
    world.tried(b1=tried(0, 2), b2=tried(9)).ask()
    assert not world.failing
    world.tried(b1=tried(0, 1), b2=tried(9)).ask()
    assert world.failing == {"b1"}


def test_counters_that_begin_anew_are_no_evidence() -> None:
    world = Counting(pool()).tried(b1=tried(500, 1), b2=tried(500), b3=tried(500))
    world.ask()
    world.counters = {key: tried(9) for key in world.counters}
    world.counters["shop", at(1)] = tried(0, 400)
    assert not world.ask().failures, "a reload; nobody knows since when these are"
    assert not world.ask().failures
    world.tried(b1=tried(0, 3), b2=tried(3)).ask()
    assert world.failing == {"b1"}


def test_another_backend_of_the_same_name_starts_anew() -> None:
    world = Counting(pool()).tried(b1=tried(0, 5), b2=tried(9), b3=tried(9))
    world.ask()
    first, *others = world.pool.backends
    world.pool = replace(world.pool, backends=(replace(first, address=at(9)[0]), *others))
    world.counters["shop", at(9)] = world.counters.pop(("shop", at(1)))
    assert not world.ask().failures


def test_each_backend_has_its_own_bounds_and_one_without_is_never_out() -> None:
    backends = backend(1, None), backend(2, Passive(1, 2.0)), backend(3, Passive(50, 100.0)), backend(4)
    world = Counting(pool(4, backends=backends))
    world.tried(**{f"b{number}": tried(1, 9) for number in (1, 2, 3)}, b4=tried(9)).ask()
    assert world.failing == {"b2"} and world.record.failures[at(2)].until == 103.0
    assert passive.counts(world.pool) and not passive.counts(pool(1, backends=(backend(1, None),)))


def test_the_sections_of_one_pool_count_together() -> None:
    world = Counting(pool())
    world.counters["shop_r1", at(1)] = TryCounters()
    world.ask()
    world.tried(b1=tried(0, 2), b2=tried(3))
    world.counters["shop_r1", at(1)] = tried(0, 1)
    assert world.ask().failures.keys() == {at(1)}


# ---------------------------------------------------------------- the pool


def failures(*numbers: int, until: float = 110.0) -> dict[Endpoint, PassiveFailure]:
    """The lower the number, the earlier it failed."""
    return {at(number): PassiveFailure(90.0 + number, until, "4 of 9 failed") for number in numbers}


@pytest.mark.parametrize(
    ("of", "states", "failing", "gone"),
    [
        (pool(3), (UP, UP, UP), (2,), {2}),
        (pool(3), (UP, UP, UP), (1, 2), {1}),
        (pool(4), (UP, UP, UP, UP), (1, 2, 3), {1, 2}),
        (pool(4), (DOWN, UP, UP, DOWN), (1, 2, 3), {2}),
        (pool(2), (UP, DOWN), (1,), set()),
        (pool(2), (UP, CheckState()), (1,), set()),
        (pool(1), (UP,), (1,), set()),
        (pool(4, max_failed=Share(count=1)), (UP, UP, UP, UP), (1, 2), {1}),
        (pool(4, max_failed=Share(percent=50.0)), (DOWN, UP, UP, UP), (2, 3), {2}),
        (pool(4, max_failed=Share(count=1)), (DOWN, UP, UP, UP), (2, 3), set()),
        (pool(4, max_failed=Share(count=0)), (UP, UP, UP, UP), (2,), set()),
        (pool(3, backends=(backend(1), backend(2, drain=True), backend(3, weight=0))), (UP, UP, UP), (1, 2, 3), set()),
        (pool(2, backends=(backend(1), backend(2, fallback=True))), (UP, UP), (1, 2), set()),
    ],
)
def test_never_the_last_never_below_the_floor(
    of: Service, states: tuple[CheckState, ...], failing: tuple[int, ...], gone: set[int]
) -> None:
    ups = [state.up is True for state in states]
    assert out(of, ups, failures(*failing), 100.0).keys() == {at(number) for number in gone}
    assert not out(of, ups, failures(*failing), 110.0), "over"


def test_a_pool_goes_without_it_until_it_is_over() -> None:
    of, evidence = pool(3), failures(2)
    health: Mapping[Check, CheckState] = {of.check(at(1)[0], one): UP for one in of.backends}
    made = decide_pool(of, health, evidence, NEW, {}, 100.0)
    assert {name: (row.state, row.weight) for name, row in made.rows.items()} == {
        "b1": ("ready", 100), "b2": ("maint", 100), "b3": ("ready", 100),
    }  # fmt: skip
    verdict = made.verdict.backends["b2"]
    text = "out: 4 of 9 failed; it gets none for 18 s"
    assert (verdict.up, verdict.reason, verdict.notes) == (False, Reason(passive.FAILED, text), (text,))
    assert made.verdict.verdict.reason.text == "2/3 backends up" and made.verdict.serves
    stands = decide_pool(of, health, evidence, made.memory, {}, 100.5)
    assert stands.rows == made.rows and 110.0 in stands.wakes and 100.5 < stands.until < 110.0
    over = decide_pool(of, health, evidence, stands.memory, {}, 110.0)
    assert {row.state for row in over.rows.values()} == {"ready"} and not over.wakes


def test_one_that_fails_and_stays_is_shown_with_it() -> None:
    of = pool(3)
    health: Mapping[Check, CheckState] = {of.check(at(1)[0], one): UP for one in of.backends}
    made = decide_pool(of, health, failures(1, 2), NEW, {}, 100.0)
    notes = {name: verdict.notes for name, verdict in made.verdict.backends.items()}
    assert notes["b2"] == ("4 of 9 failed; kept in, since too few others are up",) and notes["b3"] == ()
    refused = {HttpServerKey("shop", "b3"): Reason("haproxy_refused", "no"), HttpServerKey("shop", "b2"): NO_REASON}
    alone = decide_pool(of, health, failures(1), NEW, refused, 100.0)
    assert alone.verdict.backends["b1"].up, "HAProxy has no other"
    over = decide_pool(of, health, failures(1, 2), made.memory, {}, 110.0)
    assert {verdict.notes for verdict in over.verdict.backends.values()} == {()}


# ---------------------------------------------------------------- HAProxy's answer


def test_answers_that_are_not_known() -> None:
    header = "# pxname,svname,addr,hrsp_2xx,hrsp_3xx,hrsp_4xx,hrsp_5xx,eresp,econ,wretr,wredis"
    row = "shop,b1,[2001:db8::1]:80,1,2,3,4,5,6,7,8"
    assert counted(f"{header}\n{row}\nshop,b2,,,,,,,,,\n") == {
        (ip_address("2001:db8::1"), 80): TryCounters(6, 4, 5, 6, 7, 8)
    }
    assert counted(f"{header}\n") == {}
    for answer in ("", "Unknown command", f"{header}\nshop,b1", f"{header}\n{row.replace('4', 'x')}"):
        with pytest.raises(UnknownAnswer):
            counted(answer)
