"""The law of the incremental brain: after any history it decides, and plans, what it would from scratch."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

from hypothesis import given
from hypothesis import strategies as st

from anycastlb.core.decision import plan
from anycastlb.core.decision.comparison import UNCOMPARED, compare_again
from anycastlb.core.decision.decide import decide, decide_again
from anycastlb.core.decision.remembered import FROM_SCRATCH
from anycastlb.core.model import Memory, State
from tests.support.decisions import differences
from tests.support.histories import histories, moments
from tests.support.states import destinations, states


@given(histories())
def test_a_decision_is_the_one_from_scratch(history) -> None:
    last, memory = FROM_SCRATCH, Memory()
    for world in moments(*history):
        afresh = decide(world.inputs, memory, world.now)
        last = decide_again(last, world.inputs, memory, world.now)
        assert not differences(last.decision, afresh)
        memory, world.wake_at, world.sharing = last.decision.memory, last.decision.wake_at, last.decision.sharing
        world.wanted = {row_id: row for row_id, (row, _) in memory.rows.items()}


@given(histories(length=15))
def test_what_is_at_rest_is_the_same_object(history) -> None:
    """A decision in which nothing has changed consists of the objects of the one before."""
    last, memory = FROM_SCRATCH, Memory()
    for world in moments(*history):
        last = decide_again(last, world.inputs, memory, world.now)
        memory, world.wake_at, world.sharing = last.decision.memory, last.decision.wake_at, last.decision.sharing
    if not last.usable(world.inputs, memory):
        return
    for turn in range(30):  # until all that waits has come
        before = last
        last = decide_again(last, world.inputs, last.decision.memory, world.now + 200.0 * turn)
    if last.decision.wake_at is None:
        assert last.tables.destinations is before.tables.destinations
        assert last.decision.verdicts is before.decision.verdicts


SIDES = st.sampled_from(["actual", "desired"])
TABLES = st.sampled_from(["destinations", "destinations", "destinations", "services", "addresses", "routes"])
EDITS = st.one_of(
    st.tuples(st.just("carry out"), st.integers(0, 100)),
    st.tuples(st.just("delete"), SIDES, TABLES, st.integers(0, 20)),
    st.tuples(st.just("append"), SIDES, TABLES, st.integers(0, 20)),
    st.tuples(st.just("copy"), SIDES, TABLES),
    st.tuples(st.just("reverse"), SIDES, TABLES),
    st.tuples(st.just("weight"), SIDES, st.integers(0, 20), destinations()),
    st.tuples(st.just("replace"), SIDES, states()),
)


def edit(side: dict[str, State], what) -> None:
    """One of the two states changes a little, and shares all else with what it was."""
    kind, *rest = what
    if kind == "carry out":
        changes = plan.diff(side["actual"], side["desired"])
        side["actual"] = reduce(plan.apply, changes[: rest[0] * (len(changes) + 1) // 100], side["actual"])
        return
    which, table, *rest = rest
    if kind == "replace":
        side[which] = table
        return
    if kind == "weight":
        table, rest = "destinations", [table, *rest]
    rows = dict(side[which].rows(table))
    if kind == "reverse":
        rows = dict(reversed(rows.items()))
    elif kind == "copy":
        rows = {
            replace(key) if table != "addresses" and table != "routes" else key: replace(row)
            for key, row in rows.items()
        }
    elif rows:
        key = list(rows)[rest[0] % len(rows)]
        row = rows[key]
        if kind == "weight":
            rows[key] = rest[1]
        else:
            del rows[key]
        if kind == "append":
            rows[key] = row
    side[which] = replace(side[which], **{table: rows})


@given(states(), states(), st.lists(EDITS, max_size=25))
def test_a_comparison_is_the_one_from_scratch(actual: State, desired: State, edits) -> None:
    last, side = UNCOMPARED, {"actual": actual, "desired": desired}
    for what in [("carry out", 0), *edits]:
        edit(side, what)
        last = compare_again(last, side["actual"], side["desired"])
        assert (last.changes, last.failures) == plan.compare(side["actual"], side["desired"])
