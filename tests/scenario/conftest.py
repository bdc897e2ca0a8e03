"""Every story runs in virtual time, and in every story each decision is the one from scratch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest

from anycastlb.core.decision import quarantine
from anycastlb.core.decision.decide import decide, decide_again
from anycastlb.core.decision.remembered import Remembered
from anycastlb.core.model import Inputs, Memory
from tests.support import virtual
from tests.support.decisions import differences
from tests.support.virtual import VirtualLoop


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Callable[[], VirtualLoop]]:
    return {"virtual": VirtualLoop}


@pytest.fixture(autouse=True)
def virtual_machine(request: pytest.FixtureRequest) -> Iterator[None]:
    with virtual.machine(request.node.nodeid):
        yield


@pytest.fixture(autouse=True)
def from_scratch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The law of the incremental brain, at every decision of every story."""

    def checked(last: Remembered, inputs: Inputs, memory: Memory, now: float) -> Remembered:
        made = decide_again(last, inputs, memory, now)
        if found := differences(made.decision, decide(inputs, memory, now)):
            pytest.fail(f"not the decision from scratch: {found}")
        return made

    monkeypatch.setattr(quarantine, "decide_again", checked)
