"""Unit tests marked ``virtual_time`` run on a loop whose time passes only when nobody has anything to do, by a seed.

The Hypothesis profile is that of the laws: no example fails because the machine is slow.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext

import pytest
from hypothesis import HealthCheck, settings

from tests.support import virtual
from tests.support.virtual import VirtualLoop

settings.register_profile(
    "unit", deadline=None, derandomize="CI" in os.environ, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("unit")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"virtual": VirtualLoop} if item.get_closest_marker("virtual_time") else {"real": asyncio.new_event_loop}


@pytest.fixture(autouse=True)
def virtual_machine(request: pytest.FixtureRequest) -> Iterator[None]:
    with virtual.machine(request.node.nodeid) if request.node.get_closest_marker("virtual_time") else nullcontext():
        yield
