"""Stories of stops that come when something else is amiss: a node that was stopped leaves nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from anycastlb.core.model import DriverError, Rows, Table
from tests.support.world import VIP, WEB, World, until


@pytest.mark.parametrize(
    "heals", [None, 0.0, 5.0], ids=["no catalog", "the catalog comes at once", "the catalog comes"]
)
@pytest.mark.parametrize("graceful", ["0s", "10s"])
@pytest.mark.parametrize("seen", [True, False], ids=["", "kernel unread at first"])
async def test_a_stop_before_the_first_catalog_leaves_nothing(
    tmp_path: Path, heals: float | None, graceful: str, seen: bool
) -> None:
    """Killed, started while the catalog is away and not on disk, and stopped: the routes go at once, the rest later."""
    world = World(str(tmp_path), drain={"graceful": graceful})
    world.put("services/web", WEB)
    async with world.node():
        await until(lambda: VIP in world.announced and all(world.weights().values()), within=10)
    for file in world.saved():
        file.unlink()
    world.source.fail()
    observe = world.kernel.observe

    async def unread() -> Mapping[Table, Rows]:
        raise DriverError("no answer")

    async with world.node() as node:
        await asyncio.sleep(3)
        assert VIP in world.announced and all(world.weights().values())
        if not seen:
            world.kernel.observe = unread  # type: ignore[method-assign]
        node.stop()
        await asyncio.sleep(1)
        if not seen:
            assert VIP not in world.announced
            world.kernel.observe = observe  # type: ignore[method-assign]
        if heals is not None:
            await asyncio.sleep(heals)
            world.source.heal()
        await until(lambda: VIP not in world.announced, within=1)
        assert world.weights() == {"10.1.0.1": 100, "10.1.0.2": 100, "10.1.0.3": 100}, "what still comes is served"
        await until(lambda: not any(world.kernel.rows.values()), within=60)
        assert not world.announced
        await until(lambda: world.source.closed, within=5)
