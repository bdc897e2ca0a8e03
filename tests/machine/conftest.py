"""One bare machine in a lab of its own, for all tests of this folder, which build on each other."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator

import pytest

from tests.lab.lab import Lab
from tests.machine.world import NODE, World, guard


@pytest.fixture(scope="session")
def world(require: Callable[[str], str]) -> Iterator[World]:
    from tests.rig import bareroot

    for part in ("kernel", "consul", "bird", "tc", "bareroot", "package"):
        require(part)
    lab = Lab(nodes=(), spare=(NODE,))
    guard(lab.consul, lab.directory)
    tree = bareroot.find()
    assert tree is not None
    with lab:
        world = World(lab, tree)
        try:
            world.start()
            yield world
        finally:
            world.end()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows what the node's services had to say."""
    report = yield
    world = getattr(item, "funcargs", {}).get("world")
    if report.failed and isinstance(world, World):
        report.sections += [(unit, world.node.journal(unit)) for unit in ("anycastlb", "anycastlb-exabgp")]
    return report
