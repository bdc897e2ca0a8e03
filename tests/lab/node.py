"""One node of the cluster: its anycastlb daemon, its ExaBGP with the bridge, its IPVS; and what to do to them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from anycastlb.cli import main
from anycastlb.core.model import Address
from tests.lab import kernel
from tests.lab.consul import ConsulServer
from tests.lab.http import get
from tests.lab.namespaces import LabError, Namespace
from tests.lab.process import GIVE_UP, Process, until
from tests.lab.speaker import environment, exabgp_conf
from tests.lab.topology import VIP_RANGES, Topology

ROOT = Path(__file__).resolve().parents[2]
API_PORT = 4672
_RANGES = tuple(map(ip_network, VIP_RANGES))
NODE_TOML = """
[node]
name = "{name}"
vip_ranges = {ranges}
state_dir = "{directory}/state"
resync = "1s"

[catalog]
source = "consul"
max_shrink = "100%"
confirm = "300ms"

[consul]
address = "{consul}"
wait = "3s"

[bgp]
socket = "{directory}/bgp.sock"
hold = "600s"

[drain]
graceful = "300ms"
settle = "500ms"
deadline = "20s"

[checks]
commands = ["/bin/true"]

[api]
listen = "127.0.0.1:{port}"
socket = "{directory}/api.sock"
"""


@dataclass(frozen=True, slots=True)
class Told:
    """What a command said and how it ended."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str


IDLE = {"exabgp_reactor_speed": "3.0"}
"""An ExaBGP that nobody talks to looks about 33 times a second, not 100 times, which was a fifth of what an idle lab
takes. A message wakes it at once, as before."""


class Node:
    def __init__(self, name: str, topology: Topology, directory: Path) -> None:
        self.name = name
        self.namespace: Namespace = topology.nodes[name]
        self._topology = topology
        self._directory = directory / name
        self._directory.mkdir()
        self._cut = self._muted = False
        self._bridge = 0
        self.settings = self._directory / "node.toml"
        self.settings.write_text(
            NODE_TOML.format(
                name=name,
                ranges=json.dumps(VIP_RANGES),
                directory=self._directory,
                consul=ConsulServer.address,
                port=API_PORT,
            )
        )
        conf = self._directory / "exabgp.conf"
        conf.write_text(exabgp_conf(name, [sys.executable, "-m", "anycastlb.bridge", "--config", str(self.settings)]))
        env = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        self.daemon = Process(
            f"{name} anycastlb",
            self.namespace,
            [sys.executable, "-m", "anycastlb", "run", "--config", str(self.settings)],
            directory / f"{name}-anycastlb.log",
            env,
        )
        self.exabgp = Process(
            f"{name} exabgp",
            self.namespace,
            [sys.executable, "-m", "exabgp", "server", str(conf)],
            directory / f"{name}-exabgp.log",
            {**env, **environment(), **IDLE},
        )

    # ------------------------------------------------------------ life and death

    def start(self) -> None:
        for process in (self.exabgp, self.daemon):
            if not process.running:
                process.start()

    def refresh(self) -> None:
        """Start what does not run, and another ExaBGP in the place of one that has lost a bridge since ``refreshed``.

        It ends itself at the sixth loss within the same 64 seconds, in however many tests these were.
        """
        try:
            lost = self._bridge not in (0, self.bridge())
        except (LabError, OSError):  # it has none, or does not run
            lost = True
        if lost:
            self.exabgp.kill()
        self.start()

    def refreshed(self) -> None:
        """It is as a test finds it."""
        self._bridge = self.bridge()

    def ready(self) -> None:
        """Wait until it says itself that it is in sync and able to serve."""
        self.daemon.until(lambda: self.http("/readyz")[0] == 200, f"{self.name} is ready", every=0.1)

    def end(self) -> None:
        """Both processes, at once; for cleaning up, not for testing."""
        for process in (self.daemon, self.exabgp):
            process.kill()

    def die(self) -> None:
        """The machine loses power: its links go down, then nothing on it runs any more."""
        self.cut()
        self.daemon.kill()
        self.exabgp.kill()

    def revive(self) -> None:
        """The machine boots: an empty kernel, its links up, its programs started."""
        self.wipe()
        self.plug()
        self.start()

    @contextmanager
    def changed(self, *edits: tuple[str, str]) -> Iterator[None]:
        """With other settings (old text, new text), taken over by a process that has read them, and with its own again
        after the block."""
        before = self.settings.read_text()
        text = before
        for old, new in edits:
            if old not in text:
                raise LabError(f"{self.settings} has no {old!r} to be replaced by {new!r}")
            text = text.replace(old, new)
        self.settings.write_text(text)
        try:
            self.hand_over()
            yield
        finally:
            self.settings.write_text(before)
            if self.daemon.running:
                self.hand_over()

    def hand_over(self) -> None:
        """The daemon ends as for an upgrade, everything left as it is; another takes its place and gets ready."""
        self.daemon.signal(signal.SIGUSR1)
        self.daemon.wait()
        self.daemon.start()
        self.ready()

    def cut(self) -> None:
        self._cut = True
        self.namespace.ip("link set dev uplink down", "link set dev lan down")

    def plug(self) -> None:
        """Undo ``cut``."""
        if not self._cut:
            return
        self._cut = False
        self.namespace.ip("link set dev uplink up", "link set dev lan up")
        self._topology.route(self.name)

    def mute(self, *interfaces: str) -> None:
        """Its cables stay in, but nothing comes through, in or out: others learn of it only by its silence."""
        self._muted = True
        for interface in interfaces or ("uplink", "lan"):
            self.namespace.run("tc", "qdisc", "replace", "dev", interface, "clsact")
            for way in ("ingress", "egress"):
                self.namespace.run("tc", "filter", "add", "dev", interface, way, "matchall", "action", "drop")

    def sever(self, addresses: Iterable[str]) -> None:
        """In the LAN nothing passes any more between it and these addresses, from one moment on.

        One after the other they would be several faults: the node would send new flows of the first to the next.
        """
        self._muted = True
        self.namespace.run("tc", "qdisc", "replace", "dev", "lan", "clsact")
        ways = (("ingress", "src_ip"), ("egress", "dst_ip"))
        for way, end in ways:
            for address in addresses:
                rule = ("protocol", "ipv6" if ":" in address else "ip", "flower", end, address, "action", "drop")
                self.namespace.run("tc", "filter", "add", "dev", "lan", way, "chain", "1", *rule)
        for way, _ in ways:  # what nothing has led to so far
            self.namespace.run("tc", "filter", "add", "dev", "lan", way, "matchall", "action", "goto", "chain", "1")

    def unmute(self) -> None:
        """Undo ``mute`` and ``sever``."""
        if not self._muted:
            return
        self._muted = False
        for interface in ("uplink", "lan"):
            self.namespace.run("tc", "qdisc", "del", "dev", interface, "clsact", check=False)

    def wipe(self) -> None:
        """What a reboot does to the kernel's state: no IPVS entry and no VIP is left."""
        self.namespace.run("ipvsadm", "-C")
        self.namespace.ip(*(f"addr del {vip}/{vip.max_prefixlen} dev lo" for vip in self.vips()))

    def bridge(self) -> int:
        """The bridge's process id, as ExaBGP's child."""
        children = Path(f"/proc/{self.exabgp.pid}/task/{self.exabgp.pid}/children").read_text().split()
        for child in children:
            if b"bridge" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
        raise LabError(f"{self.name}: ExaBGP runs no bridge\n{self.exabgp.tail()}")

    def checker(self) -> int:
        """The process id of the daemon's checker; 0 while it has none."""
        try:
            for child in Path(f"/proc/{self.daemon.pid}/task/{self.daemon.pid}/children").read_text().split():
                if b"anycastlb.engine.checker" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return int(child)
        except OSError:  # it has just ended
            return 0
        return 0

    def kill_bridge(self) -> int:
        """SIGKILL for the bridge; its process id. ExaBGP starts another."""
        pid = self.bridge()
        os.kill(pid, signal.SIGKILL)
        return pid

    def reload(self) -> None:
        self.daemon.signal(signal.SIGHUP)

    # ------------------------------------------------------------ what the daemon says

    def cli(self, *argv: str, check: bool = True) -> Told:
        """``anycastlb ARGV --config node.toml`` on this node; exit code 2 (unhealthy, differs) is an answer too.

        It runs in this process, whose sockets are the node's meanwhile: a Python of its own takes seconds to start in
        the test kernel. ``program`` is one.
        """
        with self.namespace.inside():
            words = [*argv, "--config", str(self.settings)]
            done = CliRunner().invoke(main, words, prog_name="anycastlb", catch_exceptions=False)
        return self._checked(Told(argv, done.exit_code, done.stdout, done.stderr), check)

    def program(self, *argv: str, check: bool = True) -> Told:
        """As ``cli``, as the program that an operator starts."""
        done = subprocess.run(
            self.namespace.argv(*self.argv(*argv)),
            capture_output=True,
            text=True,
            timeout=10 * GIVE_UP,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
        )
        return self._checked(Told(argv, done.returncode, done.stdout, done.stderr), check)

    def argv(self, *argv: str) -> list[str]:
        """The program and its arguments."""
        return [sys.executable, "-m", "anycastlb", *argv, "--config", str(self.settings)]

    @staticmethod
    def _checked(told: Told, check: bool) -> Told:
        if check and told.returncode not in (0, 2):
            command = f"anycastlb {' '.join(told.argv)}"
            raise LabError(f"{command}: exit status {told.returncode}\n{told.stdout}{told.stderr}")
        return told

    def http(self, path: str) -> tuple[int, str]:
        """Status and body from the daemon's API; status 0 when it does not answer."""
        try:
            return get(self.namespace, "127.0.0.1", API_PORT, path)
        except OSError as exc:
            return 0, str(exc)

    def status(self) -> dict[str, Any]:
        status, body = self.http("/v1/status")
        if status != 200:
            raise LabError(f"{self.name}: /v1/status answers {status}: {body[:200]}\n{self.daemon.tail()}")
        document: dict[str, Any] = json.loads(body)
        return document

    def announced(self) -> set[Address]:
        """The VIPs of which it knows that it announces them."""
        return {ip_address(view["vip"]) for view in self.status()["vips"] if view["announced"]}

    def events(self, kind: str) -> list[dict[str, Any]]:
        """The events of one kind, the oldest first."""
        status, body = self.http("/v1/events")
        if status != 200:
            raise LabError(f"{self.name}: /v1/events answers {status}: {body[:200]}")
        return [event for event in json.loads(body)["events"] if event["kind"] == kind]

    def metrics(self) -> dict[str, float]:
        """Every sample of ``/metrics``, by its name with labels as printed."""
        status, body = self.http("/metrics")
        if status != 200:
            raise LabError(f"{self.name}: /metrics answers {status}: {body[:200]}\n{self.daemon.tail()}")
        lines = (line.rsplit(" ", 1) for line in body.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, value in lines}

    def total(self, metric: str, *labels: str) -> float:
        """The sum of a metric's samples that carry all these labels (``'table="services"'``)."""
        return sum(
            value
            for name, value in self.metrics().items()
            if name.partition("{")[0] == metric and all(label in name for label in labels)
        )

    # ------------------------------------------------------------ what the kernel says

    def ipvs(self) -> dict[str, dict[str, int]]:
        """Service (``tcp 192.0.2.10:80``) -> destination (``10.1.0.1:80``) -> weight."""
        return kernel.ipvs(kernel.proc(self.namespace, "ip_vs"))

    def ordered(self) -> str:
        """The kernel's own listing without its counters: services in list order, weights, nothing sorted."""
        return kernel.in_order(kernel.proc(self.namespace, "ip_vs"))

    def vips(self) -> set[Address]:
        """The addresses on ``lo`` that lie in the lab's VIP ranges."""
        return {item for item in kernel.loopback(self.namespace) if any(item in block for block in _RANGES)}

    def flows(self, vip: Address) -> Counter[str]:
        """Connections this node ever scheduled for the VIP, by backend address: IPVS's own counters.

        The kernel brings them up to date every two seconds.
        """
        counts: Counter[str] = Counter()
        inside = False
        shown = f"[{vip}]" if vip.version == 6 else str(vip)
        for words in map(str.split, self.namespace.run("ipvsadm", "-Ln", "--stats", "--exact").splitlines()):
            if words and words[0] != "->":  # another service, which may be one by firewall mark
                inside = words[1].rpartition(":")[0] == shown
            elif inside and words:
                counts[words[1].rpartition(":")[0].strip("[]")] += int(words[2])
        return counts

    def carries(self, vip: Address) -> set[int]:
        """The client ports of the established TCP connections to the VIP in this node's connection table."""
        ports = set()
        for words in map(str.split, self.namespace.run("ipvsadm", "-Lnc").splitlines()):
            if len(words) > 4 and words[0] == "TCP" and words[2] == "ESTABLISHED":
                client, virtual = words[3], words[4]
                if virtual.rpartition(":")[0].strip("[]") == str(vip):
                    ports.add(int(client.rpartition(":")[2]))
        return ports

    def until(self, ask: Any, what: str, within: float = GIVE_UP) -> Any:
        """As ``process.until``, with this node's log in the error."""
        try:
            return until(ask, f"{self.name}: {what}", within)
        except LabError as exc:
            raise LabError(f"{exc}\n{self.daemon.tail(25)}\n{self.exabgp.tail(10)}") from None
