"""Weights as the kernel gets them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anycastlb.core.decision.weights import asked, earned, effective, quantise, ramp, standing
from anycastlb.core.model import Weights


@pytest.mark.parametrize(
    ("nominal", "kernel"),
    [
        ([100, 100, 100], [100, 100, 100]),
        ([100, 99, 1], [100, 100, 10]),
        ([100, 50, 0], [100, 50, 0]),
        ([1, 2, 3], [1, 2, 3]),
        ([1000, 555], [1000, 600]),
        ([37, 20], [36, 20]),
        ([], []),
    ],
)
def test_mh_weights_are_few_and_small(nominal: list[int], kernel: list[int]) -> None:
    assert quantise(nominal, "mh") == kernel
    assert quantise(nominal, "wrr") == nominal


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=50))
def test_quantised_weights_keep_their_order_and_their_zeros(nominal: list[int]) -> None:
    kernel = quantise(nominal, "mh")
    assert [bool(weight) for weight in nominal] == [bool(weight) for weight in kernel]
    assert all(
        (a <= b) <= (x <= y) for a, x in zip(nominal, kernel, strict=True) for b, y in zip(nominal, kernel, strict=True)
    )
    assert len(set(kernel) - {0}) <= 11


@given(st.floats(0.1, 1000), st.floats(0, 2000), st.floats(0, 100))
def test_ramp_is_monotone_and_bounded(slow_start: float, age: float, more: float) -> None:
    now, step = ramp(age, slow_start)
    later, _ = ramp(age + more, slow_start)
    assert 0 < now <= later <= 1
    if step is not None:
        assert step > age or step == pytest.approx(age)
        assert ramp(age + 0.9 * (step - age), slow_start)[0] == now, "nothing changes before the next step"


def test_no_slow_start_no_ramp() -> None:
    assert ramp(0.0, 0.0) == (1.0, None)


@pytest.mark.parametrize(
    ("age", "share", "step"),
    [(0.0, 0.1, 1.0), (0.9, 0.1, 1.0), (1.0, 0.2, 2.0), (8.9, 0.9, 9.0), (9.0, 1.0, None), (10.0, 1.0, None)],
)
def test_a_slow_start_of_ten_seconds(age: float, share: float, step: float | None) -> None:
    assert ramp(age, 10.0) == (share, step)


weights = st.builds(
    Weights,
    st.integers(0, 65535),
    st.none() | st.integers(0, 65535),
    st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    st.sampled_from([tenth / 10 for tenth in range(1, 11)]),
)


@given(weights)
def test_the_effective_weight_is_0_only_if_one_of_its_parts_is(given_weights: Weights) -> None:
    weight = effective(given_weights)
    base = given_weights.nominal if given_weights.admin is None else given_weights.admin
    assert bool(weight) == bool(given_weights.nominal and base and given_weights.health)
    assert 0 <= weight <= base
    if given_weights.health == given_weights.ramp == 1 and given_weights.nominal:
        assert weight == base


@pytest.mark.parametrize(
    ("parts", "weight"),
    [
        (Weights(100), 100),
        (Weights(100, ramp=0.3), 30),
        (Weights(100, health=0.5, ramp=0.5), 20),
        (Weights(100, admin=50, ramp=0.5), 25),
        (Weights(100, admin=0), 0),
        (Weights(0), 0),
        (Weights(0, admin=30), 0),
        (Weights(1, ramp=0.1), 1),
        (Weights(100, health=0.1, ramp=0.1), 10),
    ],
)
def test_effective_weights(parts: Weights, weight: int) -> None:
    assert effective(parts) == weight


def test_a_record_earns_weight_and_never_nothing() -> None:
    """GORB's gradual restore without its flaw: after one failure in a short life half, and a weight of 1 stays 1."""
    assert [earned(good, good + 1) for good in range(1, 10)] == [0.5, 0.6, 0.7, 0.8, 0.8, 0.8, 0.8, 0.8, 0.9]
    assert earned(0, 5) == 0.1 and earned(100, 100) == 1.0 and earned(0, 0) == 1.0
    assert effective(Weights(1, ramp=earned(1, 100))) == 1


@pytest.mark.parametrize(("percent", "share"), [(0, 0.0), (1, 0.1), (54, 0.5), (75, 0.8), (100, 1.0), (250, 1.0)])
def test_what_a_backend_asks_for(percent: int, share: float) -> None:
    assert asked(percent) == share


def test_a_weight_of_zero_stands_in_the_table_as_the_largest() -> None:
    assert standing([0, 50, 100]) == 100 and standing([0]) == standing([]) == 1
