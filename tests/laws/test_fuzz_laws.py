"""Some cases of the fuzzer, the same each time, and what it has found; ``make fuzz`` runs as many as there is time
for."""

from __future__ import annotations

import pytest

from anycastlb.core.model import Entry
from tests.fuzz import documents, requests
from tests.fuzz.targets import TARGETS

ITEMS = 900
"""Of each target."""
FOUND = {
    "consul": [("instances", b'[0, {"Node": {"Node": "n1", "Address": "10.1.0.1", "CreateIndex": 7}}]', 200)],
    "documents": [
        documents.Mutant(1, "services/s1/backends/10.1.0.9:80", Entry(b'{"port": 0}', 99), known, up=None)
        for known in (False, True)
    ],
}
"""What something was wrong with once."""


@pytest.mark.parametrize("name", TARGETS)
def test_no_mutant_is_more_than_a_target_can_bear(name: str) -> None:
    target, number, judged = TARGETS[name], 0, 0
    while judged < ITEMS:
        items = target.items(0, number)
        target.judge(items)
        number, judged = number + 1, judged + len(items)


@pytest.mark.parametrize(("name", "item"), [(name, item) for name, items in FOUND.items() for item in items])
def test_what_was_found_once_is_borne(name: str, item: object) -> None:
    TARGETS[name].judge([item])


@pytest.mark.parametrize("name", TARGETS)
def test_a_case_is_made_again_from_its_seed_and_number(name: str) -> None:
    assert TARGETS[name].items(1, 7) == TARGETS[name].items(1, 7)


async def test_each_request_gets_an_answer_of_the_apis_own() -> None:
    statuses, finds = await requests.fuzz(seed=0, seconds=600, only=None, limit=48)
    assert not finds
    assert sum(statuses.values()) == 48 and {200, 400} <= statuses.keys()
