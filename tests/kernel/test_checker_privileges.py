"""The checker process of a daemon that is not root, as the shipped unit runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import asyncio, sys
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from anycastlb.adapters.checks import types
from anycastlb.core.model import Check
from anycastlb.daemon import keep_privileges
from anycastlb.settings import ChecksSettings
from tests.support.checker import Scene

def held(status):
    return status.split("CapEff:")[1].split()[0]

async def main():
    keep_privileges()
    kinds = types(ChecksSettings(commands=("/bin/*", "/usr/bin/*")))
    params = kinds["command"].params.model_validate({"command": ["/usr/bin/grep", "CapEff", "/proc/self/status"]})
    check = Check("command", ip_address("127.0.0.1"), 1, params, 0.5, 60.0, 1, 1)
    scene = Scene(commands=("/bin/*", "/usr/bin/*"))
    scene.checker.want([check])
    running = asyncio.ensure_future(scene.checker.run())
    async with asyncio.timeout(600):
        await scene.until(check, True)
    status = Path(f"/proc/{await scene.process()}/status").read_text()
    print(held(Path("/proc/self/status").read_text()), held(status), scene.states[-1][check].last.detail)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

asyncio.run(main())
"""


def test_it_can_mark_packets_and_its_programs_can_nothing() -> None:
    capabilities = "+net_admin,+kill"
    # As a user of its own would be: no capability comes from being root. (Python may lie where only root reads.)
    argv = ["setpriv", "--securebits=+noroot,+noroot_locked"]
    argv += [f"--inh-caps={capabilities}", f"--ambient-caps={capabilities}", "--", sys.executable, "-c", PROGRAM]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=Path.cwd())
    assert ended.stdout.split() == [
        "0000000000001020",  # NET_ADMIN and KILL
        "0000000000001000",  # NET_ADMIN
        *("exit", "code", "0:", r"'CapEff:\t0000000000000000'"),
    ], ended.stderr
