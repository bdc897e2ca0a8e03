"""Stories of restarts: what keeps a gate closed keeps it closed after kill -9 and a new start."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from anycastlb.core.model import Table
from anycastlb.engine.node import Node
from tests.support.world import VIP, WEB, World, until

EVERYONE = {"10.1.0.1", "10.1.0.2", "10.1.0.3"}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(str(tmp_path), fwmark_ranges=["1-99"])


def web(**announce: Any) -> dict[str, Any]:
    return {**WEB, "announce": announce}


async def never(world: World, seconds: float) -> None:
    """The VIP is not announced for so long."""
    end = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < end:
        assert VIP not in world.announced
        await asyncio.sleep(0.05)


async def damp(world: World, node: Node) -> float:
    """Let it flap until it is damped. When it may open."""
    await until(lambda: VIP in world.announced, within=10)
    for _ in range(3):
        world.dead = set(EVERYONE)
        await asyncio.sleep(8)
        world.dead = set()
        await asyncio.sleep(8)
    verdict, wake = node.snapshot.decision.verdicts[VIP], node.snapshot.decision.wake_at
    assert verdict.reason.code == "damped" and wake is not None
    return wake


@pytest.mark.parametrize("connected", [True, False])
async def test_a_damped_vip_stays_damped(world: World, connected: bool) -> None:
    world.put("services/web", web(damping={"half_life": "60s"}))
    loop = asyncio.get_running_loop()
    async with world.node() as node:
        opens = await damp(world, node)
    await asyncio.sleep(5)
    world.router.connected = connected
    async with world.node() as node:
        await asyncio.sleep(5)
        verdict = node.snapshot.decision.verdicts[VIP]
        assert verdict.reason.code == "damped" and verdict.penalty > 750
        await never(world, opens - loop.time() - 1)
        await until(lambda: VIP in world.announced, within=5)


async def test_a_vip_below_reopen_stays_closed(world: World) -> None:
    world.put("services/web", web(min_backends=1, reopen=3))
    async with world.node():
        await until(lambda: VIP in world.announced, within=10)
        world.dead = set(EVERYONE)
        await until(lambda: VIP not in world.announced, within=10)
        world.dead = {"10.1.0.2", "10.1.0.3"}
        await asyncio.sleep(30)
        assert any(world.weights().values())
    async with world.node() as node:
        await never(world, 60)
        assert "to open again" in node.snapshot.decision.verdicts[VIP].reason.text
        world.dead = set()
        await until(lambda: VIP in world.announced, within=10)


async def test_hold_down_goes_on(world: World) -> None:
    world.put("services/web", web(hold_down="60s"))
    loop = asyncio.get_running_loop()
    async with world.node():
        await until(lambda: VIP in world.announced, within=10)
        world.dead = set(EVERYONE)
        await until(lambda: VIP not in world.announced, within=10)
        closed = loop.time()
        world.dead = set()
        await asyncio.sleep(20)
    async with world.node():
        await never(world, closed + 59 - loop.time())
        await until(lambda: VIP in world.announced, within=3)


async def test_an_open_vip_stays_open(world: World) -> None:
    world.put("services/web", web(hold_down="60s", reopen=3, min_backends=1, damping={}))
    async with world.node():
        await until(lambda: VIP in world.announced and all(world.weights().values()), within=10)
        await asyncio.sleep(5)
    world.forget()
    async with world.node():
        await asyncio.sleep(20)
        assert not world.writes


GONE: dict[str, Callable[[Mapping[Table, dict[Any, Any]]], None]] = {
    "nothing": lambda rows: None,
    "the services": lambda rows: (rows["services"].clear(), rows["destinations"].clear()),
    "all backends": lambda rows: rows["destinations"].clear(),
    "two backends": lambda rows: [rows["destinations"].pop(key) for key in list(rows["destinations"])[:2]],
    "the address": lambda rows: rows["addresses"].clear(),
    "everything": lambda rows: [table.clear() for table in rows.values()],
}
"""What somebody deletes by hand while the daemon is away."""
SERVED: dict[str, dict[str, Any]] = {
    "plain": WEB,
    "all must be up": web(min_backends=3),
    "reopen": web(min_backends=1, reopen=3),
    "hold_up": web(hold_up="30s"),
    "hold_down": web(hold_down="60s", damping={}),
    "slow start": {**WEB, "slow_start": "1m"},
    "checked seldom": {**WEB, "check": {**WEB["check"], "interval": "30s"}},
    "fwmark": {
        **{key: value for key, value in WEB.items() if key != "port"},
        "fwmark": 7,
        "check": {**WEB["check"], "port": 80},
        "announce": {"hold_up": "30s"},
    },
}


TOLD_BY_WEIGHTS = ["nothing", "two backends", "the address"]
"""What may be missing while no bridge is connected: where nothing gets flows, only routes say that a gate was open."""


@pytest.mark.parametrize(
    ("gone", "connected"),
    [*((gone, True) for gone in GONE), *((gone, False) for gone in TOLD_BY_WEIGHTS)],
    ids=lambda value: {True: "bridge", False: "no bridge"}.get(value, value),
)
@pytest.mark.parametrize("document", SERVED.values(), ids=SERVED)
async def test_what_is_deleted_while_the_daemon_is_away_withdraws_nothing(
    world: World, gone: str, document: dict[str, Any], connected: bool
) -> None:
    """The gate was open and every backend is alive: the rows come back, at their weights, under a route that stays."""

    def weights() -> list[int]:
        return [row.weight for row in world.kernel.rows["destinations"].values()]

    world.put("services/web", document)
    async with world.node():
        await until(lambda: VIP in world.announced and weights() == [100, 100, 100], within=120)
        await asyncio.sleep(5)
    GONE[gone](world.kernel.rows)
    world.router.connected = connected
    world.router.omits = lambda table, key: not connected
    world.forget()
    async with world.node() as node:
        await asyncio.sleep(0.1)
        assert VIP in node.snapshot.decision.desired.routes
        assert VIP in world.kernel.rows["addresses"] and sum(weights()) >= 100
        world.router.connected = True
        world.router.omits = lambda table, key: False
        await asyncio.sleep(120)
        assert not world.router.writes
        assert weights() == [100, 100, 100]


async def test_dead_backends_whose_rows_were_deleted_lose_the_route_in_time(world: World) -> None:
    """What is presumed of backends lasts until their first results."""
    world.put("services/web", WEB)
    async with world.node():
        await until(lambda: VIP in world.announced, within=10)
        await asyncio.sleep(5)
    GONE["the services"](world.kernel.rows)
    world.dead = set(EVERYONE)
    async with world.node():
        await until(lambda: VIP not in world.announced, within=2)
        assert set(world.weights().values()) == {0}


async def test_a_down_backend_whose_row_is_left_is_not_presumed_up(world: World) -> None:
    """All rows but that of the backend that is down are deleted: the others come back, it does not."""
    world.put("services/web", {**WEB, "check": {**WEB["check"], "interval": "20s"}})
    async with world.node():
        world.dead = {"10.1.0.1"}
        await until(lambda: VIP in world.announced and sum(world.weights().values()) == 200, within=120)
    rows = world.kernel.rows["destinations"]
    for key in [key for key, row in rows.items() if row.weight]:
        del rows[key]
    async with world.node():
        await asyncio.sleep(0.1)
        assert world.weights() == {"10.1.0.1": 0, "10.1.0.2": 100, "10.1.0.3": 100} and VIP in world.announced


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"version": 2}', b'{"version": 1, "gates": 3}',
                                     b'{"version":1,"at":1e999,"gates":{},"below_threshold":[]}',
                                     b'{"version":1,"at":1,"gates":{"x":{}},"below_threshold":[]}',
                                     b"[" * 100_000])  # fmt: skip
async def test_garbage_is_told_and_changes_nothing(world: World, content: bytes) -> None:
    world.put("services/web", WEB)
    async with world.node():
        await until(lambda: VIP in world.announced and all(world.weights().values()), within=10)
    (Path(world.settings.node.state_dir) / "gates.json").write_bytes(content)
    world.forget()
    async with world.node():
        await asyncio.sleep(20)
        assert not world.writes and VIP in world.announced
    assert len(world.complaints) == 1 and "gates.json cannot be used" in world.complaints[0]


async def test_an_old_record_is_not_believed_of_a_gate(world: World) -> None:
    """The daemon was away for long: it cannot know what has happened, and closes nothing that serves."""
    world.put("services/web", WEB)
    async with world.node():
        await until(lambda: VIP in world.announced, within=10)
        world.dead = set(EVERYONE)
        await until(lambda: VIP not in world.announced, within=10)
        await asyncio.sleep(5)
    record = (Path(world.settings.node.state_dir) / "gates.json").read_bytes()
    world.dead = set()
    async with world.node():
        await until(lambda: VIP in world.announced and all(world.weights().values()), within=20)
        await asyncio.sleep(5)
    (Path(world.settings.node.state_dir) / "gates.json").write_bytes(record)
    await asyncio.sleep(2 * 3600)
    world.router.connected = False
    world.forget()
    async with world.node():
        await asyncio.sleep(20)
        assert not world.router.writes
    assert VIP in world.announced


async def test_what_is_written_is_little(world: World) -> None:
    world.put("services/web", web(damping={}))
    path = Path(world.settings.node.state_dir) / "gates.json"
    async with world.node():
        await until(lambda: VIP in world.announced and all(world.weights().values()), within=10)
        await asyncio.sleep(5)
        seen = set()
        for _ in range(1200):
            seen.add(path.stat().st_mtime_ns)
            await asyncio.sleep(1)
        assert len(seen) <= 4, "nothing changes, so it is written every ten minutes"
        assert b'"gates": {}' in path.read_bytes()
