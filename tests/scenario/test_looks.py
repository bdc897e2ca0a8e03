"""Looks at the machine that fail, omit rows or come late: one of them is not news, and costs nobody a route."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from anycastlb.core.model import Change, Table
from tests.support.world import VIP, WEB, World, until


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(str(tmp_path))


def withdrawals(world: World) -> list[Change]:
    return [change for change in world.router.writes if change.new is None]


async def announced(world: World) -> None:
    """Everything is as it should be, and what was written so far is forgotten."""
    await until(lambda: VIP in world.announced and set(world.weights().values()) == {100}, within=10)
    await asyncio.sleep(2)
    world.forget()


def omit(world: World, looks: int, *tables: Table) -> None:
    """The next looks show no row of these tables."""
    last = world.kernel.looks + looks
    world.kernel.omits = lambda table, key: table in tables and world.kernel.looks <= last


async def test_a_look_that_omits_rows_writes_nothing(world: World) -> None:
    world.put("services/web", WEB)
    async with world.node() as node:
        await announced(world)
        for tables in (("services", "destinations"), ("destinations",), ("addresses",)):
            omit(world, 1, *tables)
            node.inbox.wake()
            await asyncio.sleep(10)
        assert not world.writes
        assert not [r for r in node.journal.records() if r.event.kind == "failure"]


async def test_rows_that_two_looks_omit_are_created_again_and_that_they_exist_is_no_refusal(world: World) -> None:
    world.put("services/web", WEB)
    async with world.node() as node:
        await announced(world)
        omit(world, 4, "services", "destinations")
        node.inbox.wake()
        await until(lambda: {f.reason.code for f in node.snapshot.failures} == {"exists"}, within=0.1)
        assert await until(lambda: not node.snapshot.failures, within=2) > 0.5, (
            "the next looks did not show them either"
        )
        await asyncio.sleep(10)
        assert not world.writes and VIP in world.announced
        assert all(verdict.open for verdict in node.snapshot.decision.verdicts.values())


async def test_a_row_that_is_gone_before_it_is_deleted_or_changed_closes_nothing(world: World) -> None:
    """Somebody deletes a service between the look and the write."""
    world.put("services/web", WEB)
    async with world.node():
        await announced(world)
        gone = world.kernel.rows["services"].copy(), world.kernel.rows["destinations"].copy()
        world.kernel.rows["services"].clear()
        world.kernel.rows["destinations"].clear()
        real = world.kernel.observe

        async def outdated() -> Any:
            return {**await real(), "services": gone[0], "destinations": gone[1]}

        world.kernel.observe = outdated  # type: ignore[method-assign]
        world.put("services/web", {**WEB, "scheduler": "rr", "backends": {"web1": {"address": "10.1.0.1"}}})
        await asyncio.sleep(0.5)
        world.kernel.observe = real  # type: ignore[method-assign]
        await until(lambda: world.weights().get("10.1.0.1") == 100, within=2)
        assert not withdrawals(world)


@pytest.mark.parametrize("table", ["addresses", "services", "destinations"])
async def test_what_is_really_gone_is_repaired_at_the_same_look(world: World, table: Table) -> None:
    world.put("services/web", WEB)
    async with world.node() as node:
        await announced(world)
        world.kernel.rows[table].popitem()
        node.inbox.wake()
        assert await until(lambda: world.kernel.writes, within=1) < 0.05
        assert VIP in world.announced and not withdrawals(world)


async def test_a_first_look_that_omits_a_service_is_no_loss_of_it(world: World) -> None:
    """A restart of the daemon while another program edits IPVS."""
    world.put("services/web", WEB)
    async with world.node():
        await announced(world)
    omit(world, 1, "services", "destinations")
    async with world.node():
        await asyncio.sleep(20)
        assert not world.writes
