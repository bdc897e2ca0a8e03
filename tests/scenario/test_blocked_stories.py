"""Stories of routes that cannot be withdrawn: what they lead to stays, until they are gone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from anycastlb.core.model import Change
from tests.support.world import VIP, WEB, World, until

MARKED = {
    "vip": "192.0.2.10",
    "fwmark": 7,
    "check": {"type": "none"},
    "drain": "1s",
    "backends": {"a": {"address": "10.1.0.1"}},
}
KEEP = {**WEB, "vip": "192.0.2.20", "backends": {"keep": {"address": "10.1.0.9"}}}


def refuse_withdrawals(change: Change) -> str | None:
    return "ExaBGP does not answer" if change.new is None else None


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_fwmark_service_stays_under_its_route(tmp_path: Path, restarted: bool) -> None:
    world = World(str(tmp_path), fwmark_ranges=["1-99"])
    world.put("services/web", MARKED)
    world.put("services/keep", KEEP)

    def rows() -> list[str]:
        kernel = world.kernel.rows
        return [str(key) for table in ("services", "destinations") for key in kernel[table] if "fwmark 7" in str(key)]

    async with world.node():
        await until(lambda: len(world.announced) == 2, within=10)
        if not restarted:
            world.router.refuse = refuse_withdrawals
            world.source.delete("services/web")
            await asyncio.sleep(30)
            assert VIP in world.announced and len(rows()) == 2
            world.router.refuse = lambda change: None
            await until(lambda: VIP not in world.announced and not rows(), within=10)
            return
    world.router.refuse = refuse_withdrawals
    world.source.delete("services/web")
    async with world.node():
        await asyncio.sleep(60)
        assert VIP in world.announced and len(rows()) == 2
        world.router.refuse = lambda change: None
        await until(lambda: VIP not in world.announced and not rows(), within=40)


async def test_backends_that_an_edit_takes_out_serve_on_under_a_route_that_is_still_up(tmp_path: Path) -> None:
    """The service stays, without any backend, so its VIP closes; but ExaBGP does not withdraw the route yet."""
    world = World(str(tmp_path))
    world.put("services/web", WEB)
    async with world.node():
        await until(lambda: VIP in world.announced and set(world.weights().values()) == {100}, within=10)
        world.router.refuse = refuse_withdrawals
        world.put("services/web", {**WEB, "backends": {}})
        await asyncio.sleep(30)
        assert VIP in world.announced and set(world.weights().values()) == {100}
        world.router.refuse = lambda change: None
        await until(lambda: VIP not in world.announced and not any(world.weights().values()), within=10)
