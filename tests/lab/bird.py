"""BIRD 2, run as one process with its own configuration and control socket, and asked through ``birdc``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tests.lab.examples import Peer
from tests.lab.namespaces import LabError, Namespace
from tests.lab.process import Process
from tests.rig import programs


class Bird:
    protocol = "bird"

    def __init__(self, namespace: Namespace, directory: Path, peers: Sequence[Peer] = (), name: str = "bird") -> None:
        self._namespace = namespace
        self._socket, self._config = directory / f"{name}.ctl", directory / f"{name}.conf"
        bird, self._birdc = programs.find("bird"), programs.find("birdc")
        if not bird or not self._birdc:
            raise LabError("no bird: run make setup")
        argv = [str(bird), "-f", "-c", str(self._config), "-s", str(self._socket), "-P", str(directory / f"{name}.pid")]
        self._process = Process(name, namespace, argv, directory / f"{name}.log")
        self.processes = (self._process,)

    def start(self, config: str) -> None:
        self._config.write_text(config.replace("log syslog all;", "log stderr all;"))
        self._socket.unlink(missing_ok=True)
        self._process.start()
        self._process.until(self._socket.exists, 30, "BIRD has its control socket")

    def kill(self) -> None:
        self._process.kill()

    def ask(self, *words: str) -> str:
        assert self._birdc
        return self._namespace.run(str(self._birdc), "-s", str(self._socket), *words)

    def sessions(self) -> set[str]:
        found = re.findall(r"^(\w+)\s+BGP\s+\S+\s+\S+\s+\S+\s+Established", self.ask("show", "protocols"), re.M)
        return set(found)

    def watched(self) -> set[str]:
        found = re.findall(r"^(\S+)\s+\S+\s+Up\b", self.ask("show", "bfd", "sessions"), re.M)
        return set(found)

    def updates(self, node: str) -> tuple[int, int]:
        """Routes, counted anew with each session."""
        updates = withdrawals = 0
        for version in (4, 6):
            text = self.ask("show", "protocols", "all", f"{node}v{version}")
            if not (found := re.search(r"Import updates:\s+(\d+)", text)):
                raise LabError(f"BIRD has no counters for {node}:\n{text}")
            updates += int(found[1])
            if found := re.search(r"Import withdraws:\s+(\d+)", text):
                withdrawals += int(found[1])
        return updates, withdrawals
