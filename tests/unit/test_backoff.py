"""The wait between attempts: it doubles up to a limit, and jitter only ever shortens it, by half at most."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from anycastlb.core.backoff import Backoff


def test_the_wait_doubles_up_to_the_longest() -> None:
    assert [Backoff(0.5, 5.0).delay(earlier) for earlier in range(6)] == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]


@given(st.integers(0, 10**6), st.floats(0, 1))
def test_jitter_takes_at_most_half_of_it(earlier: int, chance: float) -> None:
    backoff = Backoff(0.1, 60.0)
    assert backoff.delay(earlier) / 2 <= backoff.delay(earlier, chance) <= backoff.delay(earlier) <= 60.0
