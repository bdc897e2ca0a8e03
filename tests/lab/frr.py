"""FRR, run as processes of its own (zebra, bgpd, bfdd; never the packaged service) with their sockets in one directory,
configured and asked through ``vtysh`` as an operator does it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tests.lab.examples import Peer
from tests.lab.namespaces import LabError, Namespace, run
from tests.lab.process import Process, answers
from tests.rig import programs

DAEMONS = ("mgmtd", "zebra", "bgpd", "bfdd")
"""The first came with FRR 9."""
GROUP = "frrvty"
MOUNT = 'mount --bind "$0/group" /etc/group && mount --bind "$0/pam.d" /etc/pam.d && exec "$@"'


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
        self._namespace, self._peers = namespace, tuple(peers)
        self._directory = directory / name
        self._directory.mkdir(mode=0o755)
        self._config = self._directory / "frr.conf"
        self._daemons = [daemon for daemon in daemons if daemon != "mgmtd" or programs.find(daemon)]
        self._vtysh = str(programs.find("vtysh"))
        self.processes = tuple(
            Process(f"{name} {daemon}", namespace, self._argv(daemon), directory / f"{name}-{daemon}.log")
            for daemon in self._daemons
        )

    def _argv(self, daemon: str) -> list[str]:
        if not (program := programs.find(daemon)):
            raise LabError(f"no {daemon}: run make setup")
        place = str(self._directory)
        argv = [str(program), "-u", "root", "-g", GROUP, "-P", "0", "--log", "stdout"]
        argv += ["--vty_socket", place, "-z", f"{place}/zserv.api", "-i", f"{place}/{daemon}.pid"]
        if daemon != "mgmtd":  # which has no file of its own
            argv += ["-f", f"{place}/none.conf"]
        if daemon == "bfdd" and "--bfdctl" in run(str(program), "--help"):  # FRR 10 has no such socket any more
            argv += ["--bfdctl", f"{place}/bfdd.sock"]
        return self._furnished(argv)

    def _furnished(self, argv: list[str]) -> list[str]:
        """Where FRR is only unpacked, its programs see the two files that its package would have made in /etc."""
        if Path(argv[0]).parent != programs.directory():
            return argv
        etc = self._directory / "etc"
        (etc / "pam.d").mkdir(parents=True, exist_ok=True)
        (etc / "group").write_text(f"{Path('/etc/group').read_text()}{GROUP}:x:64999:\n")
        (etc / "pam.d/frr").write_text("auth sufficient pam_rootok.so\naccount sufficient pam_rootok.so\n")
        return ["unshare", "--mount", "sh", "-c", MOUNT, str(etc), *argv]

    def start(self, config: str) -> None:
        self._config.write_text(config)
        (self._directory / "none.conf").touch()
        for socket in self._directory.glob("*.vty"):
            socket.unlink()
        for daemon, process in zip(self._daemons, self.processes, strict=True):
            process.start()
            process.until(partial(answers, self._directory / f"{daemon}.vty"), f"{daemon} can be asked")
        told = self.vtysh("-f", str(self._config))
        if bad := [line for line in told.splitlines() if line.startswith(("%", "line "))]:
            raise LabError(f"FRR refuses {self._config}: {bad}")

    def kill(self) -> None:
        for process in reversed(self.processes):
            process.kill()

    def vtysh(self, *argv: str) -> str:
        return self._namespace.run(*self._furnished([self._vtysh, "--vty_socket", str(self._directory), *argv]))

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
