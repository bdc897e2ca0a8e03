"""Fixtures that every kind of test shares."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from tests.rig import require as rig

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background of a script: programs that tests interrupt would inherit that, and never end.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What waits for something that goes on by itself comes last."""
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)


@pytest.fixture(name="require", scope="session")
def _require() -> Callable[[str], str]:
    """``require("consul")``: go on only if that real part is here (see ``tests/rig/require.py``)."""
    return rig.require
