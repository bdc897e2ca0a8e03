"""What ``anycastlb simulate`` says of a change, against where the flows of a running daemon go once it has happened."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from anycastlb.cli import main
from tests.support.netns import run
from tests.support.wire import Wire, packets

ROOT = Path(__file__).resolve().parents[2]
VIP = ip_address("192.0.2.10")
FLOWS = 10_000
NAMES = [f"b{number}" for number in range(1, 11)]
VICTIM = "b4"
NODE_TOML = """
[node]
name = "lb1"
vip_ranges = ["192.0.2.0/24"]
state_dir = "{home}/state"
resync = "1s"

[catalog]
source = "file"
path = "{home}/catalog"

[checks]
commands = ["{test}"]

[bgp]
socket = "{home}/bgp.sock"

[api]
listen = ["127.0.0.1:4672"]
socket = "{home}/api.sock"
"""


def own(name: str) -> str:
    return f"10.0.0.{name[1:]}"


def service(home: Path, test: str, **backends: dict[str, Any] | None) -> dict[str, Any]:
    """Ten backends, one of them up while its file is there; ``backends``: changed, or left out with None."""
    documents: dict[str, Any] = {name: {"address": own(name), "check": {"type": "none"}} for name in NAMES}
    documents[VICTIM]["check"] = {
        "type": "command", "command": [test, "-e", f"{home}/{VICTIM}"],
        "interval": "300ms", "timeout": "5s", "rise": 1, "fall": 1,
    }  # fmt: skip
    for name, more in backends.items():
        documents[name] = None if more is None else {**documents.get(name, documents["b1"]), **more}
    return {
        "vip": str(VIP), "port": 53, "protocol": "udp", "forward": "tunnel", "one_packet": True, "drain": "0s",
        "backends": {name: document for name, document in documents.items() if document is not None},
    }  # fmt: skip


class Daemon:
    """``anycastlb run`` in this network namespace, over a directory of documents."""

    def __init__(self, home: Path, test: str) -> None:
        self.home, self.test = home, test
        self.config = home / "node.toml"
        self.config.write_text(NODE_TOML.format(home=home, test=test))
        (home / "catalog/services").mkdir(parents=True)
        (home / VICTIM).touch()
        self.put()
        with (home / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "anycastlb", "run", "--config", str(self.config)],
                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def put(self, **backends: dict[str, Any] | None) -> None:
        whole = self.home / "catalog/services/dns.json"
        whole.with_suffix(".part").write_text(json.dumps(service(self.home, self.test, **backends)))
        whole.with_suffix(".part").rename(whole)

    def simulate(self, **backends: dict[str, Any] | None) -> float:
        """The share it says would move."""
        proposed = self.home / "proposed"
        (proposed / "services").mkdir(parents=True, exist_ok=True)
        (proposed / "services/dns.json").write_text(json.dumps(service(self.home, self.test, **backends)))
        words = ["simulate", str(proposed), "-o", "json", "--config", str(self.config)]
        done = CliRunner().invoke(main, words, prog_name="anycastlb", catch_exceptions=False)
        assert done.exit_code == 0, f"{done.stdout}{done.stderr}\n{self.log()}"
        moves = json.loads(done.stdout)["moves"]
        return float(moves[0]["share"]) if moves else 0.0

    def until(self, weights: dict[str, int]) -> None:
        """Wait until the kernel has these weights."""
        end = time.monotonic() + 600
        while (found := self.weights()) != weights:
            assert time.monotonic() < end, f"expected {weights}, found {found}\n{self.log()}"
            time.sleep(0.05)

    def weights(self) -> dict[str, int]:
        """By backend; none while the table is still being filled."""
        words = [line.split() for line in run("ipvsadm", "-Sn").splitlines()]
        if not any("mh" in row for row in words):
            return {}
        rows = {row[row.index("-r") + 1]: int(row[row.index("-w") + 1]) for row in words if row[0] == "-a"}
        return {f"b{name.partition(':')[0].rpartition('.')[2]}": weight for name, weight in rows.items()}

    def log(self) -> str:
        return (self.home / "log").read_text()[-3000:]


@pytest.fixture
def daemon(netns: None, tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path, shutil.which("test") or "/usr/bin/test")
    yield daemon
    daemon.process.kill()
    daemon.process.wait()


ALL_UP = dict.fromkeys(NAMES, 100)
OTHERS = {name: 100 for name in NAMES if name != VICTIM}


def test_simulate_tells_the_share_that_really_moves(daemon: Daemon) -> None:
    wire, sent = Wire(), packets(random.Random(1), FLOWS, VIP)
    daemon.until(ALL_UP)
    home = wire.send(sent)
    assert len(home) == FLOWS and set(home.values()) == {ip_address(own(name)).packed for name in NAMES}

    def moved() -> set[bytes]:
        now = wire.send(sent)
        return {flow for flow in home if now.get(flow) != home[flow]}

    changes: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
        "an eleventh": ({"b11": {"address": own("b11")}}, {**ALL_UP, "b11": 100}),
        "one of ten removed": ({VICTIM: None}, OTHERS),
        "a weight of ten halved": ({VICTIM: {"weight": 50}}, {**ALL_UP, VICTIM: 50}),
    }
    figures = []
    for what, (backends, weights) in changes.items():
        predicted = daemon.simulate(**backends)
        assert wire.send(sent) == home, "simulating moved something"
        daemon.put(**backends)
        daemon.until(weights)
        measured = len(moved()) / FLOWS
        figures.append(f"{what}: {measured:.2%} of {FLOWS} flows moved, {predicted:.2%} predicted")
        assert measured == pytest.approx(predicted, abs=0.01), figures
        daemon.put()
        daemon.until(ALL_UP)
        assert not moved(), f"{what}: and back"

    predicted = daemon.simulate(**{VICTIM: {"weight": 0}})
    (daemon.home / VICTIM).unlink()  # its check fails from now on
    daemon.until({**ALL_UP, VICTIM: 0})
    gone = moved()
    figures.append(f"one of ten dies: {len(gone) / FLOWS:.2%} of {FLOWS} flows moved, {predicted:.2%} predicted")
    print("\n".join(figures))
    assert gone == {flow for flow in home if home[flow] == ip_address(own(VICTIM)).packed}, "others' flows moved"
    assert len(gone) / FLOWS <= 1.3 / len(NAMES)
    assert len(gone) / FLOWS == pytest.approx(predicted, abs=0.01)
    wire.close()
