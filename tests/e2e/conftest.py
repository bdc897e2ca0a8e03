"""One running lab for all tests; every test begins with all machines healthy and no service."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import suppress

import pytest

from tests.lab.lab import Lab
from tests.lab.router import chosen

PARTS = ("kernel", "consul", "exabgp", "vtysh" if chosen() == "frr" else "bird", "ipvsadm", "tc")


@pytest.fixture(scope="session")
def running_lab(require: Callable[[str], str]) -> Iterator[Lab]:
    """The lab that all tests share: to start one takes as long as many tests. ``lb3`` is wired, and does not run."""
    for part in PARTS:
        require(part)
    with Lab(spare=("lb3",)) as lab:
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
    lab = getattr(item, "funcargs", {}).get("running_lab")
    if report.failed and isinstance(lab, Lab):
        for node in lab.nodes.values():
            report.sections += [
                (f"{node.name} anycastlb", node.daemon.tail(30)),
                (f"{node.name} exabgp", node.exabgp.tail(8)),
            ]
            with suppress(OSError):  # the lab is gone: what failed was to end it, or something before that
                report.sections.append((f"{node.name} kernel", node.ordered()))
    return report
