"""What the tests of one part with its real counterpart share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support.consul import Agent


@pytest.fixture(scope="module")
def one_agent(require: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    agent = Agent(require("consul"), tmp_path_factory.mktemp("consul"), keep=True)
    agent.start()
    yield agent
    agent.kill()


@pytest.fixture
def agent(one_agent: Agent) -> Agent:
    """A Consul that runs, keeps its data, and has none yet: one for each file of tests."""
    one_agent.emptied()
    return one_agent
