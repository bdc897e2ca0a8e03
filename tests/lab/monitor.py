"""A real Prometheus that scrapes the lab's nodes, with the alert rules that anycastlb ships.

It lives in Consul's namespace and reaches each node's API, which listens on loopback there, through a relay of this
process: bytes go from one namespace to the other as they are.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.lab.http import connect, get, open_socket
from tests.lab.lab import Lab
from tests.lab.namespaces import LabError, Namespace
from tests.lab.node import API_PORT
from tests.lab.process import GIVE_UP, Process, until

PORT = 9090
RULES = Path(__file__).resolve().parents[2] / "configs/prometheus/alerts.yml"


class Relay:
    """TCP from a port on loopback in one namespace to a port on loopback in another."""

    def __init__(self, here: Namespace, there: Namespace, port: int) -> None:
        self._there, self._port = there, port
        self._listener = open_socket(here, "127.0.0.1", socket.SOCK_STREAM)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = connect(self._there, "127.0.0.1", self._port, 2)
                except OSError:
                    near.close()
                    continue
                far.settimeout(None)
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=_pump, args=(one, other), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            sink.sendall(piece)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


class Monitor:
    """The running server, and what it answers."""

    def __init__(self, namespace: Namespace, process: Process) -> None:
        self._namespace, self._process = namespace, process

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The result of an instant query: vectors of ``{"metric": {...}, "value": [at, "1"]}``."""
        samples: list[dict[str, Any]] = self._ask(f"/api/v1/query?query={quote(expression)}")["result"]
        return samples

    def value(self, expression: str) -> float | None:
        """Of an expression with one result, or none."""
        samples = self.query(expression)
        return float(samples[0]["value"][1]) if samples else None

    def alerts(self) -> set[tuple[str, str]]:
        """(name, object) of every alert that fires; the object is its VIP, session, document or node."""
        told = self._ask("/api/v1/alerts")["alerts"]
        return {(a["labels"]["alertname"], _object(a["labels"])) for a in told if a["state"] == "firing"}

    def until(self, what: str, true: Any, within: float = GIVE_UP) -> None:
        until(true, f"{what}; alerts: {sorted(self.alerts())}", within)

    def _ask(self, path: str) -> dict[str, Any]:
        status, body = get(self._namespace, "127.0.0.1", PORT, path, timeout=60)
        answer = json.loads(body) if body.startswith("{") else {"status": body}
        if answer["status"] != "success":
            raise LabError(f"Prometheus answers {path} with {status}: {body[:300]}\n{self._process.tail()}")
        data: dict[str, Any] = answer["data"]
        return data

    def ready(self) -> bool:
        with contextlib.suppress(OSError):
            return get(self._namespace, "127.0.0.1", PORT, "/-/ready")[0] == 200
        return False


def _object(labels: Mapping[str, str]) -> str:
    names = ("vip", "service", "backend", "peer", "document", "table", "type", "route", "instance")
    return next((labels[name] for name in names if name in labels), "")


@contextmanager
def monitoring(lab: Lab, program: str, directory: Path) -> Iterator[Monitor]:
    """Prometheus, scraping every two seconds. Its alerts fire at once (no ``for``) and look back 20 s at most."""
    home = lab.topology.consul
    relays = {name: Relay(home, node.namespace, API_PORT) for name, node in lab.nodes.items()}
    rules = re.sub(r"\n +for: .*", "", RULES.read_text())
    (directory / "alerts.yml").write_text(re.sub(r"\[\d+m\]", "[20s]", rules))
    nodes = [{"targets": [f"127.0.0.1:{relay.port}"], "labels": {"instance": name}} for name, relay in relays.items()]
    job = {"job_name": "anycastlb", "static_configs": nodes}
    often = {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "1s"}
    settings = {"global": often, "rule_files": ["alerts.yml"], "scrape_configs": [job]}
    (directory / "prometheus.yml").write_text(json.dumps(settings))  # JSON is YAML
    argv = [
        program,
        f"--config.file={directory}/prometheus.yml",
        f"--storage.tsdb.path={directory}/data",
        f"--web.listen-address=127.0.0.1:{PORT}",
        "--query.lookback-delta=6s",
        "--log.level=warn",
    ]
    process = Process("prometheus", home, argv, directory / "prometheus.log")
    monitor = Monitor(home, process)
    process.start()
    try:
        process.until(monitor.ready, "Prometheus is ready")
        yield monitor
    finally:
        process.end()
        for relay in relays.values():
            relay.close()
