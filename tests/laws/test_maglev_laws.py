"""The model of the ``mh`` table: what a change may move, for any pool."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from hypothesis import given, settings
from hypothesis import strategies as st

from anycastlb.core.decision import maglev
from anycastlb.core.model import Destination, DestinationKey, ServiceKey, State, VirtualService

KEY = ServiceKey("tcp", ip_address("192.0.2.10"), 80)
MH = VirtualService("mh", frozenset({"mh-port", "mh-fallback"}))
Rows = dict[DestinationKey, Destination]


def pool(weights: list[int]) -> Rows:
    return {
        DestinationKey(KEY, ip_address(f"10.0.0.{number + 1}"), 80): Destination("dr", weight, weight)
        for number, weight in enumerate(weights)
    }


pools = st.lists(st.integers(1, 10), min_size=1, max_size=12).map(pool)


@given(pools)
@settings(max_examples=40, deadline=None)
def test_every_slot_is_somebodys_and_everybody_has_some(rows: Rows) -> None:
    table = maglev.build(MH, rows)
    assert len(table.slots) == maglev.SIZE
    assert set(table.slots) == set(rows)


@given(pools, st.data())
@settings(max_examples=20, deadline=None)
def test_who_dies_moves_only_its_own_flows(rows: Rows, data: st.DataObject) -> None:
    victim = data.draw(st.sampled_from(list(rows)))
    before = maglev.build(MH, rows)
    after = maglev.build(MH, rows | {victim: replace(rows[victim], weight=0)})
    assert before.slots == after.slots
    for value in range(0, 2**32, 2**23):
        was = before.at(value)
        assert was == victim or after.at(value) == was
        assert after.at(value) != victim


@given(pools)
@settings(max_examples=20, deadline=None)
def test_nothing_changed_moves_nothing(rows: Rows) -> None:
    state = State(services={KEY: MH}, destinations=rows)
    assert maglev.moves(state, state) == {}
    assert maglev.moved(maglev.build(MH, rows), maglev.build(MH, rows), flows=200) == 0


def test_an_added_backend_takes_about_its_share() -> None:
    before, after = (State(services={KEY: MH}, destinations=pool([10] * size)) for size in (10, 11))
    assert 0.07 < maglev.moves(before, after)[KEY] < 1.3 / 11


def test_who_gets_what() -> None:
    even = maglev.shares(maglev.build(MH, pool([10, 10, 20])))
    assert max(abs(share - fair) for share, fair in zip(sorted(even.values()), (0.25, 0.25, 0.5), strict=True)) < 0.02
    assert maglev.shares(maglev.build(MH, {})) == {}


def test_without_fallback_a_dead_ones_flows_are_refused() -> None:
    rows = pool([10, 10])
    victim = next(iter(rows))
    table = maglev.build(VirtualService("mh"), rows | {victim: replace(rows[victim], weight=0)})
    assert {table.at(value) for value in range(0, 2**32, 2**25)} == {None, *rows} - {victim}
