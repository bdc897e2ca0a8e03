"""What the driver of kernel settings reports where it cannot look."""

from __future__ import annotations

import os
from pathlib import Path

from anycastlb.adapters.drivers.sysctls import SysctlDriver
from tests.lab.harm import no_descriptors


async def test_a_process_that_can_open_nothing_more_takes_no_setting_for_missing(tmp_path: Path) -> None:
    (tmp_path / "here").write_text("1\n")
    driver = SysctlDriver(("here", "missing"), tmp_path)
    before = await driver.observe()
    with no_descriptors(os.getpid):
        assert await driver.observe() == before == {"sysctls": {"here": "1"}}
    (tmp_path / "here").unlink()
    assert await driver.observe() == {"sysctls": {}}
