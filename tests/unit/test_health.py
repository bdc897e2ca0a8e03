"""One fold: results in, verdict out."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anycastlb.core.decision.health import UNKNOWN, pause, step, verdict
from anycastlb.core.model import Check, CheckState, Reason, Result

GOOD, BAD = Result(True, "seen", 0.1, 1.0), Result(False, "no socket", 0.1, 1.0)


def fold(text: str, rise: int = 2, fall: int = 3, state: CheckState = UNKNOWN) -> CheckState:
    """``+`` is a good result, ``-`` a bad one; the n-th comes at second n."""
    for at, sign in enumerate(text):
        state = step(state, Result(sign == "+", "seen", 0.1, float(at)), rise, fall)
    return state


def test_the_first_result_is_believed() -> None:
    assert fold("+").up is True and fold("-").up is False and UNKNOWN.up is None


def test_thresholds_count_results_in_a_row() -> None:
    assert fold("+--").up is True
    assert fold("+---").up is False
    assert fold("+--+--+--").up is True, "failures are not summed up over successes"
    assert fold("-+").up is False
    assert fold("-++").up is True
    assert fold("-++").since == 2.0


@given(st.text("+-", min_size=1, max_size=40), st.integers(1, 5), st.integers(1, 5))
def test_streak(text: str, rise: int, fall: int) -> None:
    """The verdict turns exactly when its threshold of contradictions in a row is reached, and never otherwise."""
    state = UNKNOWN
    for at, sign in enumerate(text):
        before, ok = state, sign == "+"
        state = step(state, Result(ok, "seen", 0.1, float(at)), rise, fall)
        assert state.streak < (rise if not state.up else fall)
        if before.up is not None and state.up != before.up:
            threshold = rise if ok else fall
            assert text[max(0, at - threshold + 1) : at + 1] == sign * threshold


def test_the_unknown_count_as_they_did_before() -> None:
    assert shown(verdict(UNKNOWN, before=False)) == (False, "not_checked", "not checked yet")
    assert shown(verdict(UNKNOWN, before=True)) == (True, "not_checked", "not checked yet; up so far")
    assert shown(verdict(fold("-"), before=True))[::2] == (False, "down: seen"), "a result beats the past"


@pytest.mark.parametrize(
    ("state", "code", "text"),
    [
        (CheckState(None, last=BAD), "not_checked", "not checked yet: no socket"),
        (CheckState(True), "check_passed", ""),
        (CheckState(True, last=GOOD), "check_passed", "seen"),
        (CheckState(False), "check_failed", "down: "),
        (CheckState(False, last=BAD), "check_failed", "down: no socket"),
        (CheckState(False, last=BAD, unproven=GOOD), "check_failed", "down: no socket"),
        (CheckState(False, last=BAD, unproven=BAD), "check_unproven", "down: no socket"),
    ],
)
def test_why_a_backend_counts_as_it_does(state: CheckState, code: str, text: str) -> None:
    assert shown(verdict(state, before=False)) == (state.up is True, code, text)


def test_what_a_backend_asks_for_is_what_its_last_good_result_said() -> None:
    asking = step(UNKNOWN, Result(True, "seen", 0.1, 1.0, 40, True), 2, 3)
    assert asking.asks == (40, True)
    assert step(asking, Result(False, "gone", 0.1, 2.0, 7), 2, 3).asks == (40, True)
    assert step(asking, GOOD, 2, 3).asks == (None, False)


def shown(judged: tuple[bool, Reason]) -> tuple[bool, str, str]:
    up, reason = judged
    return up, reason.code, reason.text


def checked(fast: float | None = None, slow: float | None = None) -> Check:
    return Check("tcp", ip_address("10.0.0.1"), 80, (), 10.0, 1.0, 2, 3, fast, slow)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("+", 10),
        ("+++", 10),
        ("+-", 1),
        ("+--", 1),
        ("+---", 10),
        ("+----", 20),
        ("+-----", 40),
        ("+------", 60),
        ("+---+", 1),
        ("--+-", 20),
    ],
)
def test_fast_while_turning_slow_while_down(text: str, seconds: float) -> None:
    assert pause(checked(fast=1.0, slow=60.0), fold(text)) == seconds
    assert pause(checked(), fold(text)) == 10
    assert pause(checked(slow=1000.0), fold("----")) == 80, "it doubles with every failure"


def test_failures_are_kept_longer_than_successes() -> None:
    state = fold("+-" + "+" * 100)
    assert len(state.recent) == 10 and all(result.ok for result in state.recent)
    assert [result.ok for result in state.failures] == [False]
    assert [result.at for result in fold("-" * 30).failures] == [float(second) for second in range(20, 30)]
    good, count = state.record
    assert count == 100 and 98 < good <= 100
