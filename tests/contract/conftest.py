"""Fixtures that several contracts share."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator

import pytest

from tests.support.consul import Agent


@pytest.fixture(scope="module", autouse=True)
def _collected() -> None:
    """What another file's tests left open is found here, and not blamed on a test of this one."""
    gc.collect()


@pytest.fixture(params=[False, True], ids=["coroutine", "lean"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every check that the lean engine can run is run by both."""
    monkeypatch.setattr("tests.support.checks.lean", request.param)


@pytest.fixture(scope="module")
def agent(require: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """A real Consul that keeps its data when it is killed; one for each file of tests."""
    agent = Agent(require("consul"), tmp_path_factory.mktemp("consul"), keep=True)
    agent.start()
    yield agent
    agent.kill()
