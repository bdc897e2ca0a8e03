"""A few hundred cases of the fuzzer, the same each time; ``make fuzz`` runs as many as there is time for."""

from __future__ import annotations

import random

import pytest

from tests.fuzz import requests
from tests.fuzz.mutation import Mutator
from tests.fuzz.targets import TARGETS

FOUND = {"consul": [(4, 2929)], "documents": [(7, 3099)]}
"""Cases that found something once, as (seed, number)."""


@pytest.mark.parametrize("name", TARGETS)
def test_no_mutant_is_more_than_a_target_can_bear(name: str) -> None:
    for seed, number in [*((0, number) for number in range(150)), *FOUND.get(name, [])]:
        TARGETS[name](Mutator(random.Random(f"{seed} {number}")))


async def test_each_request_gets_an_answer_of_the_apis_own() -> None:
    statuses, finds = await requests.fuzz(seed=0, seconds=600, only=None, most=48)
    assert not finds
    assert sum(statuses.values()) == 48 and {200, 400} <= statuses.keys()


def test_a_case_is_made_again_from_its_seed_and_number() -> None:
    assert requests.request(Mutator(random.Random("1 7"))) == requests.request(Mutator(random.Random("1 7")))
