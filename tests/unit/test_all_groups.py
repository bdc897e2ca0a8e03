"""How the results of groups become the tables of the whole decision, and what of the last one's is kept."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from anycastlb.core.decision.all_groups import AllGroups, decided
from anycastlb.core.decision.group_result import NEVER, GroupResult
from anycastlb.core.decision.rows import Tables
from anycastlb.core.decision.scope import scope_of
from anycastlb.core.decision.steps import take_steps
from anycastlb.core.model import Address, Catalog, Inputs, Memory, Reason
from tests.support.two_vips import API, DOWN, FIRST, INPUTS, ONE, REST, TWO, WEB, at_rest

EMPTY: dict[str, Any] = {field.name: {} for field in fields(GroupResult)}
NOTHING = GroupResult(
    **EMPTY | {"serving": frozenset(), "wakes": (), "cached": True, "troubled": False, "until": NEVER}
)
A, B, LEFT = {"a": 1}, {"b": 2}, {"left": 0}


def group(**tables: Any) -> GroupResult:
    return replace(NOTHING, **tables)


def groups(*pairs: tuple[GroupResult, GroupResult], alike: bool = True) -> AllGroups:
    """Each group before and after; not ``alike``: the catalog has other groups than before."""
    names = [ONE, TWO][: len(pairs)]
    old, new = ({name: pair[side] for name, pair in zip(names, pairs, strict=True)} for side in (0, 1))
    changed = tuple((one, two) for one, two in pairs if one is not two)
    return AllGroups(old, new, tuple(names), changed if alike else None)


@pytest.mark.parametrize("name", sorted(EMPTY.keys() - {"serving", "wakes", "cached", "troubled", "until"}))
def test_every_table_is_that_of_all_groups_in_their_order(name: str) -> None:
    made = groups((NOTHING, group(**{name: B})), (NOTHING, group(**{name: A})), alike=False)
    assert list(made.table(name, LEFT).items()) == [("b", 2), ("a", 1)]


FIRST_A, FIRST_B = group(rows=A), group(rows=B)


@pytest.mark.parametrize(
    ("pairs", "rows"),
    [
        # Nothing was decided anew, or came out as it was.
        ([(FIRST_A, FIRST_A), (FIRST_B, FIRST_B)], None),
        ([(FIRST_A, replace(FIRST_A, up_since={"x": 1})), (FIRST_B, FIRST_B)], None),
        # Where the keys stay, the rows that changed are exchanged, and everything else stands where it stood.
        ([(FIRST_A, group(rows={"a": 9})), (FIRST_B, FIRST_B)], [("left", 0), ("a", 9), ("b", 2)]),
        # Where a key comes or goes, all groups are put together again.
        ([(FIRST_A, group(rows={"a": 1, "c": 3})), (FIRST_B, FIRST_B)], [("a", 1), ("c", 3), ("b", 2)]),
        ([(FIRST_A, FIRST_A), (FIRST_B, NOTHING)], [("a", 1)]),
        ([(FIRST_A, NOTHING), (FIRST_B, group(rows={"b": 9}))], [("b", 9)]),
    ],
)
def test_a_table_of_which_nothing_has_changed_is_the_same_object(
    pairs: list[tuple[GroupResult, GroupResult]], rows: list[tuple[str, int]] | None
) -> None:
    """``left`` is in the table before, and in no group: it shows which of its rows are kept without a look."""
    before = {**LEFT, **A, **B}
    table = groups(*pairs).table("rows", before)
    if rows is None:
        assert table is before
    else:
        assert list(table.items()) == rows and before == {**LEFT, **A, **B}


def test_the_tables_of_the_kernel_and_the_memory_are_made_of_their_own() -> None:
    of: dict[str, Any] = {name: {name: 1} for name in EMPTY} | {"serving": frozenset({WEB.key(ONE)})}
    names = ("addresses", "services", "destinations", "order")
    remembered = ("gates", "rows", "troubles", "unproven", "followed", "routes")
    made = groups((NOTHING, group(**{name: of[name] for name in (*names, *remembered, "serving")})), alike=False)
    assert made.tables(Tables()) == Tables(**{name: of[name] for name in names})
    assert made.memory(Memory()) == Memory(**{name: of[name] for name in (*remembered, "serving")})
    before = (
        Tables(**{name: {"before": name} for name in names}),
        Memory(**{name: {"before": name} for name in remembered}),
    )
    same = groups((NOTHING, NOTHING))
    assert same.tables(before[0]) == before[0] and same.memory(before[1]) == before[1]


@pytest.mark.parametrize(
    ("before", "after", "alike"),
    [
        (frozenset({1}), frozenset({1, 2}), True),
        (frozenset({1}), frozenset(), True),
        (frozenset({1}), frozenset({1, 2}), False),
    ],
)
def test_the_services_that_can_be_served(before: Any, after: Any, alike: bool) -> None:
    other = group(serving=frozenset({3}))
    made = groups((group(serving=before), group(serving=after)), (other, other), alike=alike)
    assert made.memory(Memory(serving=frozenset({1, 3}))).serving == after | {3}
    same = groups((other, replace(other, rows=A)))
    was = Memory(serving=frozenset({3}))
    assert same.memory(was).serving is was.serving


def test_what_groups_ask_for_no_longer() -> None:
    """Of a group that is gone with its services, ``scope`` knows."""
    was, now = group(rows={"stays": 1, "goes": 2}), group(rows={"stays": 3, "comes": 4})
    assert list(groups((was, now), (FIRST_A, FIRST_A)).given_up()) == [("goes", 2)]
    assert list(AllGroups({}, {ONE: now}, (ONE,), None).given_up()) == []
    assert list(AllGroups({ONE: was}, {ONE: now}, (), ()).given_up()) == []


def test_when_weights_change_and_whether_flows_can_do_without_entries() -> None:
    made = groups((NOTHING, group(wakes=(5.0, 3.0))), (NOTHING, group(wakes=(4.0,))))
    assert list(made.wakes) == [5.0, 3.0, 4.0]
    for one, two, cached in ((True, True, True), (True, False, False), (False, True, False)):
        assert groups((NOTHING, group(cached=one)), (NOTHING, group(cached=two))).cached is cached


def after(inputs: Inputs) -> AllGroups:
    """What the next decision makes of all groups."""
    last = at_rest()
    scope = scope_of(last, inputs, last.decision.memory, REST + 10.0)
    return decided(scope, take_steps(scope.basis, scope.grouping, scope.anew))


HEALTH = {**INPUTS.health, FIRST.check: DOWN}


@pytest.mark.parametrize(
    ("inputs", "names", "anew", "pairs"),
    [
        (INPUTS, [ONE, TWO], (), 0),
        (replace(INPUTS, health=HEALTH), [ONE, TWO], (ONE,), 1),
        (replace(INPUTS, catalog=Catalog((API, WEB))), [TWO, ONE], (), None),
        (replace(INPUTS, catalog=Catalog((API,))), [TWO], (), None),
        (replace(INPUTS, catalog=Catalog((API, WEB)), health=HEALTH), [TWO, ONE], (ONE,), None),
    ],
)
def test_what_was_not_decided_anew_is_the_last_result(
    inputs: Inputs, names: list[Address], anew: tuple[Address, ...], pairs: int | None
) -> None:
    made = after(inputs)
    assert list(made.new) == names and made.anew == anew
    assert (None if made.pairs is None else len(made.pairs)) == pairs
    assert {name for name in names if made.new[name] is made.old[name]} == {*names} - {*anew}
    for one, two in made.pairs or ():
        assert (one, two) == (made.old[ONE], made.new[ONE]) and two.destinations != one.destinations


def test_a_group_about_which_a_step_has_failed_is_decided_by_every_decision() -> None:
    last = at_rest()
    scope = scope_of(last, replace(INPUTS, health=HEALTH), last.decision.memory, REST + 10.0)
    steps = take_steps(scope.basis, scope.grouping, scope.anew)
    for faults, stands in (({}, True), ({ONE: Reason("internal_error", "oops")}, False), ({TWO: Reason("", "")}, True)):
        scope.basis.contained.faults.clear()
        scope.basis.contained.faults.update(faults)
        again = replace(scope, last=replace(last, results=decided(scope, steps).new))
        assert (decided(again, steps).new[ONE].until != NEVER) is stands
    assert decided(replace(again, unsteady=frozenset({ONE})), steps).new[ONE].until == NEVER
