"""``agent``: what a line of HAProxy's agent-check protocol means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anycastlb.adapters.checks import Down, Found
from anycastlb.adapters.checks.agent import judged


@pytest.mark.parametrize(
    ("line", "weight", "drain"),
    [
        (b"up", None, False), (b"ready", None, False), (b"75%", 75, False), (b"0%", 0, False), (b"UP 100%", 100, False),
        (b"drain", None, True), (b"ready,drain 50%", 50, True), (b"up\tready maxconn:30", None, False),
        (b" , up ,, ", None, False), (b"up # all is well, down or not", None, False), (b"10% 20%", 20, False),
    ],
)  # fmt: skip
def test_up(line: bytes, weight: int | None, drain: bool) -> None:
    result = judged(line)
    assert (result.weight, result.drain) == (weight, drain)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"down", "the agent says down"),
        (b"Down#disk full", "the agent says down: disk full"),
        (b"failed # no database", "the agent says failed: no database"),
        (b"fail", "the agent says fail"),
        (b"up 75% stopped", "the agent says stopped"),
        (b"maint", "the agent says maint"),
        (b"drain,maint", "the agent says maint"),
        (b"down#\xff\x00", "the agent says down: '\ufffd\\x00'"),
        (b"", "the agent sent an empty line; expected words such as up, down, drain or 75%"),
        (b"# up", "the agent sent an empty line; expected words such as up, down, drain or 75%"),
        (b"fine", "the agent said 'fine'; expected words such as up, down, drain or 75%"),
        (b"75 %", "the agent said '75 %'; expected words such as up, down, drain or 75%"),
        (b"-5%", "the agent said '-5%'; expected words such as up, down, drain or 75%"),
        (b"\xff\xfe", "the agent said '\ufffd\ufffd'; expected words such as up, down, drain or 75%"),
    ],
)
def test_down(line: bytes, reason: str) -> None:
    with pytest.raises(Down) as caught:
        judged(line)
    assert str(caught.value) == reason


@given(st.binary(max_size=1024))
def test_any_line_is_an_answer_fit_for_a_log(line: bytes) -> None:
    try:
        result = judged(line)
    except Down as exc:
        assert str(exc).isprintable() and len(str(exc)) < 300
    else:
        assert isinstance(result, Found) and result.detail.isprintable()
