"""What a first node finds: the lab's router and backends, and a Consul that denies what no policy allows, with an agent
on the node."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.lab.consul import PORT, ConsulServer
from tests.lab.lab import Lab
from tests.lab.namespaces import LabError
from tests.lab.process import Process, until
from tests.lab.speaker import exabgp_conf
from tests.lab.topology import CONSUL, own
from tests.machine.document import Box
from tests.machine.machine import Machine

ROOT_TOKEN = "5f0c1c9e-2f3a-4b5e-9d3c-000000000001"
NODE = "lb1"


def guard(consul: ConsulServer, directory: Path) -> None:
    """Turn on ACLs. The server's own agent speaks with the token that may everything, if it is given none."""
    path = directory / "consul.json"
    tokens = {"master": ROOT_TOKEN, "default": ROOT_TOKEN, "agent": ROOT_TOKEN}
    acl = {"enabled": True, "default_policy": "deny", "tokens": tokens}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"acl": acl, "primary_datacenter": "dc1"}))


class World:
    """``node`` is a bare machine; everything else is the lab's."""

    def __init__(self, lab: Lab, tree: Path) -> None:
        self.lab = lab
        self.node = Machine(NODE, lab.topology.nodes[NODE], tree)
        self.agent = Process("agent", self.node.namespace, self._agent(), lab.directory / "agent.log")

    def _agent(self) -> list[str]:
        settings: dict[str, Any] = {
            "data_dir": str(self.lab.directory / "agent"), "node_name": NODE, "bind_addr": own(NODE),
            "retry_join": [CONSUL], "retry_interval": "1s", "disable_update_check": True, "log_level": "WARN",
            "ports": {"dns": -1, "grpc": -1}, "primary_datacenter": "dc1",
            "acl": {"enabled": True, "default_policy": "deny", "tokens": {"agent": ROOT_TOKEN}},
        }  # fmt: skip
        path = self.lab.directory / "agent.json"
        path.write_text(json.dumps(settings))
        return [self.lab.consul.program, "agent", f"-config-file={path}"]

    def start(self) -> None:
        self.agent.start()
        self.node.start()

    def end(self) -> None:
        self.node.end()
        self.agent.end()

    # ------------------------------------------------------------ the document's commands

    def perform(self, box: Box) -> str:
        """Run a box where it belongs. The one thing changed in a command: the policies' path, as the machine with the
        ``consul`` program is not the node. Two files are edited afterwards: the neighbors, as the document asks for,
        and a longer ``hold``."""
        where, _, when = box.where.partition(", ")
        if where == "consul":
            return self.consul(box.script.replace("/usr/share", f"{self.node.root}/usr/share"))
        script = box.script
        if "$SECRET_ID" in script:
            script = f"SECRET_ID={self.token()}\n{script}"
        if when == "until it succeeds":
            return until(lambda: self._tried(script), script, every=0.5)
        told = self.node.sh(script)
        if "cat > /etc/anycastlb/node.toml" in script:
            self._patient()
        if "exabgp.conf" in script and "install" in script:
            self._edit()
        return told

    def _tried(self, script: str) -> str:
        try:
            return self.node.sh(script)
        except LabError:
            return ""

    def _patient(self) -> None:
        """More time than the default to come back in: several tests may share this processor."""
        path = self.node.root / "etc/anycastlb/node.toml"
        path.write_text(path.read_text().replace("[bgp]\n", '[bgp]\nhold = "60s"\n'))

    def _edit(self) -> None:
        """What the document asks the operator to do: the values marked ``<--``."""
        path = self.node.root / "etc/exabgp/exabgp.conf"
        bridge = ("/usr/bin/env", "anycastlb-bridge", "--config", "/etc/anycastlb/node.toml")
        path.write_text(exabgp_conf(NODE, bridge))

    def consul(self, script: str) -> str:
        """Run a script on the machine of Consul, with the token that may everything."""
        programs = f"{Path(self.lab.consul.program).parent}:{os.environ['PATH']}"
        known = {"CONSUL_HTTP_ADDR": f"http://{CONSUL}:{PORT}", "CONSUL_HTTP_TOKEN": ROOT_TOKEN, "PATH": programs}
        argv = self.lab.consul.namespace.argv("bash", "-e", "-c", script)
        done = subprocess.run(argv, cwd=self.lab.directory, env=known, capture_output=True, text=True, timeout=600)
        if done.returncode:
            raise LabError(f"{script}\n{done.stdout}{done.stderr}")
        return done.stdout

    def token(self) -> str:
        """``consul acl token create``, as the document says."""
        told = self.consul("consul acl token create -description 'anycastlb on lb1' -policy-name anycastlb-node")
        self.secret = next(line.split()[-1] for line in told.splitlines() if line.startswith("SecretID"))
        return self.secret
