"""Fixtures that every kind of test shares."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.rig import require as rig

HERE = Path(__file__).parent


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background of a script: programs that tests interrupt would inherit that, and never end.
    signal.signal(signal.SIGINT, signal.default_int_handler)

LOOKS = {"e2e": 3, "parts": 3, "contract": 2, "kernel": 2}
"""How often a failed test is looked at, by its folder."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests on real parts promise times on a wall clock, on machines that are shared and may stall: a failure gets
    another look. pytest counts and names every rerun."""
    for item in items:
        folder = item.path.relative_to(HERE).parts[0]
        if folder in LOOKS:
            item.add_marker(pytest.mark.flaky(reruns=LOOKS[folder] - 1, reruns_delay=1))


@pytest.fixture(name="require", scope="session")
def _require() -> Callable[[str], str]:
    """``require("consul")``: go on only if that real part is here (see ``tests/rig/require.py``)."""
    return rig.require
