"""FRR, run as processes of its own (zebra, bgpd, bfdd; never the packaged service) with their sockets in one directory,
configured and asked through ``vtysh`` as an operator does it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.lab.examples import Peer
from tests.lab.namespaces import LabError, Namespace
from tests.lab.process import Process

PLACES = "/usr/lib/frr:/usr/libexec/frr:/usr/local/sbin"
DAEMONS = ("zebra", "bgpd", "bfdd")


class Frr:
    protocol = 186

    def __init__(
        self,
        namespace: Namespace,
        directory: Path,
        peers: Sequence[Peer] = (),
        name: str = "frr",
        daemons: Sequence[str] = DAEMONS,
    ) -> None:
        self._namespace, self._peers, self._daemons = namespace, tuple(peers), daemons
        self._directory = directory / name
        self._directory.mkdir(mode=0o755)
        self._config = self._directory / "frr.conf"
        self._vtysh = shutil.which("vtysh") or "vtysh"
        self.processes = tuple(
            Process(f"{name} {daemon}", namespace, self._argv(daemon), directory / f"{name}-{daemon}.log")
            for daemon in daemons
        )

    def _argv(self, daemon: str) -> list[str]:
        if not (program := shutil.which(daemon, path=PLACES)):
            raise LabError(f"no {daemon}: install the package frr")
        place = str(self._directory)
        argv = [program, "-u", "root", "-g", "frrvty", "-P", "0", "--log", "stdout"]
        argv += ["--vty_socket", place, "-z", f"{place}/zserv.api", "-i", f"{place}/{daemon}.pid"]
        argv += ["-f", f"{place}/none.conf"]
        return argv + (["--bfdctl", f"{place}/bfdd.sock"] if daemon == "bfdd" else [])

    def start(self, config: str) -> None:
        self._config.write_text(config)
        (self._directory / "none.conf").touch()
        for socket in self._directory.glob("*.vty"):
            socket.unlink()
        for daemon, process in zip(self._daemons, self.processes, strict=True):
            process.start()
            process.until((self._directory / f"{daemon}.vty").exists, f"{daemon} can be asked")
        told = self.vtysh("-f", str(self._config))
        if bad := [line for line in told.splitlines() if line.startswith(("%", "line "))]:
            raise LabError(f"FRR refuses {self._config}: {bad}")

    def kill(self) -> None:
        for process in reversed(self.processes):
            process.kill()

    def vtysh(self, *argv: str) -> str:
        return self._namespace.run(self._vtysh, "--vty_socket", str(self._directory), *argv)

    def show(self, what: str) -> Any:
        return json.loads(self.vtysh("-c", f"show {what} json"))

    def sessions(self) -> set[str]:
        summary = self.show("bgp summary")
        up = {
            address
            for family in ("ipv4Unicast", "ipv6Unicast")
            for address, peer in summary.get(family, {}).get("peers", {}).items()
            if peer["state"] == "Established"
        }
        return {f"{peer.name}v{version}" for peer in self._peers for version in (4, 6) if peer.address(version) in up}

    def watched(self) -> set[str]:
        return {peer["peer"] for peer in self.show("bfd peers") if peer["status"] == "up"}

    def updates(self, node: str) -> tuple[int, int]:
        """UPDATE messages since the start, over all sessions so far, whatever is in them, but without the End-of-RIB
        that opens each session: (messages, 0)."""
        peer = next(peer for peer in self._peers if peer.name == node)
        told = [found for version in (4, 6) for found in self.show(f"bgp neighbors {peer.address(version)}").values()]
        return sum(one["messageStats"]["updatesRecv"] - one["connectionsEstablished"] for one in told), 0
