"""What the tests of one part with its real counterpart share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.consul import Agent


@pytest.fixture
def agent(require: Callable[[str], str], tmp_path: Path) -> Iterator[Agent]:
    """A Consul of the test's own."""
    agent = Agent(require("consul"), tmp_path)
    agent.start()
    yield agent
    agent.kill()
