"""How soon a change of a gateway is in force: ``python -m tests.bench.effects``, in the test kernel.

The daemon, Consul, HAProxy and the kernel are real; the bridge (``tests.bench.bridge``) announces everything at once.
200 hostnames of five rules lead to 200 pools, which have 2,000 servers without checks. Measured are

* *a hostname*: from the write of a route in Consul until HAProxy answers by it;
* *a server*: from the write of a weight in Consul until HAProxy has it;
* *a backend*: the pool of another gateway has one, with a check. From the last check that it failed, by its own clock,
  until the bridge is told to withdraw the VIP;
* *HAProxy*: from its kill until the bridge is told to withdraw the VIPs of both gateways.

For each, the median, the 99th of a hundred (or the worst of fewer), and the CPU time of the daemon. Exits 1 if a
promise does not hold; the promises are those of an idle machine of two processors, whose own speed is printed. The test
kernel counts as spent what the host takes away.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack, closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import Any

import anycastlb
from anycastlb.adapters.drivers.haproxy.installation import Installation
from tests.bench.bridge import serve
from tests.bench.node import NODE, Daemon, ended, fill, put, speed, wait
from tests.rig import consul
from tests.rig import haproxy as rig
from tests.support.consul import Agent
from tests.support.haproxy import RELEASES, Haproxy

HOSTS, EACH, PARTS = 200, 10, 4
VIP, EDGE = "192.0.2.1", "192.0.2.2"
BACKEND = ("127.0.0.2", 8099)
FALL = 3
SETTLED = 0.5
LOOK = 0.005
"""Seconds between two looks at HAProxy, which take time of the same processor."""
PROMISED = {"a hostname": 50.0, "a server": 50.0, "a backend": 50.0, "HAProxy": 100.0}
"""Milliseconds, of a hundred but one."""
HTTP = """
[http]
program = "{program}"
directory = "{folder}/run"
certificate_dir = "{folder}"
socket = "{folder}/admin.sock"
master_socket = "{folder}/master.sock"
"""


def host(number: int) -> str:
    return f"s{number}.example"


def route(number: int, turn: int = 0) -> dict[str, Any]:
    """Its last rule says how often it was written."""
    rules: list[dict[str, Any]] = [
        {"matches": [{"path": {"value": f"/part{part}"}}], "backendRefs": [{"name": f"pool-{number}"}]}
        for part in range(PARTS)
    ]
    path = {"type": "ReplaceFullPath", "replaceFullPath": f"/turn-{turn}"}
    rules.append({"filters": [{"type": "RequestRedirect", "requestRedirect": {"path": path}}]})
    return {"gateways": ["web"], "hostnames": [host(number)], "rules": rules}


def pool(number: int, weight: int = 100) -> dict[str, Any]:
    backends = {f"b{one}": {"address": f"10.{number // 250}.{number % 250}.{one + 1}"} for one in range(EACH)}
    backends["b0"]["weight"] = weight  # type: ignore[assignment]
    return {"port": 80, "check": {"type": "none"}, "backends": backends}


def catalog(hosts: int) -> dict[str, Any]:
    check = {"type": "http", "interval": "200ms", "timeout": "150ms", "rise": 1, "fall": FALL}
    edge = {"port": BACKEND[1], "check": check, "backends": {"b": {"address": BACKEND[0]}}}
    documents: dict[str, Any] = {
        "services/edge": edge,
        "routes/edge": {"gateways": ["edge"], "hostnames": ["*"], "rules": [{"backendRefs": [{"name": "edge"}]}]},
    }
    for name, vip in (("web", VIP), ("edge", EDGE)):
        documents[f"gateways/{name}"] = {"vip": vip, "port": 80, "protocol": "http", "announce": {"fail": "withdraw"}}
    for number in range(hosts):
        documents |= {f"services/pool-{number}": pool(number), f"routes/r{number}": route(number)}
    return documents


class Bridge(threading.Thread):
    """Knows when each VIP was asked for, and when no more."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self._path = str(path)
        self.routes: set[str] = set()
        self.gone: dict[str, float] = {}

    def run(self) -> None:
        while True:
            with suppress(OSError), socket.socket(socket.AF_UNIX) as daemon:
                daemon.connect(self._path)
                serve(daemon, self._changed)
            time.sleep(0.05)

    def _changed(self, routes: Collection[object]) -> None:
        now, asked = time.monotonic(), {str(one).partition("/")[0] for one in routes}
        self.gone |= dict.fromkeys(self.routes - asked, now)
        self.routes = asked


class Backend(ThreadingHTTPServer):
    """Passes its checks until it is told to fail; knows when it has failed them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(BACKEND, Check)
        self.failing, self.failed = False, [0.0]
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Check(BaseHTTPRequestHandler):
    server: Backend

    def do_GET(self) -> None:
        failing = self.server.failing
        self.send_response(503 if failing else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()
        if failing:
            self.server.failed.append(time.monotonic())

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def location(number: int) -> str:
    """Where HAProxy redirects a request to; empty if it does not."""
    with suppress(OSError), closing(socket.create_connection((VIP, 80), timeout=60)) as link:
        link.sendall(f"GET / HTTP/1.1\r\nHost: {host(number)}\r\nConnection: close\r\n\r\n".encode())
        head = link.makefile("rb").read().decode("latin-1")
        return next((line.rpartition("/")[2] for line in head.splitlines() if line.startswith("location:")), "")
    return ""


def weight(files: Installation, number: int) -> str:
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(files.socket))
        link.sendall(f"get weight pool-{number}/b0\n".encode())
        return link.makefile().read().split(" ")[0]


class Effects:
    def __init__(self, daemon: Daemon, bridge: Bridge, backend: Backend, store: str, haproxy: Haproxy) -> None:
        self._daemon, self._bridge, self._backend, self._store = daemon, bridge, backend, store
        self._haproxy, self._files = haproxy, haproxy.files
        self.costs: list[float] = []

    def put(self, key: str, document: Any, done: Callable[[], bool]) -> float:
        """Milliseconds from the write until it is in force."""
        spent, began = self._daemon.cpu(), time.monotonic()
        put(self._store, f"/v1/kv/anycastlb/{key}", json.dumps(document).encode())
        wait(done, 60, LOOK)
        took = (time.monotonic() - began) * 1e3
        time.sleep(SETTLED)
        self.costs.append((self._daemon.cpu() - spent) * 1e3)
        return took

    def hostname(self, number: int, turn: int) -> float:
        return self.put(f"routes/r{number}", route(number, turn), lambda: location(number) == f"turn-{turn}")

    def server(self, number: int, turn: int) -> float:
        before = weight(self._files, number)
        return self.put(
            f"services/pool-{number}", pool(number, 1 + turn), lambda: weight(self._files, number) != before
        )

    def _announced(self) -> float:
        """Wait until both gateways are; the CPU that the daemon has used."""
        wait(lambda: {VIP, EDGE} <= self._bridge.routes, 60)
        time.sleep(SETTLED)
        self._bridge.gone.clear()
        return self._daemon.cpu()

    def haproxy(self, number: int, turn: int) -> float:
        spent, began = self._announced(), time.monotonic()
        self._haproxy.kill()
        wait(lambda: {VIP, EDGE} <= self._bridge.gone.keys(), 60, LOOK)
        took = max(self._bridge.gone.values()) - began
        self.costs.append((self._daemon.cpu() - spent) * 1e3)
        self._haproxy.start()
        return took * 1e3

    def backend(self, number: int, turn: int) -> float:
        """Milliseconds from the answer to the check that decides until the route is withdrawn."""
        spent = self._announced()
        self._backend.failed.clear()
        self._backend.failing = True
        wait(lambda: EDGE in self._bridge.gone, 60, LOOK)
        self._backend.failing = False
        self.costs.append((self._daemon.cpu() - spent) * 1e3)
        return (self._bridge.gone[EDGE] - self._backend.failed[FALL - 1]) * 1e3


def measure(release: str, hosts: int, rounds: int) -> dict[str, tuple[list[float], list[float]]]:
    """Milliseconds that each took, and milliseconds of CPU of the daemon."""
    program, store_program = rig.find(release), consul.find()
    if program is None or store_program is None:
        raise SystemExit("bench: HAProxy or Consul is missing: make setup")
    with tempfile.TemporaryDirectory(prefix="alb.") as name, ExitStack() as stack:
        folder = Path(name)
        store = Agent(str(store_program), folder)
        store.start()
        stack.callback(store.kill)
        fill(store.address, {key: json.dumps(one).encode() for key, one in catalog(hosts).items()})
        files = Installation(folder / "run", folder, folder / "admin.sock", folder / "master.sock", program)
        bridge, backend = Bridge(folder / "bgp.sock"), Backend()
        bridge.start()
        daemon = Daemon(folder, store.address, NODE + HTTP.format(program=program, folder=folder))
        stack.enter_context(ended(daemon.process))
        wait(files.config.exists, 600)
        haproxy = Haproxy(files)
        haproxy.start()
        stack.callback(haproxy.stop)
        asyncio.run(haproxy.started())
        wait(lambda: {VIP, EDGE} <= bridge.routes, 600)
        time.sleep(12)
        effects = Effects(daemon, bridge, backend, store.address, haproxy)
        found = {}
        for what, one, count in (
            ("a hostname", effects.hostname, rounds),
            ("a server", effects.server, rounds),
            ("a backend", effects.backend, max(1, rounds // 4)),
            ("HAProxy", effects.haproxy, max(1, rounds // 4)),
        ):
            effects.costs = []
            found[what] = [one(turn * 7919 % hosts, turn + 1) for turn in range(count)], effects.costs
        return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.effects", description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, default=HOSTS)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--release", choices=RELEASES, default=RELEASES[-1])
    options = parser.parse_args()
    before = speed()
    found = measure(options.release, options.hosts, options.rounds)
    print(f"anycastlb {anycastlb.__version__}, {options.release}: {options.hosts:,} hostnames of {PARTS + 1} rules, "
          f"{options.hosts * EACH:,} servers")  # fmt: skip
    print(f"machine: {before:.0f} million turns of an empty loop in a second before, {speed():.0f} after")
    broken = 0
    for what, (took, costs) in found.items():
        late, promised = sorted(took)[-1 - len(took) // 100], PROMISED[what]
        broken += late > promised
        print(f"  {what:12} median {median(took):7.1f} ms, p99 {late:7.1f} ms of {len(took)}, promised {promised:g}; "
              f"CPU of the daemon {median(costs):6.1f} ms{'' if late <= promised else '  BROKEN'}")  # fmt: skip
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
