"""What a whole node costs, beside what was promised: ``python -m tests.bench.node [--all]``, in the test kernel.

The daemon, Consul and the kernel are real; the bridge (``tests.bench.bridge``) announces everything at once. Each
service has ten backends, whose checks are of type ``none``: what probes cost is another matter. Measured are

* *start*: seconds from the start of the process until every destination is in the kernel, and has its weight;
* *put to kernel*: from the write of one weight in Consul until the kernel has it, the median and the worst of the
  rounds, and what CPU the daemon spends until it is at rest again, without what it spends at rest;
* *idle*: the share of a core when nothing happens;
* *loop blocked*: how long the event loop did nothing else at the longest, in the start, after it, and while it is read;
* */metrics* and */v1/vips*: from the request of the first reader, and of a later one, until the whole answer is there.

Exits 1 if a promise does not hold. The promises are those of an idle machine of two processors: its own speed is
printed beside them, before and after. The test kernel counts as spent what the host takes away.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from statistics import median

import anycastlb
from anycastlb.adapters.drivers.ipvs import codec, reader
from anycastlb.adapters.system.generic_netlink import GenericNetlink
from anycastlb.core.model import ServiceKey
from tests.bench.kv import address
from tests.bench.reported import longest
from tests.rig import consul
from tests.support.consul import Agent

EACH = 10
ROUNDS = 15
REST, IDLE = 12.0, 20.0
"""Seconds that a node is given to come to rest after its start, and that it is watched for then."""
SETTLED = 1.0
"""Seconds in which a change is done with."""
PATIENCE = 900.0
"""Seconds after which a node counts as stuck, however large it is and however busy the machine."""
PROMISES: dict[str, dict[int, float]] = {
    "start, s": {1_000: 3.0},
    "put to kernel, median ms": {},
    "put to kernel, worst ms": {100: 50.0, 1_000: 50.0, 10_000: 250.0},
    "CPU of a change, ms": {100: 20.0, 1_000: 20.0},
    "idle, % of a core": {100: 1.0, 1_000: 1.0},
    "loop blocked, start, ms": {100: 20.0, 1_000: 20.0, 10_000: 20.0},
    "loop blocked, ms": {100: 20.0, 1_000: 20.0, 10_000: 20.0},
    "resident memory, MB": {1_000: 120.0},
    "/metrics, first, ms": {1_000: 200.0},
    "/metrics, again, ms": {1_000: 200.0},
    "/v1/vips, first, ms": {1_000: 200.0},
    "/v1/vips, again, ms": {1_000: 200.0},
    "loop blocked by readers, ms": {100: 20.0, 1_000: 20.0, 10_000: 20.0},
}
GROWTH = 2.0
"""A change at 1,000 services costs at most so many times what it costs at 100."""
NODE = """
[node]
name = "lb1"
vip_ranges = ["192.0.0.0/8"]
state_dir = "{directory}/state"
[consul]
address = "{consul}"
[bgp]
socket = "{directory}/bgp.sock"
[api]
socket = "{directory}/api.sock"
[log]
level = "error"
"""


def document(service: int, weight: int = 100) -> bytes:
    numbers = range(service * EACH, (service + 1) * EACH)
    weights = {number: weight if number == service * EACH else 100 for number in numbers}
    backends = {f"b{number}": {"address": address(number), "weight": weights[number]} for number in numbers}
    body = {"vip": vip(service), "port": 80, "forward": "dr", "check": {"type": "none"}, "backends": backends}
    return json.dumps(body).encode()


def vip(service: int) -> str:
    return f"192.{service // 62500}.{service // 250 % 250}.{service % 250 + 1}"


class Kernel:
    """The kernel's IPVS, read without what the daemon reads it with."""

    def __init__(self) -> None:
        self._netlink = GenericNetlink("IPVS")

    def weight(self, service: int) -> int | None:
        """Of the first backend of a service."""
        name = codec.service_name(ServiceKey("tcp", IPv4Address(vip(service)), 80))
        wanted = IPv4Address(address(service * EACH))
        reals = [reader.destination(*message) for message in self._netlink.dump(codec.GET_DESTINATION, name)]
        return next((real[2].weight for real in reals if real is not None and real[0] == wanted), None)

    @staticmethod
    def destinations() -> int:
        table = Path("/proc/net/ip_vs").read_text().splitlines()
        return sum(line.startswith("  -> ") for line in table) - 1  # the first is a heading


def compiled(directory: Path) -> dict[str, str]:
    """The environment of a daemon whose modules are compiled, as those of an installed one are."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment = {**kept, "PYTHONPYCACHEPREFIX": str(directory / "bytecode")}
    modules = "import anycastlb.daemon, tests.bench.observed"
    subprocess.run([sys.executable, "-c", modules], env=environment, check=True)
    return environment


class Daemon:
    def __init__(self, directory: Path, store: str, settings: str = NODE) -> None:
        (directory / "node.toml").write_text(settings.format(directory=directory, consul=store))
        self._report = directory / "blocked"
        command = [sys.executable, "-m", "tests.bench.observed", str(self._report)]
        log, environment = (directory / "daemon.log").open("wb"), compiled(directory)
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [*command, "run", "--config", str(directory / "node.toml")], stdout=log, stderr=log, env=environment
        )

    def cpu(self) -> float:
        """Seconds of CPU of all its threads."""
        return time.clock_gettime(~self.process.pid << 3 | 2)  # what clock_getcpuclockid(3) makes

    def memory(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))

    def blocked(self) -> float:
        """Milliseconds that its loop was blocked at the longest since the last question."""
        return longest(self.process, self._report)


def wait(until: Callable[[], bool], seconds: float = PATIENCE, pause: float = 0.05) -> None:
    end = time.monotonic() + seconds
    while not until():
        if time.monotonic() > end:
            raise SystemExit("bench: the node has not got so far")
        time.sleep(pause)


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def put(store: str, path: str, body: bytes) -> None:
    request = urllib.request.Request(f"{store}{path}", data=body, method="PUT")
    with urllib.request.urlopen(request, timeout=60) as answer:
        answer.read()


def fill(store: str, documents: Mapping[str, bytes]) -> None:
    """Write the catalog, in transactions of 60 keys."""
    items = list(documents.items())
    for first in range(0, len(items), 60):
        verbs = [
            {"KV": {"Verb": "set", "Key": f"anycastlb/{key}", "Value": b64encode(body).decode()}}
            for key, body in items[first : first + 60]
        ]
        put(store, "/v1/txn", json.dumps(verbs).encode())


@dataclass(frozen=True)
class Running:
    """A node on real parts. ``store``: the address of its Consul."""

    daemon: Daemon
    store: str
    bridge: subprocess.Popen[bytes]
    silences: Path

    def silence(self) -> float:
        """Milliseconds that the daemon said nothing to its bridge at the longest since the last question."""
        return longest(self.bridge, self.silences)


@contextmanager
def running(services: int, value: Callable[[int], bytes]) -> Iterator[Running]:
    """A node of so many services. ``value`` makes the document of each."""
    program = consul.find()
    if program is None:
        raise SystemExit("bench: there is no Consul: make setup")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        store, silences = Agent(str(program), directory), directory / "silence"
        store.start()
        try:
            fill(store.address, {f"services/s{service}": value(service) for service in range(services)})
            command = [sys.executable, "-m", "tests.bench.bridge", str(directory / "bgp.sock"), str(silences)]
            with ended(subprocess.Popen(command)) as bridge:
                daemon = Daemon(directory, store.address)
                with ended(daemon.process):
                    wait(lambda: Kernel.destinations() == services * EACH)
                    wait(lambda: Kernel().weight(services - 1) not in (None, 0))
                    yield Running(daemon, store.address, bridge, silences)
        finally:
            store.kill()
            subprocess.run(["ipvsadm", "-C"], check=True)


def measure(services: int) -> dict[str, float]:
    with running(services, document) as node:
        return figures(node.daemon, node.store, services)


def figures(daemon: Daemon, store: str, services: int) -> dict[str, float]:
    kernel, found = Kernel(), {"start, s": time.monotonic() - daemon.began}
    time.sleep(REST)
    found["loop blocked, start, ms"] = daemon.blocked()
    spent, began = daemon.cpu(), time.monotonic()
    time.sleep(IDLE)
    found["idle, % of a core"] = (daemon.cpu() - spent) / (time.monotonic() - began) * 100
    share = (daemon.cpu() - spent) / (time.monotonic() - began)
    took, costs = [], []
    for turn in range(ROUNDS):
        service, before = turn * 7919 % services, kernel.weight(turn * 7919 % services)
        spent, began = daemon.cpu(), time.monotonic()
        put(store, f"/v1/kv/anycastlb/services/s{service}", document(service, 50))
        wait(lambda service=service, before=before: kernel.weight(service) != before, pause=0.001)  # type: ignore[misc]
        took.append((time.monotonic() - began) * 1e3)
        time.sleep(SETTLED)
        costs.append((daemon.cpu() - spent - share * (time.monotonic() - began)) * 1e3)
    found |= {"put to kernel, median ms": median(took), "put to kernel, worst ms": max(took)}
    found |= {"CPU of a change, ms": median(costs), "loop blocked, ms": daemon.blocked()}
    found["resident memory, MB"] = daemon.memory()
    for path in ("/metrics", "/v1/vips"):
        found |= {f"{path}, {when}, ms": answered(path) for when in ("first", "again")}
    found["loop blocked by readers, ms"] = daemon.blocked()
    return found


def answered(path: str) -> float:
    """Milliseconds until the whole answer is there, some seconds after all that was before it."""
    time.sleep(2 * SETTLED)
    began = time.monotonic()
    with urllib.request.urlopen(f"http://127.0.0.1:4672{path}", timeout=60) as answer:
        while answer.read(2**16):
            continue
    return (time.monotonic() - began) * 1e3


def speed() -> float:
    """Million turns of an empty loop in a second: the machine's own speed, as much as is left of it."""
    began = time.perf_counter()
    for _ in range(2_000_000):
        pass
    return 2 / (time.perf_counter() - began)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.node", description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="10,000 services too, which takes minutes")
    parser.add_argument("--services", type=int, nargs="*", help="these sizes")
    options = parser.parse_args()
    sizes = options.services or [100, 1_000, *([10_000] if options.all else [])]
    print(f"anycastlb {anycastlb.__version__}, Linux {os.uname().release}, Python {sys.version.split()[0]}")
    before, found = speed(), {size: measure(size) for size in sizes}
    print(f"machine: {before:.0f} million turns of an empty loop in a second before, {speed():.0f} after")
    print(f"{'services of ' + str(EACH):28}" + "".join(f"{size:>12,}{'promised':>10}" for size in sizes))
    broken = 0
    for name, promised in PROMISES.items():
        line = f"{name:28}"
        for size in sizes:
            held = found[size][name] <= promised.get(size, float("inf"))
            broken += not held
            line += f"{found[size][name]:12.1f}" + (f"{promised[size]:8.0f}" if size in promised else " " * 8)
            line += "  " if held else " !"
        print(line)
    if {100, 1_000} <= found.keys():
        growth = found[1_000]["CPU of a change, ms"] / found[100]["CPU of a change, ms"]
        broken += growth > GROWTH
        print(f"{'a change, 1,000 to 100':28}{growth:12.1f}{GROWTH:8.0f}{'  ' if growth <= GROWTH else ' !'}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
