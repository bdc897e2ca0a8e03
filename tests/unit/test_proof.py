"""In which parts two decisions differ."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from anycastlb.core.decision.proof import Made, differences, prove
from anycastlb.core.model import Decision, ForwardPath, State
from tests.support.two_vips import FIRST, INPUTS, REST, at_rest

PATHS = {ForwardPath(FIRST.address, "dr", 0, 4): 7, ForwardPath(FIRST.address, "dr", 0, 6): None}
SOUND = replace(at_rest().decision, probe_paths=PATHS)


def reverse(rows: Any) -> dict[Any, Any]:
    return dict(reversed(rows.items()))


def desired(**tables: Any) -> dict[str, State]:
    return {"desired": replace(SOUND.desired, **tables)}


def memory(**parts: Any) -> dict[str, Any]:
    return {"memory": replace(SOUND.memory, **parts)}


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({}, ()),
        (desired(), ()),
        (memory(), ()),
        ({"wake_at": 5.0}, ("wake_at",)),
        ({"faults": {"web": "oops"}, "wake_at": 5.0}, ("faults", "wake_at")),
        (desired(routes={}, addresses={}), ("desired.addresses", "desired.routes")),
        (memory(gates={}), ("memory.gates",)),
        (memory(up_since={}) | desired(routes={}), ("desired.routes", "memory.up_since")),
        ({"verdicts": {}}, ("the order of verdicts", "verdicts")),
        # What is listed has an order.
        ({"verdicts": reverse(SOUND.verdicts)}, ("the order of verdicts",)),
        ({"backends": reverse(SOUND.backends)}, ("the order of backends",)),
        ({"probe_paths": reverse(PATHS)}, ("the order of probe_paths",)),
        # So have the destinations of one service, but services have none among each other.
        (desired(destinations=reverse(SOUND.desired.destinations)), ("the order of desired.destinations",)),
        (desired(addresses=reverse(SOUND.desired.addresses)), ()),
        (memory(gates=reverse(SOUND.memory.gates)), ()),
    ],
)
def test_where_two_decisions_differ(changes: dict[str, Any], parts: tuple[str, ...]) -> None:
    other = replace(SOUND, **changes)
    assert differences(SOUND, other) == differences(other, SOUND) == parts


def test_the_same_destinations_in_another_order_of_services_are_the_same() -> None:
    rows = SOUND.desired.destinations
    one, other = ({key: row for key, row in rows.items() if (key.service.address == vip) is mine} for vip, mine in (
        (next(iter(rows)).service.address, True), (next(iter(rows)).service.address, False)))  # fmt: skip
    assert one and other and differences(SOUND, replace(SOUND, **desired(destinations={**other, **one}))) == ()


def test_a_decision_is_proven_by_making_it_from_scratch() -> None:
    last = at_rest().decision
    made = Made(INPUTS, last.memory, REST + 10.0, last)
    assert prove(made).differences == () and prove(made).decision is not last
    assert prove(replace(made, decision=Decision())).differences != ()
