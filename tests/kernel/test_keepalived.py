"""A corpus of configurations, each loaded by a real keepalived and by us after ``convert``: what the kernel then holds.

Beside ``NAME.conf`` may lie ``NAME.differs``: rows that only keepalived makes (``-``), and that only we make (``+``).
Whatever differs has its note. The files were written for keepalived 2.2.7, the one of Debian 12; with another version,
as the 2.3.3 of Debian 13, only the notes are demanded. All servers are taken to be up. ``ANYCASTLB_GOLDEN=write``
writes the files anew.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_network
from pathlib import Path

import pytest

from anycastlb.adapters.drivers.ipvs.driver import IpvsDriver
from anycastlb.cli import formats
from anycastlb.core.decision import plan
from anycastlb.core.importers import Documents
from anycastlb.core.model import State
from tests.support.converted import desired
from tests.support.netns import fresh, run

CORPUS = sorted((Path(__file__).parent / "keepalived").glob("*.conf"))
GREETING = "Starting Keepalived v"
WRITTEN_FOR = f"{GREETING}2.2.7 "
STARTED = ("Activating BFD healthchecker", "Startup complete")
"""What its processes log once the table is in the kernel."""
PATIENCE = 30.0
"""Seconds that one is given which has other words for it."""
RETRIES = b"retry 100"
"""What every check of the corpus says."""
IN_AN_ETC = 'mount --bind "$1" /etc && shift && exec "$@"'


@pytest.mark.parametrize("conf", CORPUS, ids=lambda path: path.stem)
async def test_the_kernel_holds_what_keepalived_would_have_made_of_it(
    conf: Path, require: Callable[[str], str], tmp_path: Path
) -> None:
    require("kernel")
    program, ipvsadm = require("keepalived"), require("ipvsadm")
    with fresh():
        truth = loaded(program, ipvsadm, conf, tmp_path)
    documents, notes = formats.read(conf.read_text(), "keepalived", formats.beside(str(conf)))
    with fresh():
        await program_all(documents)
        ours = rows(ipvsadm)
    differences = [f"-{row}" for row in truth if row not in ours] + [f"+{row}" for row in ours if row not in truth]
    assert notes or not differences
    if WRITTEN_FOR in (tmp_path / "log").read_text():
        assert differences == expected(conf.with_suffix(".differs"), differences)


def expected(file: Path, found: Sequence[str]) -> list[str]:
    if os.environ.get("ANYCASTLB_GOLDEN") == "write":
        file.unlink(missing_ok=True)
        if found:
            file.write_text("\n".join(found) + "\n")
    return file.read_text().splitlines() if file.exists() else []


def rows(ipvsadm: str) -> list[str]:
    """The table, without what is served by a mark, which has no VIP to be announced."""
    return [row.strip() for row in run(ipvsadm, "-Sn").splitlines() if " -f " not in row]


def loaded(program: str, ipvsadm: str, conf: Path, scratch: Path) -> list[str]:
    """What a real keepalived puts into the kernel. It begins with every server up, and none of its checks comes to an
    end: it gets no answer, and waits for an hour, for at its first check it makes no retry."""
    run("ip", "link", "add", "void", "up", "type", "dummy")
    for family, address in (("-4", "198.51.100.1"), ("-6", "2001:db8:ffff::1")):
        run("ip", family, "address", "add", address, "dev", "void")
        run("ip", family, "route", "add", "default", "dev", "void")
    if RETRIES in (text := conf.read_bytes()):
        conf = scratch / conf.name
        conf.write_bytes(text.replace(RETRIES, b"connect_timeout 3600"))
    with keepalived(program, conf, scratch) as (log, process):
        began = time.monotonic()
        found, same = rows(ipvsadm), 0
        while same < 3:
            time.sleep(0.1)
            before, found = found, rows(ipvsadm)
            told = log.read_text()
            assert process.poll() is None, told
            other_words = GREETING in told and WRITTEN_FOR not in told
            ready = all(word in told for word in STARTED) or (other_words and time.monotonic() - began > PATIENCE)
            same = same + 1 if found == before and ready else 0
    return found


@contextmanager
def keepalived(program: str, conf: Path, scratch: Path) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """Only its checker; it logs to the file. That of Debian 13 does not start without a file in /etc, which its package
    brings, and which is not there where it was only unpacked: so it has an /etc of its own."""
    log, etc = scratch / "log", scratch / "etc"
    (etc / "keepalived").mkdir(parents=True)
    (etc / "keepalived/keepalived.config-opts").touch()
    for name in ("group", "nsswitch.conf", "passwd"):
        shutil.copy(f"/etc/{name}", etc)
    files = ["--pid", str(scratch / "pid"), "--checkers_pid", str(scratch / "checkers")]
    command = [program, "--check", "--dont-fork", "--log-console", "--log-detail", "--use-file", str(conf), *files]
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["unshare", "--mount", "bash", "-c", IN_AN_ETC, "bash", str(etc), *command], stdout=out, stderr=out
        )
    try:
        yield log, process
    finally:
        process.terminate()
        process.wait()


async def program_all(documents: Documents) -> None:
    """Put the services into this namespace's kernel, with every backend up."""
    driver = IpvsDriver([ip_network("0.0.0.0/0"), ip_network("::/0")])
    try:
        changes = [
            c for c in plan.diff(State(), desired(documents, State())) if c.table in ("services", "destinations")
        ]
        assert not await driver.apply(changes)
    finally:
        driver.close()
