"""Each part of a node, and what it depends on, is killed, stopped, cut off, slowed down, fed with garbage and starved
of what it needs, in the real lab, in pairs that a seed chooses.

The promises are those of the model in ``tests/scenario``: nothing is announced that is not served, no request is lost
without a reason, and all is back afterwards. Many more of them: ``python -m tests.lab.trials``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.faults import pair
from tests.lab.judge import Whole
from tests.lab.lab import Lab
from tests.lab.trials import prepared, trial

SEEDS = (8, 15, 17, 18)
"""What ExaBGP says and what is lost on disk; disks and ExaBGP that are slow; a dead backend beside a frozen disk, and
beside an ExaBGP that stands still."""


@pytest.fixture(scope="module")
def scene(running_lab: Lab) -> Iterator[tuple[Lab, Whole]]:
    with prepared(running_lab) as before:
        yield running_lab, before


@pytest.mark.parametrize("seed", SEEDS)
def test_no_promise_breaks(scene: tuple[Lab, Whole], seed: int) -> None:
    plan = pair(seed)
    told, complaints = trial(*scene, plan)
    assert not complaints, "\n".join([f"{plan}: {told}", *complaints])
