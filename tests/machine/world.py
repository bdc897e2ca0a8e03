"""What a cluster's first nodes find: the lab's router and backends, and a Consul that denies what no policy allows."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.lab.consul import PORT, ConsulServer
from tests.lab.lab import Lab
from tests.lab.namespaces import LabError
from tests.lab.topology import CONSUL
from tests.machine.node import ROOT_TOKEN, Node
from tests.rig import bareroot
from tests.rig.document import boxes

UNTIL = "until it succeeds"
RELEASES = {f"lb{number}": release for number, release in enumerate(bareroot.releases(), 1)}
"""The nodes, and the Debian of each."""


def guard(consul: ConsulServer, directory: Path) -> None:
    """Turn on ACLs. The server's own agent speaks with the token that may everything, if it is given none."""
    path = directory / "consul.json"
    tokens = {"master": ROOT_TOKEN, "default": ROOT_TOKEN, "agent": ROOT_TOKEN}
    acl = {"enabled": True, "default_policy": "deny", "tokens": tokens}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"acl": acl, "primary_datacenter": "dc1"}))


class World:
    """The nodes are bare machines; everything else is the lab's."""

    def __init__(self, lab: Lab, trees: Mapping[str, Path]) -> None:
        self.lab = lab
        self.nodes = {name: Node(name, suite, lab, trees[suite]) for name, suite in RELEASES.items()}

    def start(self) -> None:
        for node in self.nodes.values():
            node.start()

    def end(self) -> None:
        for node in self.nodes.values():
            node.end()

    def install(self, node: Node, first: bool) -> None:
        """The document's commands from the package to a node that serves, each where it belongs. What is not for each
        node is done for the first one only. The one thing changed in a command: the policies' path, as the machine with
        the ``consul`` program is not the node."""
        for box in boxes():
            where, _, when = box.where.partition(", ")
            if where == "node" and when in ("", UNTIL):
                node.perform(box.script, repeat=when == UNTIL)
            elif where == "consul" and when == "for each node":
                answer = self.consul(box.script.replace("lb1", node.name))
                node.secret = re.findall(r"^SecretID: +(\S+)$", answer, re.MULTILINE)[0]
            elif box.where == "consul" and first:
                self.consul(box.script.replace("/usr/share", f"{node.machine.root}/usr/share"))

    def add_gateways(self, node: Node) -> None:
        """The document's commands for a node that is to serve gateways too."""
        for box in boxes():
            where, _, when = box.where.partition(", with gateways")
            if ", with gateways" in box.where and where == "node":
                node.perform(box.script, repeat=when.strip() == UNTIL)
            elif ", with gateways" in box.where:
                self.consul(box.script)

    def uninstall(self, node: Node) -> None:
        for box in boxes():
            if box.where == "node, at the end":
                node.perform(box.script)

    def consul(self, script: str) -> str:
        """Run a script on the machine of Consul, with the token that may everything."""
        programs = f"{Path(self.lab.consul.program).parent}:{os.environ['PATH']}"
        known = {"CONSUL_HTTP_ADDR": f"http://{CONSUL}:{PORT}", "CONSUL_HTTP_TOKEN": ROOT_TOKEN, "PATH": programs}
        argv = self.lab.consul.namespace.argv("bash", "-e", "-c", script)
        done = subprocess.run(argv, cwd=self.lab.directory, env=known, capture_output=True, text=True, timeout=600)
        if done.returncode:
            raise LabError(f"{script}\n{done.stdout}{done.stderr}")
        return done.stdout
