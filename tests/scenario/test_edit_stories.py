"""Stories of edits: a VIP that is healthy before and after an edit is announced, and served, all the time between."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.support.world import VIP, WEB, World, until

Document = dict[str, Any]
OLD: Document = {**WEB, "forward": "nat", "check": {"interval": "2s", "timeout": "1s"}}
GREEN = {f"green{n}": {"address": f"10.1.0.2{n}"} for n in range(1, 4)}
EDITS: dict[str, Document] = {
    "replaced pool": {"backends": GREEN},
    "most of the pool": {"backends": {**GREEN, "web1": {"address": "10.1.0.1"}}, "announce": {"min_backends": 3}},
    "port": {"port": 8080},
    "backend port": {"backends": {name: {**web, "port": 8081} for name, web in WEB["backends"].items()}},
    "protocol": {"protocol": "udp", "check": {**OLD["check"], "type": "tcp"}},
    "forward and port": {"forward": "tunnel", "port": 8080, "drain": "0s"},
    "replaced pool, nothing drains": {"backends": GREEN, "drain": "0s"},
    "replaced pool, fail open": {"backends": GREEN, "announce": {"fail": "keep"}},
    "more to open again": {"port": 8080, "announce": {"min_backends": 1, "reopen": 3}},
}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(str(tmp_path))


def served(world: World) -> bool:
    return VIP in world.announced and any(row.weight for row in world.kernel.rows["destinations"].values())


async def gaps(world: World, seconds: float) -> float:
    """Seconds without a route, or with a route and no weight behind it."""
    loop, gone = asyncio.get_running_loop(), 0.0
    end = loop.time() + seconds
    while loop.time() < end:
        before = loop.time()
        await asyncio.sleep(0.01)
        gone += 0.0 if served(world) else loop.time() - before
    return gone


async def announced(world: World) -> None:
    await until(lambda: served(world) and all(world.weights().values()), within=70)


@pytest.mark.parametrize("interval", ["2s", "30s"])
@pytest.mark.parametrize("edit", EDITS)
async def test_an_edit_is_no_outage(world: World, edit: str, interval: str) -> None:
    times = {"interval": interval}
    old = {**OLD, "check": {**OLD["check"], **times}}
    new = {**old, **EDITS[edit]}
    new["check"] = {**new["check"], **times}
    world.put("services/web", old)
    async with world.node() as node:
        await announced(world)
        await asyncio.sleep(10)
        world.put("services/web", new)
        assert await gaps(world, 90) == 0
        assert node.snapshot.decision.verdicts[VIP].reason.code == "backends_up"
        wanted = {backend["address"] for backend in new["backends"].values()}
        assert set(world.weights()) == wanted, "in the end the old ones are gone"


async def test_old_backends_keep_their_weights_until_the_new_ones_are_checked(world: World) -> None:
    world.put("services/web", OLD)
    async with world.node() as node:
        await announced(world)
        world.put("services/web", {**OLD, "backends": GREEN})
        await until(lambda: "10.1.0.21" in world.weights(), within=1)
        weights = world.weights()
        assert [weights[f"10.1.0.{n}"] for n in (1, 2, 3, 21, 22, 23)] == [100] * 3 + [0] * 3
        reason = node.snapshot.decision.verdicts[VIP].reason
        assert reason.code == "proving" and "until its new backends are checked" in reason.text
        await until(lambda: all(world.weights()[f"10.1.0.2{n}"] for n in (1, 2, 3)), within=4)
        await until(lambda: not any(world.weights().get(f"10.1.0.{n}") for n in (1, 2, 3)), within=1)


async def test_new_backends_that_are_dead_are_an_outage_when_their_results_are_there(world: World) -> None:
    world.put("services/web", OLD)
    world.dead = {"10.1.0.21", "10.1.0.22", "10.1.0.23"}
    async with world.node():
        await announced(world)
        world.put("services/web", {**OLD, "backends": GREEN})
        took = await until(lambda: VIP not in world.announced, within=4)
        assert took > 0.5
        assert not any(weight for address, weight in world.weights().items())


@pytest.mark.parametrize("mode", ["all", "any"])
async def test_a_new_service_closes_no_vip_before_it_was_checked(world: World, mode: str) -> None:
    more = {**OLD, "port": 443, "announce": {"when": mode}, "backends": GREEN}
    world.put("services/web", OLD)
    async with world.node():
        await announced(world)
        world.put("services/tls", more)
        assert await gaps(world, 20) == 0
        assert all(world.weights().values())


async def test_a_new_service_with_when_all_that_is_dead_closes_the_vip_when_that_is_known(world: World) -> None:
    world.put("services/web", OLD)
    world.dead = {"10.1.0.21", "10.1.0.22", "10.1.0.23"}
    async with world.node():
        await announced(world)
        world.put("services/tls", {**OLD, "port": 443, "announce": {"when": "all"}, "backends": GREEN})
        assert await until(lambda: VIP not in world.announced, within=4) > 0.5


async def test_a_backend_that_is_taken_out_beside_others_gets_no_new_flows_at_once(world: World) -> None:
    """The rule is for edits after which nothing proven is left: a broken backend must be gone once it is removed."""
    world.put("services/web", OLD)
    async with world.node():
        await announced(world)
        fewer = {name: backend for name, backend in WEB["backends"].items() if name != "web2"}
        world.put("services/web", {**OLD, "backends": {**fewer, **GREEN}})
        await until(lambda: world.weights()["10.1.0.2"] == 0, within=0.1)


async def test_a_dead_pool_is_not_kept_by_an_edit(world: World) -> None:
    world.put("services/web", OLD)
    async with world.node():
        await announced(world)
        world.dead = {"10.1.0.1", "10.1.0.2", "10.1.0.3"}
        await until(lambda: VIP not in world.announced, within=10)
        world.put("services/web", {**OLD, "backends": {**WEB["backends"], "web4": {"address": "10.1.0.4"}}})
        await until(lambda: VIP in world.announced, within=8)
        assert world.weights()["10.1.0.4"]


@pytest.mark.parametrize("seed", range(6))
async def test_edits_one_after_the_other(tmp_path: Path, seed: int) -> None:
    """Many edits, faster and slower than the checks, each to a document whose backends are healthy."""
    world, chance = World(str(tmp_path), seed=seed), Random(seed)
    world.put("services/web", OLD)
    async with world.node():
        await announced(world)
        for _ in range(25):
            start = chance.randrange(1, 200)
            document = {
                **OLD,
                "port": chance.choice([80, 8080]),
                "backends": {f"b{n}": {"address": f"10.1.0.{start + n}"} for n in range(chance.choice([1, 2, 3]))},
                "drain": chance.choice(["0s", "1s", "10s"]),
                "check": {"interval": chance.choice(["1s", "2s", "10s"]), "timeout": "1s"},
            }
            world.put("services/web", document)
            assert await gaps(world, chance.choice([0.3, 1.0, 3.0, 15.0])) == 0


UNDONE: dict[str, list[dict[str, Document | None]]] = {
    "port, and back": [{"web": {"port": 443}}, {"web": {}}],
    "pool, and back": [{"web": {"backends": GREEN}}, {"web": {}}],
    "pool, and back with one more": [
        {"web": {"backends": GREEN}},
        {"web": {"backends": {**WEB["backends"], "web4": {"address": "10.1.0.4"}}}},
    ],
    "port, and back, and again": [{"web": {"port": 443}}, {"web": {}}, {"web": {"port": 443}}, {"web": {}}],
    "emptied beside a new service": [{"tls": {"port": 443, "backends": GREEN}}, {"web": {"backends": {}}}],
    "deleted beside a new service": [{"tls": {"port": 443, "backends": GREEN}}, {"web": None}],
    "emptied, and refilled": [{"tls": {"port": 443, "backends": GREEN}}, {"web": {"backends": {}}}, {"web": {}}],
    "renamed, and back": [{"tls": {}, "web": None}, {"web": {}, "tls": None}],
}


@pytest.mark.parametrize("drain", ["0s", "10s"])
@pytest.mark.parametrize("pause", [0.1, 1.0])
@pytest.mark.parametrize("steps", UNDONE.values(), ids=UNDONE)
async def test_edits_that_are_taken_back_at_once_are_no_outage(
    world: World, steps: list[dict[str, Document | None]], pause: float, drain: str
) -> None:
    """What still gets flows serves on, also when it is wanted again before its successors were ever checked."""
    world.put("services/web", {**OLD, "drain": drain})
    async with world.node():
        await announced(world)
        await asyncio.sleep(10)
        for documents in steps:
            for name, document in documents.items():
                if document is None:
                    world.source.delete(f"services/{name}")
                else:
                    world.put(f"services/{name}", {**OLD, "drain": drain, **document})
            assert await gaps(world, pause) == 0
        assert await gaps(world, 30) == 0


async def test_a_drained_backend_is_not_kept_by_a_new_service_beside_it(world: World) -> None:
    """An order to drain is obeyed, whatever waits for first results."""
    only = {"web1": {"address": "10.1.0.1"}}
    world.put("services/web", {**OLD, "backends": only})
    async with world.node():
        await announced(world)
        world.put("services/tls", {**OLD, "port": 443, "backends": GREEN})
        await asyncio.sleep(0.1)
        world.put("services/web", {**OLD, "backends": {"web1": {"address": "10.1.0.1", "drain": True}}})
        await until(lambda: world.weights()["10.1.0.1"] == 0, within=0.1)
