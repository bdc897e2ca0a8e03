"""Fixtures of the kernel tests: each test has a network namespace of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support.netns import fresh


@pytest.fixture
def netns(require: Callable[[str], str]) -> Iterator[None]:
    """A fresh network namespace with nothing in it but the loopback."""
    require("kernel")
    with fresh():
        yield
