"""Every command of the migration pages runs, as it stands, against the API of a node.

Only what the page takes from the machine is put in its place: the two files in /etc, the node's address, and `ipvsadm`,
which prints a table that was saved before.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from tests.support import scene
from tests.support.serving import serving
from tests.unit.test_docs import MIGRATION, blocks

SAVED = """\
-A -t 192.0.2.10:80 -s mh -b mh-fallback,mh-port
-a -t 192.0.2.10:80 -r 10.1.0.1:80 -i -w 5
-a -t 192.0.2.10:80 -r 10.1.0.2:80 -i -w 5
-A -f 10001 -s rr
-a -f 10001 -r 10.1.0.1:0 -i -w 1
"""
NODE = '[node]\nname = "lb1"\nvip_ranges = ["192.0.2.0/24"]\nfwmark_ranges = [100]\n'


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def lines(text: str) -> list[str]:
    """The commands of a block: a line whose quotes are still open goes on with the next."""
    found: list[str] = []
    for line in text.replace("\\\n", " ").splitlines():
        if found and found[-1].count("'") % 2:
            found[-1] += "\n" + line
        elif line.strip():
            found.append(line)
    return found


@pytest.mark.parametrize("name", MIGRATION)
async def test_the_commands_run_as_they_stand(name: str, tmp_path: Path) -> None:
    page = blocks(name)
    programs, etc = tmp_path / "bin", tmp_path / "etc"
    programs.mkdir()
    etc.mkdir()
    program(programs, "anycastlb", f'exec "{sys.executable}" -m anycastlb "$@"')
    program(programs, "ipvsadm", f"cat '{tmp_path}/saved'")
    (tmp_path / "saved").write_text(SAVED)
    (etc / "node.toml").write_text(NODE)
    (etc / "keepalived.conf").write_text(dict(page).get("keepalived", ""))
    for kind, text in page:
        async with serving(scene.calm()) as served:  # each block is a way of its own, into an empty catalog
            environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "ANYCASTLB_API": served.url}
            for line in [] if kind else lines(text):
                here = re.sub(r"/etc/(keepalived|anycastlb)/", f"{etc}/", line)
                here = here.replace("127.0.0.1:4672", f"127.0.0.1:{served.port}")
                code, told = await shell(here, tmp_path, environment)
                left_out = "note: " in told and " convert " in line
                assert code == (2 if left_out else 0), f"{line}\n{told}"


async def shell(line: str, folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        "bash", "-o", "pipefail", "-c", line,
        cwd=folder, env=environment, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    told, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, told.decode()
