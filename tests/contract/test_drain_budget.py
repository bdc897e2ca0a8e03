"""The budget of drained nodes holds, whoever drains at the same time and whatever keeps the catalog."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from anycastlb.adapters.sources import Store
from anycastlb.core.model import DrainRules, Inputs, Policy, Snapshot
from tests.support.serving import go, serving
from tests.support.stores import Open

ROUNDS = 20


def node(name: str, most: int) -> Snapshot:
    return Snapshot(Inputs(Policy(node=name, drain_rules=DrainRules(max_drained=most))))


async def drained(store: Store) -> set[str]:
    return {key.removeprefix("drain/") for key in (await store.load()).entries if key.startswith("drain/")}


@pytest.mark.parametrize("most", [1, 2])
async def test_of_drains_at_once_as_many_go_through_as_may(stores: Open, most: int) -> None:
    names = ("lb1", "lb2", "lb3")
    async with (
        serving(node("lb1", most), store=stores()) as one,
        serving(node("lb2", most), store=stores()) as two,
        serving(node("lb3", most), store=stores()) as three,
    ):
        for _ in range(ROUNDS):
            asked = zip((one, two, three), names, strict=True)
            answers = await asyncio.gather(*(go(at, "POST", f"/v1/nodes/{name}/drain") for at, name in asked))
            assert sorted(answer.status for answer in answers) == [200] * most + [409] * (3 - most)
            won = {name for name, answer in zip(names, answers, strict=True) if answer.status == 200}
            assert await drained(one.store) == won
            for answer in answers:
                if answer.status == 409:
                    assert all(name in answer.error["what"] for name in won), answer.error
                    assert f"at most {most} may be at once" in answer.error["what"]
            for name in won:
                assert (await go(two, "POST", f"/v1/nodes/{name}/undrain")).view["changed"] is True


async def test_who_is_drained_already_may_be_told_so_again(stores: Open) -> None:
    async with serving(node("lb1", 1), store=stores()) as served:
        first = await go(served, "POST", "/v1/nodes/lb1/drain", {"reason": "new kernel"})
        assert first.status == 200
        again = await go(served, "POST", "/v1/nodes/lb1/drain", {"deadline": "5m"})
        assert again.view["document"] == {**first.view["document"], "deadline": "5m"}
        assert (await go(served, "POST", "/v1/nodes/lb1/drain")).view["changed"] is False
        assert (await go(served, "POST", "/v1/nodes/lb2/drain")).status == 409
        forced = await go(served, "POST", "/v1/nodes/lb2/drain", {"force": True})
        assert forced.status == 200 and forced.view["document"]["force"] is True
        assert await drained(served.store) == {"lb1", "lb2"}


async def test_no_limit(stores: Open) -> None:
    async with serving(node("lb1", 0), store=stores()) as served:
        for name in ("lb1", "lb2", "lb3"):
            assert (await go(served, "POST", f"/v1/nodes/{name}/drain")).status == 200


@pytest.mark.parametrize("body", [{"deadline": "soon"}, {"deadline": True}, {"force": "yes"}, {"reason": 5}, {"x": 1}])
async def test_what_is_no_drain_is_refused_in_words(body: dict[str, Any]) -> None:
    async with serving(node("lb1", 1)) as served:
        refused = await go(served, "POST", "/v1/nodes/lb1/drain", body)
        assert refused.status == 400 and refused.error["expected"], json.dumps(refused.view)
