"""Weights as the kernel gets them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anycastlb.weights import quantise, ramp, standing


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


@given(st.integers(1, 65535), st.floats(0.1, 1000), st.floats(0, 2000), st.floats(0, 100))
def test_ramp_is_monotone_and_bounded(weight: int, slow_start: float, age: float, more: float) -> None:
    now, step = ramp(weight, age, slow_start)
    later, _ = ramp(weight, age + more, slow_start)
    assert 1 <= now <= later <= weight
    if step is not None:
        assert step > age or step == pytest.approx(age)
        assert ramp(weight, age + 0.9 * (step - age), slow_start)[0] == now, "nothing changes before the next step"


def test_no_slow_start_no_ramp() -> None:
    assert ramp(100, 0.0, 0.0) == (100, None)


def test_a_weight_of_zero_stands_in_the_table_as_the_largest() -> None:
    assert standing([0, 50, 100]) == 100 and standing([0]) == 1
