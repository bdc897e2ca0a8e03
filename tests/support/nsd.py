"""A real authoritative name server on loopback: NSD, with a zone that the test writes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import pytest

from tests.lab.process import freeze, members, thaw
from tests.support.ports import free_port

CONFIGURATION = """server:
  {addresses}
  server-count: 1
  username: ""
  database: ""
  zonesdir: "{folder}"
  pidfile: "{folder}/nsd.pid"
  xfrdfile: "{folder}/xfrd"
  zonelistfile: "{folder}/zones"
  xfrdir: "{folder}"
remote-control:
  control-enable: no
zone:
  name: example.org
  zonefile: zone
"""
"""It keeps no database: the default place of one is a directory that only the installed package makes."""


def configuration(folder: Path, port: int, hosts: Sequence[str] = ("127.0.0.1",)) -> str:
    """NSD's configuration: it serves the file ``zone`` of the folder as example.org, and writes nowhere else."""
    addresses = "\n  ".join(f"ip-address: {host}@{port}" for host in hosts)
    return CONFIGURATION.format(folder=folder, addresses=addresses)


class NameServer:
    """A real authoritative server for example.org on loopback."""

    def __init__(self, program: str, folder: Path) -> None:
        self.port = free_port()
        self._program, self._folder = program, folder
        self._process: subprocess.Popen[bytes] | None = None
        self._records: list[str] = []
        self._serial = 0
        (folder / "nsd.conf").write_text(configuration(folder, self.port))

    def start(self) -> None:
        self._write()
        with (self._folder / "log").open("ab") as log:
            argv = [self._program, "-d", "-c", str(self._folder / "nsd.conf")]
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0)
        self._wait()

    def put(self, records: list[str]) -> None:
        """These are the records of the zone, in the form ``web 1 A 10.1.0.1``; returns once they are answered."""
        self._records = records
        self._write()
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)
            self._wait()

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        assert self._process is not None
        for pid in members(self._process.pid):
            freeze(pid)

    def thaw(self) -> None:
        assert self._process is not None
        for pid in members(self._process.pid):
            thaw(pid)

    def _write(self) -> None:
        self._serial += 1
        head = [f"@ 1 SOA ns hostmaster {self._serial} 2 3 4 1", "@ 1 NS ns", "ns 1 A 127.0.0.1"]
        (self._folder / "zone").write_text("\n".join(["$ORIGIN example.org.", *head, *self._records, ""]))

    def _wait(self) -> None:
        """Until the new zone is answered, and not now and then by a process that still has the old one."""
        assert self._process is not None
        end, again, agreed = time.monotonic() + 120, time.monotonic() + 1, 0
        query = dns.message.make_query("example.org", "SOA")
        while agreed < 5:
            time.sleep(0.01)
            try:
                answer = dns.query.udp(query, "127.0.0.1", timeout=2.0, port=self.port)
                agreed = agreed + 1 if answer.answer and answer.answer[0][0].serial == self._serial else 0
            except (OSError, dns.exception.DNSException):
                agreed = 0
            if not agreed and time.monotonic() > again:  # now and then NSD fails to reload
                self._process.send_signal(signal.SIGHUP)
                again += 1
            if self._process.poll() is not None or time.monotonic() > end:
                pytest.fail(f"NSD does not serve the zone: {(self._folder / 'log').read_text()[-2000:]}")
