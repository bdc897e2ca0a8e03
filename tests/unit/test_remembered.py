"""When what the last decision has made may be used by the next one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from anycastlb.core.decision.group_result import NEVER
from anycastlb.core.decision.remembered import FROM_SCRATCH
from anycastlb.core.model import Drain, NodeDrain, Reason
from tests.support.two_vips import INPUTS, ONE, at_rest

REST = at_rest()
DRAINED = {"catalog": replace(INPUTS.catalog, drained=frozenset({"lb1"}), drains={"lb1": Drain()})}
ANOTHER = {"catalog": replace(INPUTS.catalog, drained=frozenset({"lb2"}), drains={"lb2": Drain()})}


@pytest.mark.parametrize(
    ("before", "after", "usable"),
    [
        ({}, {}, True),
        ({}, {"health": {}}, True),
        ({}, {"policy": replace(INPUTS.policy)}, False),
        # A node that leaves decides everything anew, and once more when it is back.
        ({}, {"stopping": True}, False),
        ({"stopping": True}, {}, False),
        ({}, DRAINED, False),
        (DRAINED, {}, False),
        (ANOTHER, ANOTHER, True),
    ],
)
def test_what_it_was_made_from(before: dict[str, Any], after: dict[str, Any], usable: bool) -> None:
    last = replace(REST, inputs=replace(INPUTS, **before))
    assert last.usable(replace(INPUTS, **after), last.decision.memory) is usable


def test_the_memory_is_the_one_that_it_has_left() -> None:
    assert not REST.usable(INPUTS, replace(REST.decision.memory))
    drain = NodeDrain("waiting", "drained", 90.0, None, Reason("waiting", ""))
    decision = replace(REST.decision, memory=replace(REST.decision.memory, node_drain=drain))
    assert not replace(REST, decision=decision).usable(INPUTS, decision.memory)


def test_how_many_groups_are_decided_by_every_decision() -> None:
    assert REST.passing == FROM_SCRATCH.passing == 0
    passing = {**REST.results, ONE: replace(REST.results[ONE], until=NEVER)}
    assert replace(REST, results=passing).passing == 1
