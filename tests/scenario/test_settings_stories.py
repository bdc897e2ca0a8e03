"""The kernel's settings through a node's life: set at its start, kept over its deaths, given back last of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from anycastlb.adapters.drivers.memory import MemoryDriver
from anycastlb.adapters.drivers.saved_settings import Restorable, SavedSettings
from anycastlb.core.model import Change, DriverError, Failure, Rows, Table
from anycastlb.settings import IpvsSettings
from tests.support.world import VIP, WEB, World, until

SLOPPY = "net/ipv4/vs/sloppy_tcp"
FOUND: dict[Table, dict[str, Any]] = {
    "sysctls": {SLOPPY: "0"},
    "config": {"tcp_timeout": 900, "tcpfin_timeout": 120, "udp_timeout": 300},
}
NAT = {**WEB, "forward": "nat"}


class Settings(MemoryDriver):
    """The kernel's settings; it notes what else was left of the node when they were written."""

    def __init__(self, world: World) -> None:
        super().__init__(("sysctls", "config"))
        self.rows = {table: dict(rows) for table, rows in FOUND.items()}
        self.world, self.left, self.blind = world, [True], False

    async def observe(self) -> Mapping[Table, Rows]:
        if self.blind:
            raise DriverError("nothing can be seen")
        return await super().observe()

    async def apply(self, changes: Sequence[Change]) -> Sequence[Failure]:
        self.left.append(any(self.world.kernel.rows.values()))
        return await super().apply(changes)


class Tuned(World):
    """A world whose kernel has settings."""

    def __init__(self, state_dir: str) -> None:
        super().__init__(state_dir)
        self.tables = Settings(self)

    def tune(self, **ipvs: Any) -> None:
        """The next node has these settings; it reads what the last one has left in ``state_dir``."""
        settings, originals = IpvsSettings(**ipvs), SavedSettings(self.settings.node.state_dir, here="here")
        self.more_drivers = (Restorable(self.tables, originals),)
        self.originals = lambda: originals.rows
        self.kernel_settings = {
            "sysctls": {SLOPPY: "1"},
            "config": settings.config,
            "cached_config": settings.cached_config,
        }

    @property
    def timeout(self) -> int:
        found: int = self.tables.rows["config"]["tcp_timeout"]
        return found


@pytest.fixture
def world(tmp_path: Path) -> Tuned:
    return Tuned(str(tmp_path))


async def test_a_stop_gives_back_what_was_found_after_everything_else_is_gone(world: Tuned) -> None:
    world.put("services/web", WEB)
    for life in range(3):  # the first two die as by kill -9
        world.tune(sync_interface="lan")
        async with world.node() as node:
            await until(lambda: VIP in world.announced and node.snapshot.cycle, 5)
            assert world.tables.rows["sysctls"] == {SLOPPY: "1"}
            assert {"sync_master", "sync_backup"} < world.tables.rows["config"].keys()
            if life == 2:
                node.stop()
                await until(lambda: node.inbox.inputs.emptied, 20)
                await until(lambda: world.tables.rows == FOUND, 1)
    assert not world.announced and not any(world.kernel.rows.values())
    assert world.tables.left[-1] is False, "given back while something was still served"


async def test_a_handover_gives_nothing_back(world: Tuned) -> None:
    world.put("services/web", WEB)
    world.tune()
    async with world.node():
        await until(lambda: world.timeout == 300, 5)
    assert world.timeout == 300 and world.tables.rows["sysctls"] == {SLOPPY: "1"}


async def test_time_outs_follow_the_catalog(world: Tuned) -> None:
    """Long again before the first flow of nat is made, short once the last one has had its drain time."""
    world.put("services/web", WEB)
    world.tune()
    async with world.node():
        await until(lambda: world.timeout == 300, 5)
        world.put("services/web", NAT)
        await until(lambda: world.timeout == 900, 5)
        world.put("services/web", WEB)
        await until(lambda: world.timeout == 300, 15)


async def test_what_cannot_be_given_back_does_not_keep_a_node_from_stopping(world: Tuned) -> None:
    world.put("services/web", WEB)
    world.tune()
    async with world.node() as node:
        await until(lambda: VIP in world.announced and world.timeout == 300, 5)
        world.tables.refuse = lambda change: "read-only" if change.table == "sysctls" else None
        node.stop()
        await until(lambda: world.timeout == 900, 20)
    assert world.tables.rows["sysctls"] == {SLOPPY: "1"}
    world.tables.refuse = lambda change: None
    world.tune()
    async with world.node() as node:  # the next one still knows
        await until(lambda: VIP in world.announced and node.snapshot.cycle, 5)
        node.stop()
        await until(lambda: world.tables.rows == FOUND, 20)


async def test_a_kernel_that_goes_blind_at_the_end_is_waited_for(world: Tuned) -> None:
    world.put("services/web", WEB)
    world.tune()
    async with world.node() as node:
        await until(lambda: VIP in world.announced and world.timeout == 300, 5)
        node.stop()
        await until(lambda: not any(world.kernel.rows.values()), 20)
        world.tables.blind = True
        await until(lambda: node.inbox.inputs.emptied, 1)
        world.tables.blind = False
        await until(lambda: world.tables.rows == FOUND, 10)


async def test_every_new_catalog_is_shown_to_whoever_inspects_the_machine(world: Tuned) -> None:
    seen: list[list[str]] = []
    world.tune()
    world.on_catalog = lambda catalog: seen.append([service.name for service in catalog.services])
    world.put("services/web", WEB)
    async with world.node():
        await until(lambda: seen, 5)
        world.put("services/ftp", {**NAT, "port": 21})
        await until(lambda: len(seen) == 2, 5)
        await until(lambda: VIP in world.announced, 20)
    assert seen == [["web"], ["ftp", "web"]]
