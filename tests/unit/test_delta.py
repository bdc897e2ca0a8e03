"""What differs between two tables by identity, and how equal parts are kept as they were."""

from __future__ import annotations

from weakref import ref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anycastlb.core.delta import SHARE, Delta, Edited, delta, in_one_piece, shared
from anycastlb.core.identity import same_objects

A, B, C, D, E = ("".join(["key ", name]) for name in "abcde")  # strings that are no constants: each its own object
ONE, TWO, OTHER_ONE = [1], [2], [1]
"""Rows; the first and the last are equal, and not the same object."""
BASE = {A: ONE, B: TWO, C: ONE}


@pytest.mark.parametrize(
    ("new", "keys", "aligned"),
    [
        (dict(BASE), set(), True),
        ({**BASE, B: ONE}, {B}, True),
        ({**BASE, A: OTHER_ONE, C: TWO}, {A, C}, True),
        # A row that comes or goes, at the end, the beginning and in between.
        ({**BASE, D: ONE}, {D}, False),
        ({D: ONE, **BASE}, {D}, False),
        ({A: ONE, D: ONE, B: TWO, C: ONE}, {D}, False),
        ({A: ONE, B: TWO}, {C}, False),
        ({B: TWO, C: ONE}, {A}, False),
        ({A: ONE, C: ONE}, {B}, False),
        ({A: ONE, D: TWO, C: ONE}, {B, D}, False),
        # The same rows in another order.
        ({B: TWO, A: ONE, C: ONE}, {A, B}, False),
        ({C: ONE, B: TWO, A: ONE}, {A, B, C}, False),
        # Before, and after, what moves, rows may have changed.
        ({A: TWO, B: TWO, C: ONE, D: ONE}, {A, D}, False),
        ({D: ONE, A: ONE, B: TWO, C: OTHER_ONE}, {C, D}, False),
        ({A: OTHER_ONE, D: ONE, B: TWO, C: TWO}, {A, C, D}, False),
        ({}, {A, B, C}, False),
    ],
)
def test_where_two_tables_differ(new: dict[str, list[int]], keys: set[str], aligned: bool) -> None:
    for one, other in ((BASE, new), (new, BASE)):
        differs = delta(one, other)
        assert (set(differs.keys), differs.aligned) == (keys, aligned)
        assert len(differs.keys) == len(keys), "each once"


def test_a_table_does_not_differ_from_itself() -> None:
    assert delta(BASE, BASE).keys == () and delta(BASE, BASE).aligned


rows = st.sampled_from([ONE, TWO, OTHER_ONE])
tables = st.lists(st.tuples(st.sampled_from([A, B, C, D, E]), rows), unique_by=lambda pair: pair[0]).map(dict)


@given(tables, tables)
def test_what_a_delta_leaves_out_is_the_same_and_in_the_same_order(old: dict, new: dict) -> None:
    keys = set(delta(old, new).keys)
    left = [[(key, id(row)) for key, row in table.items() if key not in keys] for table in (old, new)]
    assert left[0] == left[1]


EQUAL_B = "".join(["key ", "b"])


@pytest.mark.parametrize(
    ("new", "same"),
    [
        (dict(BASE), True),
        ({}, False),
        ({A: ONE, B: TWO}, False),
        ({**BASE, D: ONE}, False),
        ({A: ONE, C: ONE, B: TWO}, False),
        ({A: ONE, EQUAL_B: TWO, C: ONE}, False),
        ({A: TWO, B: ONE, C: TWO}, True),
    ],
)
def test_the_same_keys_in_the_same_order(new: dict[str, list[int]], same: bool) -> None:
    assert same_objects(BASE, new) is same_objects(new, BASE) is same


@pytest.mark.parametrize(
    ("new", "table"),
    [
        # Equal: the old table itself.
        (dict(BASE), BASE),
        ({A: OTHER_ONE, EQUAL_B: [2], C: [1]}, BASE),
        # Else a table of the old objects, in the new order.
        ({A: OTHER_ONE, B: [3], C: ONE}, {A: ONE, B: [3], C: ONE}),
        ({C: ONE, B: TWO, A: OTHER_ONE}, {C: ONE, B: TWO, A: ONE}),
        ({A: OTHER_ONE, EQUAL_B: [3]}, {A: ONE, B: [3]}),
        ({A: OTHER_ONE, D: [4]}, {A: ONE, D: [4]}),
    ],
)
def test_a_newer_table_is_made_of_the_older_ones_objects(new: dict, table: dict) -> None:
    kept = shared(BASE, new)
    assert list(kept.items()) == list(table.items())
    assert (kept is BASE) is (table is BASE)
    for key, row in kept.items():
        if key in BASE:
            assert key is next(old for old in BASE if old == key)
            assert row is BASE[key] or row != BASE[key]


def test_an_empty_table_stays_the_same_object() -> None:
    empty: dict[str, list[int]] = {}
    assert shared(empty, {}) is empty
    assert shared(BASE, BASE) is BASE
    assert shared(BASE, empty) is empty and shared(empty, BASE) is BASE
    none = {A: None}
    assert shared({}, none) == none and shared({B: ONE}, none) == none, "a row may be None"


def test_a_table_that_was_edited_knows_what_differs() -> None:
    first = Edited(BASE, {B: ONE})
    second = Edited(first, {A: ONE, C: TWO})
    assert second == {A: ONE, B: ONE, C: TWO} and list(second) == list(BASE)
    assert delta(first, second) == Delta((C,)), "a row that is the same object does not differ"
    assert delta(first, dict(second)) == delta(first, second)
    assert set(delta(BASE, second).keys) == {B, C}, "what it was not made of is walked through"
    assert delta(second, first).keys == (C,)


def test_a_table_that_was_edited_keeps_nothing_of_what_it_was_made_of() -> None:
    first = Edited(BASE, {B: ONE})
    second, gone = Edited(first, {C: TWO}), ref(first)
    del first
    assert gone() is None
    assert set(delta(BASE, second).keys) == {B, C}


LARGE = {f"key {number}": [number] for number in range(20 * SHARE)}
edits = st.dictionaries(st.sampled_from(list(LARGE)), st.builds(lambda number: [number], st.integers(0, 3)), max_size=8)


@given(st.lists(st.tuples(edits, st.booleans()), max_size=12))
def test_a_table_that_was_edited_is_the_one_that_was_copied(history: list[tuple[dict, bool]]) -> None:
    """Whoever reads it whole changes nothing about that."""
    table, copy = LARGE, LARGE
    made: list = [(table, copy)]
    for rows, is_read in history:
        table, copy = Edited(table, rows), copy | rows
        made.append((table, copy))
        if is_read:
            assert list(table.items()) == list(copy.items()) and table == copy and copy == table
    for table, copy in made:
        assert (
            len(table) == len(copy) and list(table) == list(table.keys()) == list(copy) and table.keys() == copy.keys()
        )
        assert all(table[key] is row is table.get(key) and key in table for key, row in copy.items())
        assert "another" not in table and table.get("another") is None
    for one, old in made:
        for other, new in made:
            differs = delta(one, other)
            assert differs.aligned
            assert {key for key in LARGE if old[key] is not new[key]} == set(differs.keys)
    for table, copy in made:
        assert list(table.values()) == list(copy.values()) and repr(table) == repr(copy)


def test_an_edit_copies_little_however_large_the_table_is() -> None:
    table = Edited(LARGE, {})
    for number in range(len(LARGE) // SHARE):
        table = Edited(table, {f"key {number}": [0]})
        assert table.parts[0] is LARGE and len(table.parts[1]) == number + 1
    assert not Edited(table, {"key 100": [0]}).parts[1], "then it is put together"


def test_what_is_no_table_is_no_equal_of_one() -> None:
    table = Edited(BASE, {})
    assert table != [A, B, C] and table == table and table != Edited(BASE, {A: TWO})
    assert in_one_piece(BASE) is BASE and in_one_piece(table) is BASE
    with pytest.raises(TypeError):
        hash(table)
