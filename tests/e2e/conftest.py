"""One running lab for a module of tests; every test begins with all machines healthy and no service."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.lab.lab import Lab


@pytest.fixture(scope="module")
def running_lab(require: Callable[[str], str]) -> Iterator[Lab]:
    for part in ("kernel", "consul", "exabgp", "bird", "ipvsadm", "tc"):
        require(part)
    with Lab() as lab:
        yield lab


@pytest.fixture
def lab(running_lab: Lab) -> Lab:
    running_lab.reset()
    return running_lab
