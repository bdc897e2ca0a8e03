"""A backend of the lab: its server program, and what to do to it."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

from tests.lab.http import get
from tests.lab.namespaces import Namespace
from tests.lab.process import Process
from tests.lab.server import CONTROL
from tests.lab.topology import VIPS_OF_EACH_FAMILY, own, vip

ROOT = Path(__file__).resolve().parents[2]


class Backend:
    def __init__(self, name: str, namespace: Namespace, directory: Path) -> None:
        self.name = name
        self.namespace = namespace
        addresses = [own(name, version) for version in (4, 6)]
        addresses += [str(vip(number, version)) for version in (4, 6) for number in range(VIPS_OF_EACH_FAMILY)]
        self.process = Process(
            name,
            namespace,
            [sys.executable, "-m", "tests.lab.server", name, *addresses],
            directory / f"{name}.log",
            env={"PYTHONPATH": str(ROOT)},
        )

    def start(self) -> None:
        self.process.start()

    def ready(self) -> None:
        """Wait until it answers."""
        self.process.until(self._answers, f"{self.name} answers")

    def _answers(self) -> bool:
        try:
            self.counts()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """The program dies: connections to it are refused."""
        self.process.kill()

    def freeze(self) -> None:
        """The program hangs: connections to it are accepted by its kernel and never answered."""
        self.process.freeze()

    def thaw(self) -> None:
        self.process.thaw()

    def fail(self) -> None:
        """It goes on serving, but tells the health check that it should not."""
        self._control("/fail")

    def break_down(self) -> None:
        """It answers every request with 500, and the health check as if nothing were wrong."""
        self._control("/break")

    def heal(self) -> None:
        self._control("/heal")

    def restore(self) -> None:
        """Running and healthy, whatever was done to it."""
        self.thaw()
        if not self.process.running:
            self.start()
        self.ready()
        self.heal()

    def counts(self) -> Counter[str]:
        """What it has served since its start: ``requests``, ``connections``, ``datagrams`` and ``checks``."""
        return Counter(json.loads(self._control("/counts")))

    def _control(self, path: str) -> str:
        return get(self.namespace, "127.0.0.1", CONTROL, path)[1]
