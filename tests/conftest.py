"""Fixtures that every kind of test shares."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.rig import require as rig


@pytest.fixture(name="require", scope="session")
def _require() -> Callable[[str], str]:
    """``require("consul")``: go on only if that real part is here (see ``tests/rig/require.py``)."""
    return rig.require
