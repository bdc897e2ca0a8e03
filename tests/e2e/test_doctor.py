"""The doctor in the running lab with ExaBGP and its bridge; ``tests/parts/test_doctor.py`` asks it beside Consul."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.lab.lab import Lab


def told(lab: Lab, name: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Exit code, and findings by what they say, of a doctor called on the node."""
    done = lab.nodes[name].cli("doctor", "-o", "json", check=False)
    assert done.returncode in (0, 2), done.stderr
    return done.returncode, {finding["what"]: finding for finding in json.loads(done.stdout)["findings"]}


def test_the_running_lab_is_well_and_its_loss_is_told(lab: Lab) -> None:
    node = lab.nodes["lb1"]
    node.ready()
    _, found = told(lab, "lb1")
    for what in (
        "IPVS is there",
        "ExaBGP runs, and runs the bridge",
        "the bridge is connected to the node",
        "ExaBGP's user can run the bridge",
        "Consul answers",
        "the token may write the catalog",
        "the node runs, and is ready",
    ):
        assert found[what]["level"] == "ok", what
    assert f"exabgp: process {node.exabgp.pid};" in found["ExaBGP runs, and runs the bridge"]["evidence"]
    assert [f for f in found.values() if f["level"] == "error"] == []
    bridge = Path(f"/proc/{node.bridge()}")
    node.exabgp.kill()
    node.until(lambda: not bridge.exists(), "its bridge ends with it")
    code, found = told(lab, "lb1")
    assert code == 2
    assert found["ExaBGP does not run: nothing is announced"]["level"] == "warning"
    assert found["no bridge is connected to the node"]["level"] == "error"
