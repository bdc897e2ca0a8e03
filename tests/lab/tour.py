"""The guided tour of ``vagrant/README.md``, performed by the lab.

A command on a machine runs in that machine's namespace, as it stands. What has no counterpart in a namespace (systemd's
services, a machine's power) is done to the lab in the way that comes nearest, and everything else is refused: a command
that the lab cannot perform may not stand in the tour unnoticed.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from tests.lab.lab import Lab
from tests.lab.namespaces import LabError, Namespace
from tests.lab.process import until
from tests.rig.tour import Step, lacks

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = "/usr/src/anycastlb"
"""Where Vagrant puts the tree."""
ON_A_MACHINE = re.compile(r"vagrant ssh (\w+) -c '(.*)'")


class Guide:
    """Performs the tour in a lab, with ``directory`` for the programs that a machine would have on its PATH."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self._lab = lab
        self._directory = directory
        self._machines = {namespace.name: namespace for namespace in lab.topology.all}

    def perform(self, step: Step) -> None:
        """Raises ``LabError`` if it cannot be performed, fails, or does not come to say what is shown."""
        if not (match := ON_A_MACHINE.fullmatch(step.command)):
            self._do(step, self._on_the_host(step.command))
            return
        name, command = match.groups()
        if name not in self._machines:
            raise LabError(f"the tour goes to a machine {name}; the lab has {', '.join(self._machines)}")
        if action := self._service(name, command):
            self._do(step, action)
            return
        self._until_it_says(step, self._machines[name], command.replace(INSTALLED, str(ROOT)))

    def types(self, machine: str, command: str) -> str:
        """What a command says on a machine. Raises ``LabError`` if it fails."""
        place = self._machines[machine]
        return place.run("bash", "-o", "pipefail", "-c", command, env=self._environment(place))

    def _do(self, step: Step, action: Callable[[], object]) -> None:
        if step.shown:
            raise LabError(f"the tour shows what `{step.command}` says; the lab does not know")
        action()

    def _until_it_says(self, step: Step, machine: Namespace, command: str) -> None:
        said = ""

        def complete() -> bool:
            nonlocal said
            said = machine.run("bash", "-c", command, check=False, env=self._environment(machine))
            return not lacks(step.shown, said)

        try:
            until(complete, step.command, every=0.2)
        except LabError:
            raise LabError(f"{step.command}\nhas no line: {lacks(step.shown, said)}\nin:\n{said}") from None

    def _on_the_host(self, command: str) -> Callable[[], object]:
        lab = self._lab
        if match := re.fullmatch(r"vagrant rsync (lb\d) && vagrant provision \1", command):
            node = lab.nodes[match[1]]
            return node.hand_over
        if match := re.fullmatch(r"vagrant halt --force (lb\d)", command):
            return lab.nodes[match[1]].die
        if match := re.fullmatch(r"vagrant up (lb\d)", command):
            return lab.nodes[match[1]].revive
        raise LabError(f"the lab has nothing like: {command}")

    def _service(self, name: str, command: str) -> Callable[[], object] | None:
        if "systemctl" not in command:
            return None
        actions = {"kill -s SIGKILL backend": "kill", "start backend": "start"}
        action = actions.get(command.removeprefix("sudo systemctl "))
        if action is None or name not in self._lab.backends:
            raise LabError(f"the lab has nothing like: {command}, on {name}")
        performed: Callable[[], object] = getattr(self._lab.backends[name], action)
        return performed

    def _environment(self, machine: Namespace) -> dict[str, str]:
        place = self._directory / machine.name
        if not place.exists():
            place.mkdir()
            programs = {"sudo": 'exec "$@"', "consul": f'exec {shlex.quote(self._lab.consul.program)} "$@"'}
            if node := self._lab.nodes.get(machine.name):
                settings = shlex.quote(str(node.settings))
                programs["anycastlb"] = f'cd {ROOT} && exec {sys.executable} -m anycastlb "$@" --config {settings}'
            if machine is self._lab.router.namespace:
                programs["birdc"] = f'exec {shutil.which("birdc")} -s {self._lab.directory}/bird.ctl "$@"'
            for name, script in programs.items():
                (place / name).write_text(f"#!/bin/sh\n{script}\n")
                (place / name).chmod(0o755)
        return {"PATH": f"{place}:{os.environ['PATH']}", "COLUMNS": "120"}
