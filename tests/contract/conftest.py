"""Fixtures that several contracts share."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from anycastlb.adapters.sources import Store
from tests.support.consul import Agent
from tests.support.stores import ConsulWorld, FileWorld, MemoryWorld, Open, World


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


@pytest.fixture(params=["memory", "file", "consul"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    """A place for a catalog that holds none yet."""
    if request.param == "memory":
        return MemoryWorld()
    if request.param == "file":
        (tmp_path / "catalog").mkdir()
        return FileWorld(tmp_path / "catalog")
    agent: Agent = request.getfixturevalue("agent")
    agent.delete("anycastlb/", below=True)
    return ConsulWorld(agent.address)


@pytest.fixture
async def stores(world: World) -> AsyncIterator[Open]:
    """Opens one more store over the same catalog, as each node has its own."""
    opened: list[Store] = []

    def another() -> Store:
        opened.append(world.store())
        return opened[-1]

    yield another
    for store in opened:
        await store.close()
