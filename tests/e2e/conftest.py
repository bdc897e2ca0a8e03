"""One running lab for all tests; every test begins with all machines healthy and no service."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator

import pytest

from tests.lab.lab import Lab
from tests.lab.router import chosen

PARTS = ("kernel", "consul", "exabgp", "vtysh" if chosen() == "frr" else "bird", "ipvsadm", "tc")
RUNNING: list[Lab] = []
"""The lab that tests share, once one of them asked for it."""


@pytest.fixture(scope="session")
def running_lab(require: Callable[[str], str]) -> Iterator[Lab]:
    for part in PARTS:
        require(part)
    with Lab() as lab:
        RUNNING.append(lab)
        yield lab
        RUNNING.remove(lab)


@pytest.fixture(scope="module")
def alone(require: Callable[[str], str]) -> Iterator[None]:
    """For tests of a file that bring a lab of their own: the one that others share rests meanwhile."""
    for part in PARTS:
        require(part)
    for shared in RUNNING:
        shared.rest()
    yield
    for shared in RUNNING:
        shared.start()


@pytest.fixture
def three(alone: None) -> Iterator[Lab]:
    """A lab of three nodes, none of them started."""
    with Lab(start_nodes=False, nodes=("lb1", "lb2", "lb3")) as lab:
        yield lab


@pytest.fixture
def lab(running_lab: Lab) -> Lab:
    running_lab.reset()
    return running_lab


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows the end of every log of the nodes, and their kernel tables."""
    report = yield
    arguments = getattr(item, "funcargs", {})
    lab = arguments.get("running_lab", arguments.get("three"))
    if report.failed and isinstance(lab, Lab):
        for node in lab.nodes.values():
            report.sections += [
                (f"{node.name} anycastlb", node.daemon.tail(30)),
                (f"{node.name} exabgp", node.exabgp.tail(8)),
                (f"{node.name} kernel", node.ordered()),
            ]
    return report
