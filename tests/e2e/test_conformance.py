"""The suites that hold the API to its description, and to GORB's, against a running node with a real Consul."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.lab.lab import Lab
from tests.lab.node import API_PORT

SUITES = ("tests/contract/test_gorb.py", "tests/unit/test_api_description.py")
ROOT = Path(__file__).parents[2]


def test_a_node_of_the_lab_passes(lab: Lab) -> None:
    lab.consul.put("anycastlb/defaults", '{"drain": "500ms"}')
    program = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *SUITES]
    done = subprocess.run(
        lab.lb1.namespace.argv(*program),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "ANYCASTLB_TEST_API": f"http://127.0.0.1:{API_PORT}"},
        timeout=3600,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert " passed" in done.stdout
    assert lab.lb1.http("/healthz")[0] == 200
    assert "Traceback" not in lab.lb1.daemon.tail(500)
