"""Writes that are judged together are committed together, through any nodes and whatever keeps the catalog.

The first tests are about a store by itself. The others send two requests at one moment to the APIs of two nodes: as
the second one to be committed, a request must find what the first one wrote.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from anycastlb.core.model import Conflict, Edit, Snapshot
from tests.support.serving import Served, go, serving
from tests.support.stores import Open, puts

ROUNDS = 10
MANY = 150
"""More keys than one transaction of Consul holds."""


@pytest.fixture
async def nodes(stores: Open) -> AsyncIterator[tuple[Any, Any]]:
    async with serving(Snapshot(), store=stores()) as one, serving(Snapshot(), store=stores()) as two:
        yield one, two


def service(vip: str, *backends: str, **given: Any) -> dict[str, Any]:
    return {"vip": vip, "port": 80, "backends": {name: {"address": f"10.1.0.{name[1:]}"} for name in backends}, **given}


def documents(count: int, host: int) -> dict[str, Any]:
    return {f"services/n{host}s{n}": service(f"192.0.2.{host}", port=1000 + n) for n in range(count)}


# ---------------------------------------------------------------- the store


@pytest.mark.parametrize("size", [1, MANY])
async def test_of_two_writes_judged_by_one_tree_one_succeeds(stores: Open, size: int) -> None:
    one, two = stores(), stores()
    judged, also = await one.load(), await two.load()
    await one.commit([Edit("services/first", b"1", "")], judged)
    with pytest.raises(Conflict, match="nothing was written"):
        await two.commit(puts(size, "late"), also)
    assert not [key for key in (await one.load()).entries if key.startswith("services/s")]
    await two.commit(puts(size, "late"), await two.load())
    with pytest.raises(Conflict):
        await one.commit([Edit("services/first", None)], judged)


async def test_a_write_that_was_not_judged_depends_on_its_own_keys_only(stores: Open) -> None:
    one, two = stores(), stores()
    judged = await one.load()
    await one.commit([Edit("services/first", b"1", "")], judged)
    await two.commit([Edit("services/second", b"2", "")])
    assert {"services/first", "services/second"} <= (await one.load()).entries.keys()


async def test_nothing_to_write_takes_nobodys_turn(stores: Open) -> None:
    one, two = stores(), stores()
    judged = await one.load()
    await two.commit([], await two.load())
    await one.commit([Edit("services/first", b"1", "")], judged)
    assert "services/first" in (await two.load()).entries


# ---------------------------------------------------------------- two requests at one moment, through two nodes


async def both(nodes: tuple[Served, Served], *requests: tuple[Any, ...], **headers: str) -> list[int]:
    """The status of each answer, in order of size."""
    asked = (go(at, *request, **headers) for at, request in zip(nodes, requests, strict=True))
    return sorted(answer.status for answer in await asyncio.gather(*asked))


async def problems(at: Served) -> list[Any]:
    answer: list[Any] = (await go(at, "POST", "/v1/plan", {"catalog": {"services/other": service("192.0.2.99")}})).view[
        "problems"
    ]
    return answer


async def test_of_two_changes_with_one_tag_one_is_made(nodes: tuple[Served, Served]) -> None:
    """The tag is that of the whole service; the changes write keys of their own."""
    one, two = nodes
    path = "/v1/services/web"
    await go(one, "PUT", path, service("192.0.2.10"))
    await asyncio.gather(*(go(one, "PUT", f"{path}/backends/b{n}", {"address": f"10.1.0.{n}"}) for n in (1, 2)))
    for turn in range(1, ROUNDS + 1):
        tag = (await go(one, "GET", path)).tag
        changes = [{"backends": {name: {"weight": turn}}} for name in ("b1", "b2")]
        assert await both(nodes, *(("PATCH", path, change) for change in changes), If_Match=tag or "") == [200, 412]
        stored = (await go(two, "GET", path)).view["backends"]
        assert sorted(backend.get("weight") == turn for backend in stored.values()) == [False, True]


async def test_of_two_services_on_one_vip_and_port_one_is_made(nodes: tuple[Served, Served]) -> None:
    for turn in range(ROUNDS):
        vip = f"192.0.2.{turn + 1}"
        made = await both(nodes, *(("PUT", f"/v1/services/{name}{turn}", service(vip)) for name in ("a", "b")))
        assert made == [201, 422]
    assert await problems(nodes[0]) == []


async def test_of_two_imports_that_exclude_each_other_one_is_made(nodes: tuple[Served, Served]) -> None:
    for turn, size in enumerate((1, 1, 1, MANY, MANY)):
        vip = turn + 1
        wanted = [
            {"catalog": {key + name: document for key, document in documents(size, vip).items()}} for name in ("a", "b")
        ]
        assert await both(nodes, *(("POST", "/v1/import", catalog) for catalog in wanted)) == [200, 422]
    assert await problems(nodes[1]) == []


async def test_a_backend_is_not_added_to_a_service_that_goes(nodes: tuple[Served, Served]) -> None:
    one, two = nodes
    for _ in range(ROUNDS):
        await go(one, "PUT", "/v1/services/web", service("192.0.2.10"))
        asked = ("DELETE", "/v1/services/web"), ("PUT", "/v1/services/web/backends/b1", {"address": "10.1.0.1"})
        assert await both(nodes, *asked) in ([200, 201], [200, 404], [200, 409])
        assert (await go(two, "GET", "/v1/services/web/backends/b1")).status == 404
        await go(two, "DELETE", "/v1/services/web")


async def test_changes_of_other_services_disturb_nobody(nodes: tuple[Served, Served]) -> None:
    """Four writers, each of a service of its own: all are made, none is refused."""
    asked = [
        go(nodes[n % 2], "PUT", f"/v1/services/s{n}", service(f"192.0.2.{n + 1}", "b1"), If_None_Match="*")
        for n in range(4)
    ]
    assert {answer.status for answer in await asyncio.gather(*asked)} == {201}
    exported = (await go(nodes[0], "GET", "/v1/export")).view
    assert {key for key in exported["catalog"] if key != "defaults"} == {f"services/s{n}" for n in range(4)}
    assert exported["problems"] == []
    assert "locks/write" not in json.dumps(exported)
