"""A node on a bare machine: its Consul agent, and what its units, processes and API say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.lab.lab import Lab
from tests.lab.namespaces import LabError
from tests.lab.process import Process, until
from tests.lab.speaker import exabgp_conf
from tests.lab.topology import CONSUL, own
from tests.machine.machine import Machine
from tests.rig import package

ROOT_TOKEN = "5f0c1c9e-2f3a-4b5e-9d3c-000000000001"
READY = """python3 - <<'END'
import urllib.request
print(urllib.request.urlopen("http://127.0.0.1:4672/readyz").status)
END"""


class Node:
    """``machine`` is bare at first. Its Consul agent runs beside it, as the document expects."""

    def __init__(self, name: str, suite: str, lab: Lab, tree: Path) -> None:
        self.name, self.suite = name, suite
        self.machine = Machine(name, lab.topology.nodes[name], tree)
        self.agent = Process(f"agent-{name}", self.machine.namespace, self._agent(lab), lab.directory / f"{name}.log")
        self.secret = ""
        """of its token, once it has one"""

    def _agent(self, lab: Lab) -> list[str]:
        settings: dict[str, Any] = {
            "data_dir": str(lab.directory / f"agent-{self.name}"), "node_name": self.name, "bind_addr": own(self.name),
            "retry_join": [CONSUL], "retry_interval": "1s", "disable_update_check": True, "log_level": "WARN",
            "ports": {"dns": -1, "grpc": -1}, "primary_datacenter": "dc1",
            "acl": {"enabled": True, "default_policy": "deny", "tokens": {"agent": ROOT_TOKEN}},
        }  # fmt: skip
        path = lab.directory / f"agent-{self.name}.json"
        path.write_text(json.dumps(settings))
        return [lab.consul.program, "agent", f"-config-file={path}"]

    def start(self) -> None:
        """The machine and the agent, and the package where the document has it copied to."""
        self.agent.start()
        self.machine.start()
        self.copy(package.find(self.suite))

    def end(self) -> None:
        self.machine.end()
        self.agent.end()

    def copy(self, file: Path) -> None:
        (self.machine.root / "root" / file.name).write_bytes(file.read_bytes())

    # ------------------------------------------------------------ the document's commands

    def perform(self, script: str, repeat: bool = False) -> None:
        """Run commands as root, again and again until they succeed if they are to be repeated. Two files are edited
        afterwards: the neighbors, as the document asks for, and a longer ``hold``."""
        if repeat:
            until(lambda: self._succeeds(script), script, every=0.5)
            return
        self.machine.sh(f"SECRET_ID={self.secret}\n{script}" if "$SECRET_ID" in script else script)
        if "cat > /etc/anycastlb/node.toml" in script:
            self._wait_longer()
        if "exabgp.conf" in script and "install" in script:
            self._name_neighbors()

    def _succeeds(self, script: str) -> bool:
        try:
            self.machine.sh(script)
        except LabError:
            return False
        return True

    def _wait_longer(self) -> None:
        """More time than the default to come back in: several tests may share this processor."""
        path = self.machine.root / "etc/anycastlb/node.toml"
        path.write_text(path.read_text().replace("[bgp]\n", '[bgp]\nhold = "10m"\n'))

    def _name_neighbors(self) -> None:
        """What the document asks the operator to do: the values marked ``<--``."""
        path = self.machine.root / "etc/exabgp/exabgp.conf"
        bridge = ("/usr/bin/env", "anycastlb-bridge", "--config", "/etc/anycastlb/node.toml")
        path.write_text(exabgp_conf(self.name, bridge))

    # ------------------------------------------------------------ what runs

    def daemon(self, unit: str = "anycastlb.service") -> int:
        """The main process of a unit, as numbered on the node; 0 if there is none."""
        return int(self.machine.show(unit, "MainPID")["MainPID"])

    def status(self, pid: int) -> dict[str, str]:
        """``/proc/PID/status``"""
        lines = self.machine.sh(f"cat /proc/{pid}/status").splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def checker(self) -> int:
        """The daemon's only child, its checker; 0 while there is none."""
        pid = self.daemon()
        return int(self.machine.sh(f"cat /proc/{pid}/task/{pid}/children", check=False).strip() or 0)

    def bridge(self) -> int:
        """The bridge's process; 0 while there is none."""
        script = """
            for pid in $(cat /sys/fs/cgroup/system.slice/anycastlb-exabgp.service/cgroup.procs); do
                if tr '\\0' ' ' 2>/dev/null </proc/$pid/cmdline | grep -q anycastlb-bridge; then echo $pid; fi
            done
        """
        return int(self.machine.sh(script, check=False).strip() or 0)

    def replaced(self, before: int) -> None:
        """Wait until systemd has another, ready, main process of the node."""

        def successor() -> int:
            unit = self.machine.show("anycastlb.service", "MainPID", "ActiveState")
            return int(unit["MainPID"]) if unit["ActiveState"] == "active" and unit["MainPID"] != str(before) else 0

        until(successor, f"a successor of process {before} is ready", every=0.2)

    def serving(self) -> None:
        until(lambda: "200" in self.machine.sh(READY, check=False), f"{self.name} is ready to serve", every=0.2)
