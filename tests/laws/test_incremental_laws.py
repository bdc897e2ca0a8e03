"""The law of the incremental brain: after any history it decides what a decision from scratch would decide."""

from __future__ import annotations

from hypothesis import given

from anycastlb.core.decision.decide import decide, decide_again
from anycastlb.core.decision.remembered import FROM_SCRATCH
from anycastlb.core.model import Memory
from tests.support.decisions import differences
from tests.support.histories import histories, moments


@given(histories())
def test_a_decision_is_the_one_from_scratch(history) -> None:
    last, memory = FROM_SCRATCH, Memory()
    for world in moments(*history):
        afresh = decide(world.inputs, memory, world.now)
        last = decide_again(last, world.inputs, memory, world.now)
        assert not differences(last.decision, afresh)
        memory, world.wake_at = last.decision.memory, last.decision.wake_at
        world.wanted = {row_id: row for row_id, (row, _) in memory.rows.items()}


@given(histories(length=15))
def test_what_is_at_rest_is_the_same_object(history) -> None:
    """A decision in which nothing has changed consists of the objects of the one before."""
    last, memory = FROM_SCRATCH, Memory()
    for world in moments(*history):
        last = decide_again(last, world.inputs, memory, world.now)
        memory, world.wake_at = last.decision.memory, last.decision.wake_at
    if not last.usable(world.inputs, memory):
        return
    for turn in range(30):  # until all that waits has come
        before = last
        last = decide_again(last, world.inputs, last.decision.memory, world.now + 200.0 * turn)
    if last.decision.wake_at is None:
        assert last.tables.destinations is before.tables.destinations
        assert last.decision.verdicts is before.decision.verdicts
