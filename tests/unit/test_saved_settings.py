"""What settings were before: kept over crashes and handovers, given up with the boot, the namespace and a bad file."""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path

import pytest

from anycastlb.adapters.drivers.memory import MemoryDriver
from anycastlb.adapters.drivers.saved_settings import NAME, Restorable, SavedSettings, machine
from anycastlb.core.decision import plan
from anycastlb.core.model import Change, State, SyncDaemon

HERE = "boot 1"
SYNC = SyncDaemon("lan", 3, ip_address("ff02::81"), 8848, 2)
OTHER = SyncDaemon("old", 1, ip_address("224.0.0.81"), 8848)
BEFORE = {"tcp_timeout": 900, "sync_backup": OTHER}
WANTED = {"tcp_timeout": 300, "sync_master": SYNC, "sync_backup": SYNC}


class Machine:
    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.driver = MemoryDriver(("config",))
        self.driver.rows["config"] = dict(BEFORE)
        self.complaints: list[str] = []
        self.restart()

    def restart(self, here: str = HERE) -> None:
        self.originals = SavedSettings(self.state_dir, lambda what, mend: self.complaints.append(what), here)
        self.restorable = Restorable(self.driver, self.originals)

    async def settle(self, **config: int | SyncDaemon | None) -> int:
        """One cycle; how much failed."""
        actual = State(**{str(table): rows for table, rows in (await self.restorable.observe()).items()})
        return len(await self.restorable.apply(plan.diff(actual, State(config=config))))

    @property
    def known(self) -> object:
        return dict(self.originals.rows.get("config", {}))


@pytest.fixture
def at(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "state")


ORIGINAL = {"tcp_timeout": 900, "sync_master": None, "sync_backup": OTHER}


async def test_a_restart_remembers_and_giving_back_forgets(at: Machine) -> None:
    for _ in range(3):
        assert await at.settle(**WANTED) == 0
        assert at.known == ORIGINAL and at.driver.rows["config"] == WANTED
        at.restart()
        assert at.known == ORIGINAL
    await at.settle(**ORIGINAL)
    assert at.driver.rows["config"] == BEFORE and at.known == {}
    at.restart()
    assert at.known == {}


async def test_it_is_written_down_before_the_change(at: Machine) -> None:
    def crash(change: Change) -> str | None:
        raise SystemExit

    at.driver.refuse = crash
    with pytest.raises(SystemExit):
        await at.settle(**WANTED)
    at.restart()
    assert at.known == ORIGINAL


async def test_what_was_refused_is_struck_out_at_the_next_look(at: Machine) -> None:
    at.driver.refuse = lambda change: "no" if change.key == "tcp_timeout" else None
    assert await at.settle(**WANTED) == 1
    assert at.known == ORIGINAL
    await at.settle(**WANTED)
    assert at.known == ORIGINAL  # it is refused again and again
    await at.restorable.observe()
    assert at.known == {"sync_master": None, "sync_backup": OTHER}


async def test_drift_does_not_become_the_original(at: Machine) -> None:
    await at.settle(**WANTED)
    at.driver.rows["config"]["tcp_timeout"] = 5
    del at.driver.rows["config"]["sync_backup"]
    await at.settle(**WANTED)
    assert at.known == ORIGINAL


async def test_only_what_is_given_back_is_struck_out(at: Machine) -> None:
    await at.settle(**WANTED)
    await at.settle(tcp_timeout=900)
    assert at.known == {"sync_master": None, "sync_backup": OTHER}


async def test_another_boot_is_another_machine(at: Machine) -> None:
    await at.settle(**WANTED)
    at.restart("boot 2")
    assert at.known == {} and at.complaints == []
    at.driver.rows["config"] = {"tcp_timeout": 800}
    await at.settle(tcp_timeout=300)
    at.restart("boot 2")
    assert at.known == {"tcp_timeout": 800}


NO_ROW = '{"version": 1, "machine": "boot 1", "rows": {"config": {"sync_master": {"a": 1}}}}'


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"version": 1}', '{"version": 1, "machine": "boot 1", "rows": 3}', NO_ROW]
)
async def test_a_record_that_cannot_be_read_is_told_and_begun_anew(at: Machine, text: str) -> None:
    await at.settle(**WANTED)
    (at.state_dir / NAME).write_text(text)
    at.restart()
    assert at.known == {}
    assert len(at.complaints) == 1 and NAME in at.complaints[0]
    await at.settle(tcp_timeout=200)
    at.restart()
    assert at.known == {"tcp_timeout": 300}


async def test_a_sysctl_that_does_not_exist_has_no_original(tmp_path: Path) -> None:
    originals = SavedSettings(tmp_path, here=HERE)
    originals.remember([Change("sysctls", "net/x", None, "1"), Change("sysctls", "net/y", "0", "1")])
    assert originals.rows == {"sysctls": {"net/y": "0"}}
    originals.drop()
    assert json.loads((tmp_path / NAME).read_text())["rows"] == {}


def test_this_machine_is_always_the_same() -> None:
    assert machine() and machine() == machine()
