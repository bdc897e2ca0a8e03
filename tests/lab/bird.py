"""BIRD 2, run as one process with its own configuration, and asked at its control socket as ``birdc`` does it."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from pathlib import Path

from tests.lab.examples import Peer
from tests.lab.namespaces import LabError, Namespace
from tests.lab.process import GIVE_UP, Process, answers
from tests.rig import programs


class Bird:
    protocol = 12

    def __init__(self, namespace: Namespace, directory: Path, peers: Sequence[Peer] = (), name: str = "bird") -> None:
        self._socket, self._config = directory / f"{name}.ctl", directory / f"{name}.conf"
        bird = programs.find("bird")
        if not bird:
            raise LabError("no bird: run make setup")
        argv = [str(bird), "-f", "-c", str(self._config), "-s", str(self._socket), "-P", str(directory / f"{name}.pid")]
        self._process = Process(name, namespace, argv, directory / f"{name}.log")
        self.processes = (self._process,)

    def start(self, config: str) -> None:
        self._config.write_text(config.replace("log syslog all;", "log stderr all;"))
        self._socket.unlink(missing_ok=True)
        self._process.start()
        self._process.until(lambda: answers(self._socket), "BIRD can be asked")

    def kill(self) -> None:
        self._process.kill()

    def ask(self, *words: str) -> str:
        """What BIRD answers to a command, without the numbers before its lines."""
        with socket.socket(socket.AF_UNIX) as sock, sock.makefile("r") as lines:
            sock.settimeout(GIVE_UP)
            sock.connect(str(self._socket))
            lines.readline()  # it greets
            sock.sendall(f"{' '.join(words)}\n".encode())
            told = []
            for line in lines:
                numbered = line[:4].isdigit()
                told.append(line[5:] if numbered else line[1:])
                if numbered and line[4] == " ":
                    return "".join(told)
        raise LabError(f"BIRD does not answer {' '.join(words)!r} to the end: {''.join(told)}")

    def sessions(self) -> set[str]:
        matches = re.findall(r"^(\w+)\s+BGP\s+\S+\s+\S+\s+\S+\s+Established", self.ask("show", "protocols"), re.M)
        return set(matches)

    def watched(self) -> set[str]:
        matches = re.findall(r"^(\S+)\s+\S+\s+Up\b", self.ask("show", "bfd", "sessions"), re.M)
        return set(matches)

    def updates(self, node: str) -> tuple[int, int]:
        """Routes, counted anew with each session; none where there is no session."""
        updates = withdrawals = 0
        for version in (4, 6):
            text = self.ask("show", "protocols", "all", f"{node}v{version}")
            if not text:
                raise LabError(f"BIRD does not know {node}")
            if match := re.search(r"Import updates:\s+(\d+)", text):
                updates += int(match[1])
            if match := re.search(r"Import withdraws:\s+(\d+)", text):
                withdrawals += int(match[1])
        return updates, withdrawals
