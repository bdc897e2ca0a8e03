"""The HAProxy of a node of the lab, and what makes the node serve gateways with it."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anycastlb.adapters.drivers.haproxy import answers
from tests.lab.lab import Lab
from tests.lab.node import Node
from tests.lab.process import GIVE_UP, Process, members, until
from tests.lab.topology import own

HTTP_TOML = """
[http]
program = "{program}"
directory = "{folder}/run"
certificate_dir = "{folder}/certificates"
socket = "{folder}/admin.sock"
master_socket = "{folder}/master.sock"
threads = 1
{sharing}
[api]
"""
SHARING = 'address = "{address}"\ningress = "uplink"\n'
"""The other nodes send it connections of gateways through the LAN; clients' packets come in from the router."""


class NodeHaproxy:
    """It runs in the namespace of its node, as its unit would run it."""

    def __init__(self, node: Node, folder: Path, program: str) -> None:
        self.node, self._folder, self._program = node, folder, program
        self.certificates = folder / "certificates"
        self.certificates.mkdir(parents=True)
        self.admin = folder / "admin.sock"
        self.config = folder / "run" / "haproxy.cfg"
        self.process = self._of(program)

    def _of(self, program: str) -> Process:
        argv = [program, "-W", "-f", str(self.config), "-S", str(self._folder / "master.sock")]
        return Process(f"{self.node.name} haproxy", self.node.namespace, argv, self._folder / "haproxy.log")

    def replace(self, program: str) -> None:
        """Another program is what starts in its place, as after an upgrade."""
        self.process = self._of(program)

    @contextmanager
    def driven(self, sharing: bool = False) -> Iterator[None]:
        """In this block the node serves gateways, and HAProxy runs once it has something to start with."""
        more = SHARING.format(address=own(self.node.name)) if sharing else ""
        text = HTTP_TOML.format(program=self._program, folder=self._folder, sharing=more)
        try:
            with self.node.changed(("[api]\n", text.lstrip("\n"))):
                yield
        finally:
            self.end()

    def start(self) -> None:
        """As systemd does: with the configuration that the daemon has written."""
        self.node.until(self.config.exists, "the daemon has written HAProxy's configuration")
        self.process.start()

    def kill(self) -> None:
        """The master and its workers, at once."""
        group = self.process.pid
        os.killpg(group, signal.SIGKILL)
        self.process.kill()
        until(lambda: not members(group), "no process of HAProxy is left")

    def end(self) -> None:
        if self.process.running:
            self.kill()

    def worker(self) -> int:
        """The pid of the worker: a reload starts another."""
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(GIVE_UP)
            link.connect(str(self.admin))
            link.sendall(b"show info\n")
            text = b""
            while piece := link.recv(65536):
                text += piece
        return answers.info(text.decode()).pid


@contextmanager
def serving_gateways(lab: Lab, program: str) -> Iterator[NodeHaproxy]:
    """In this block ``lb1`` serves gateways by that HAProxy, and no other node does. None is left behind it."""
    with tempfile.TemporaryDirectory(prefix="alb.") as folder:
        haproxy = NodeHaproxy(lab.lb1, Path(folder), program)
        with haproxy.driven():
            yield haproxy
            lab.empty()
