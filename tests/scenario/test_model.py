"""Random histories of one and of two nodes in which nothing that is promised may break.

More of them: ``ANYCASTLB_EXAMPLES=2000 ANYCASTLB_SEED=7 pytest tests/scenario/test_model.py``.
"""

from __future__ import annotations

import logging

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.support.examples import EXAMPLES
from tests.support.model import Cluster, TwoNodes
from tests.support.world import SEED

STEPS = 20


@pytest.mark.parametrize(("machine", "examples"), [(Cluster, 40), (TwoNodes, 20)])
def test_whatever_happens_no_promise_breaks(
    machine: type[Cluster], examples: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    run_state_machine_as_test(
        seed(SEED)(machine),
        settings=settings(
            max_examples=EXAMPLES or examples,
            stateful_step_count=STEPS,
            phases=[Phase.generate, Phase.shrink],
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_one_failed_write_is_no_refusal_even_after_looks_that_omitted_the_row() -> None:
    """Found by the model: the cycles that had to be repeated because of the looks counted for the write too."""
    state = Cluster()
    state.begin()
    try:
        state.drift(n=0, place=0, table="addresses")
        state.err(calls=2, n=0, what="write")
        state.restart(deleted="", n=0)
        state.omit(looks=3, n=0, places={0}, table="addresses")
        state.err(calls=1, n=0, what="write")
        state.delete(name="a")
        state.nothing_forbidden_was_done()
    finally:
        state.teardown()
