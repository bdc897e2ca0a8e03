"""A real HAProxy on the loopback: master and worker, with both sockets, in a directory of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path

from anycastlb.adapters.drivers.haproxy.installation import MAPS, Installation
from anycastlb.core.model import Balancing, Gateway, HttpConfig, Retry, Section
from tests.support.waiting import PATIENCE

COMMON = Retry()
RELEASES = ("haproxy-12", "haproxy-13")
LOOPBACK = ip_address("127.0.0.1")
THREADS = min(2, len(os.sched_getaffinity(0)))
"""HAProxy 3.0 warns of more than there are processors."""


def installation(folder: Path, program: str) -> Installation:
    """Files and sockets below ``folder``, which has to have a short path: that of a socket has at most 107 bytes."""
    certificates = folder / "certificates"
    certificates.mkdir(parents=True, exist_ok=True)
    return Installation(
        folder / "run", certificates, folder / "s", folder / "m", Path(program), threads=THREADS, hard_stop_after=120.0
    )


def gateway(port: int, name: str = "web") -> Gateway:
    return Gateway(name, (LOOPBACK,), port)


def section(name: str, algorithm: str = "roundrobin", retry: Retry = COMMON, cookie: str = "") -> Section:
    return Section(name, name, Balancing(algorithm, cookie), retry)


def config(
    gateways: Iterable[Gateway], sections: Iterable[Section], subjects: Iterable[str] = ("p",), **more: tuple[str, ...]
) -> HttpConfig:
    names = {"request_headers": (), "response_headers": ()} | more
    return HttpConfig(tuple(gateways), tuple(sections), tuple(sorted(subjects)), **names)


def write_empty_maps(files: Installation) -> None:
    files.directory.mkdir(parents=True, exist_ok=True)
    for name in ("site", *MAPS):
        files.map(name).touch()


def refusal(files: Installation, path: Path) -> str:
    """What HAProxy has against a configuration; empty if it takes it without a word."""
    done = subprocess.run([files.program, "-c", "-f", path], capture_output=True, text=True, check=False)
    return done.stderr or (f"status {done.returncode}" if done.returncode else "")


class Haproxy:
    """The processes of one HAProxy."""

    def __init__(self, files: Installation) -> None:
        self.files = files
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        return (self.files.directory / "log").read_text()

    def start(self) -> None:
        """As systemd would, with the file that is there."""
        with (self.files.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self.files.program, "-W", "-f", self.files.config, "-S", self.files.master],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def started(self) -> None:
        """Wait for the master, which answers after the worker serves."""
        async with asyncio.timeout(PATIENCE):
            while not await _answers(self.files.master):
                await asyncio.sleep(0.02)

    def signal(self, number: int) -> None:
        """To the master and all of its workers."""
        assert self._process
        os.killpg(self._process.pid, number)

    def stop(self) -> None:
        if self._process is not None:
            self.kill()

    def kill(self) -> None:
        """All at once, as a fault would."""
        assert self._process
        with contextlib.suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)
        self._process.wait()
        self._process = None


async def _answers(master: Path) -> bool:
    with contextlib.suppress(OSError):
        reader, writer = await asyncio.open_unix_connection(str(master))
        writer.write(b"show proc\n")
        writer.write_eof()
        said = await reader.read()
        writer.close()
        return b" worker " in said
    return False
