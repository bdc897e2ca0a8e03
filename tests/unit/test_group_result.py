"""What of a group's result is in which table, and what keeps it from standing until something changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest

from anycastlb.core.decision.basis import Basis
from anycastlb.core.decision.gate import NEVER as LONG_AGO
from anycastlb.core.decision.group_result import ALWAYS, EARLY, NEVER, GroupParts, GroupResult, result
from anycastlb.core.decision.member import ObservedBackend
from anycastlb.core.decision.peer_votes import Following
from anycastlb.core.decision.pool import KeptBackends
from anycastlb.core.decision.steps import take_steps
from anycastlb.core.decision.vip_groups import group_vips
from anycastlb.core.model import Destination, LocalTrouble, Reason, VirtualService
from tests.support.two_vips import INPUTS, ONE, REST, TWO, WEB, at_rest

KEY = WEB.key(ONE)
KEEP = KeptBackends(frozenset(), Reason("kept_peers", "kept"))
TROUBLE = LocalTrouble(frozenset({"web"}), True, 50.0)
SHUT = LocalTrouble(frozenset(), True, 50.0)


def parts() -> GroupParts:
    """Of ``web``, when nothing changes any more."""
    last = at_rest()
    basis = Basis(INPUTS, last.decision.memory, REST + 10.0, {}, vips=2)
    grouping = group_vips(INPUTS.catalog.services)
    return take_steps(basis, grouping, [ONE]).of_group(basis, grouping.groups[ONE], steady=True)


PARTS = parts()
FIRST_TIME = result(PARTS, None)
ROWS = [key for table, key in PARTS.rows if table == "destinations"]


def test_every_table_has_its_own() -> None:
    made = FIRST_TIME
    assert made.rows is PARTS.rows and made.routes is PARTS.routes and made.up_since is PARTS.up_since
    assert made.addresses.keys() == made.gates.keys() == made.verdicts.keys() == made.routes.keys() == {ONE}
    assert made.services.keys() == made.order.keys() == made.serving == {KEY}
    assert list(made.destinations) == list(made.backends) == list(made.order[KEY]) == ROWS and len(ROWS) == 3
    assert [made.destinations[key].weight for key in ROWS] == [100, 100, 0]
    assert made.up_since.keys() == set(ROWS[:2])
    assert all(PARTS.rows["destinations", key][0] is made.destinations[key] for key in ROWS)
    assert (made.unproven, made.troubles, made.followed, made.wakes) == ({}, {}, {}, ())
    assert (made.cached, made.troubled, made.until) == (True, False, NEVER)


def unproven(since: float) -> Callable[[GroupParts], GroupParts]:
    """Its first backend has been wanted since then, and waits for its first result, which is due within 12 s."""

    def changed(given: GroupParts) -> GroupParts:
        (item,) = given.judged
        first, *others = item.members
        waiting = replace(first, seen=ObservedBackend(unproven=since), up=False)
        return replace(given, judged=[replace(item, members=(waiting, *others))])

    return changed


def verdict(**more: Any) -> Callable[[GroupParts], GroupParts]:
    return lambda given: replace(
        given, judged=[replace(item, verdict=replace(item.verdict, **more)) for item in given.judged]
    )


def case(wake: float | None = None, followed: Any = None, last: str = "", **more: Any) -> Callable[[GroupParts], Any]:
    def changed(given: GroupParts) -> GroupParts:
        (vote,) = given.votes
        services = [(replace(announce, last=last or announce.last), one) for announce, one in vote.case.services]
        case = replace(vote.case, services=services, **more)
        return replace(
            given, votes=[replace(vote, case=case, opinion=replace(vote.opinion, wake=wake), followed=followed or {})]
        )

    return changed


def gate(wake: float | None = None, **more: Any) -> Callable[[GroupParts], GroupParts]:
    return lambda given: replace(
        given, gates=[replace(item, wake=wake, gate=replace(item.gate, **more)) for item in given.gates]
    )


def wakes(*moments: float) -> Callable[[GroupParts], GroupParts]:
    return lambda given: replace(given, pools=[(item, replace(pool, wakes=moments)) for item, pool in given.pools])


@pytest.mark.parametrize(
    ("change", "until"),
    [
        (lambda given: given, ALWAYS),
        # It stands until a weight changes by itself, and a moment less.
        (wakes(200.0, 160.0), 160.0 - EARLY),
        (lambda given: replace(given, steady=False), NEVER),
        # Backends that are to prove themselves have a time to do so.
        (verdict(proving=5.0), NEVER),
        (unproven(since=REST + 5), NEVER),
        (unproven(since=REST - 30), ALWAYS),
        # The peers' reports count only for a VIP in trouble, and there with the time.
        (case(trouble=TROUBLE), ALWAYS),
        (case(trouble=TROUBLE, wake=150.0), NEVER),
        (case(trouble=TROUBLE, last="keep"), NEVER),
        (case(last="keep"), ALWAYS),
        (case(wake=150.0), ALWAYS),
        (case(followed={("web", KEY): Following(None, KEEP, LONG_AGO)}), NEVER),
        # A gate that waits, or that has flapped.
        (gate(wake=150.0), NEVER),
        (gate(penalty=0.1), NEVER),
    ],
)
def test_how_long_a_result_stands(change: Callable[[GroupParts], GroupParts], until: float) -> None:
    given = change(PARTS)
    first = result(given, None)
    assert first.until == NEVER, "nobody knows yet whether it would be the same again"
    assert result(given, first).until == until


@pytest.mark.parametrize(
    "change",
    [
        lambda given: replace(given, rows={**given.rows, ("addresses", TWO): (None, 30.0)}),
        gate(since=51.0),
        lambda given: replace(given, up_since={**given.up_since, ROWS[2]: 90.0}),
        unproven(since=REST - 30),
        case(trouble=TROUBLE),
        verdict(open=False),
    ],
    ids=["rows", "gates", "up_since", "unproven", "troubles", "serving"],
)
def test_a_result_stands_once_it_leaves_the_memory_it_was_made_of(change: Callable[[GroupParts], GroupParts]) -> None:
    changed = change(PARTS)
    once = result(changed, result(PARTS, None))
    assert once.until == NEVER
    assert result(changed, once).until == ALWAYS


def test_following_is_told_to_the_next_decision_and_ends() -> None:
    before = result(case(followed={("web", KEY): Following(120.0, KEEP, 200.0)})(PARTS), None)
    assert before.followed == {("web", KEY): 120.0}
    after = result(PARTS, before)
    assert after.followed == {} and after.until == NEVER and result(PARTS, after).until == ALWAYS


def test_an_equal_result_is_of_the_same_objects() -> None:
    last = result(parts(), FIRST_TIME)
    for field in fields(GroupResult):
        if field.name != "until":
            assert getattr(last, field.name) is getattr(FIRST_TIME, field.name), field.name


def test_of_one_that_differs_the_rest_is_of_the_same_objects() -> None:
    row = replace(PARTS.rows["destinations", ROWS[1]][0], weight=50)
    fresh = parts()
    last = result(replace(fresh, rows={**fresh.rows, ("destinations", ROWS[1]): (row, 30.0)}), FIRST_TIME)
    assert last.destinations[ROWS[1]] is row
    assert last.destinations[ROWS[0]] is FIRST_TIME.destinations[ROWS[0]]
    assert last.services is FIRST_TIME.services and last.backends is FIRST_TIME.backends


@pytest.mark.parametrize(
    ("trouble", "own", "troubled"),
    [
        (None, "well", False),
        (None, "ill", False),
        (TROUBLE, "ill", True),
        (SHUT, "ill", True),
        # Nothing opens the gate of a VIP that could not be served, but what is dead here gets the peers' weights.
        (SHUT, "unable", False),
        (TROUBLE, "unable", True),
    ],
)
def test_whose_decision_depends_on_the_peers(trouble: LocalTrouble | None, own: str, troubled: bool) -> None:
    made = result(case(trouble=trouble, own=own)(PARTS), None)
    assert made.troubled is troubled
    assert made.troubles == ({} if trouble is None else {ONE: trouble})


@pytest.mark.parametrize(
    ("is_open", "proving", "serves"), [(True, 0.0, True), (False, 5.0, True), (True, 5.0, True), (False, 0.0, False)]
)
def test_a_service_counts_as_served_while_it_proves_itself(is_open: bool, proving: float, serves: bool) -> None:
    made = result(verdict(open=is_open, proving=proving)(PARTS), None)
    assert made.serving == ({KEY} if serves else set())


@pytest.mark.parametrize(
    ("key", "row", "cached"),
    [
        (("services", KEY), VirtualService("mh"), True),
        (("services", KEY), VirtualService("wrr"), False),
        (("services", KEY), VirtualService("mh", persistence=300), False),
        (("destinations", ROWS[2]), Destination("nat", 0, 100), False),
    ],
)
def test_flows_can_do_without_entries_where_the_table_alone_places_them(key: Any, row: Any, cached: bool) -> None:
    assert result(replace(PARTS, rows={**PARTS.rows, key: (row, 30.0)}), None).cached is cached
