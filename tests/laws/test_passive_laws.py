"""The laws of passive failures: nothing counts against a backend but what its server has done, and not for long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from anycastlb.core.decision.http.passive import SPANS
from anycastlb.core.model import TryCounters
from tests.support.passive import THREE, Counting, pool

BACKENDS = 3
ENDED = st.builds(TryCounters, st.integers(0, 6), *[st.integers(0, 2)] * 5)
"""How requests have ended, as HAProxy counts them; a failed one may stand in several columns."""
ROUNDS = st.lists(
    st.tuples(st.sampled_from([0.5, 1.0, 4.0]), st.booleans(), st.tuples(*[ENDED] * BACKENDS)), max_size=12
)
"""Seconds, whether HAProxy is reloaded at their end, and what it has counted in them."""


def at_most(counters: TryCounters) -> int:
    """So many requests can have failed."""
    return sum(counters[1:])


@given(ROUNDS)
def test_only_what_failed_in_time_counts_and_one_always_stays(
    rounds: list[tuple[float, bool, tuple[TryCounters, ...]]],
) -> None:
    world = Counting(pool(BACKENDS))
    failed: list[list[tuple[float, int]]] = [[] for _ in range(BACKENDS)]
    for seconds, reloaded, ended in rounds:
        before = world.record.failures
        if reloaded:
            world.counters = dict.fromkeys(world.counters, TryCounters())
        world.tried(**{f"b{number + 1}": counters for number, counters in enumerate(ended)}).ask(seconds)
        for number, counters in enumerate(ended):
            failed[number].append((world.now, at_most(counters)))
        failures = world.record.failures
        assert len(failures) < BACKENDS
        for place, (address, failure) in enumerate(failures.items()):
            assert failure.at <= world.now < failure.until == failure.at + THREE.fail_timeout, place
            number = int(str(address[0])[-1]) - 1
            if address not in before:
                age = THREE.fail_timeout * (1 + 1 / SPANS)
                assert sum(count for at, count in failed[number] if world.now - at <= age) >= THREE.max_fails


@given(ROUNDS)
def test_without_failures_nothing_is_out_however_often_haproxy_begins_anew(
    rounds: list[tuple[float, bool, tuple[TryCounters, ...]]],
) -> None:
    world = Counting(pool(BACKENDS))
    for seconds, reloaded, ended in rounds:
        if reloaded:
            world.counters = dict.fromkeys(world.counters, TryCounters())
        world.tried(**{f"b{number + 1}": TryCounters(one.good) for number, one in enumerate(ended)})
        assert not world.ask(seconds).failures
