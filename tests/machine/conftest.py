"""Bare machines in a lab of their own, for all tests of this folder, which build on each other."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator

import pytest

from tests.lab.lab import Lab
from tests.machine.world import RELEASES, World, guard


@pytest.fixture(scope="session")
def world(require: Callable[[str], str]) -> Iterator[World]:
    from tests.rig import bareroot

    for part in ("kernel", "consul", "bird", "tc", "bareroot", "package"):
        require(part)
    trees = {suite: tree for suite in RELEASES.values() if (tree := bareroot.find(suite))}
    lab = Lab(nodes=(), spare=tuple(RELEASES))
    guard(lab.consul, lab.directory)
    with lab:
        world = World(lab, trees)
        try:
            world.start()
            yield world
        finally:
            world.end()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows what the nodes' services had to say."""
    report = yield
    world = getattr(item, "funcargs", {}).get("world")
    if report.failed and isinstance(world, World):
        report.sections += [
            (f"{unit} on {node.name}", node.machine.journal(unit))
            for node in world.nodes.values()
            for unit in ("anycastlb", "anycastlb-exabgp")
        ]
    return report
