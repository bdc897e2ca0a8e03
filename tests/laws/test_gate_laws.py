"""The gate keeps its promises through any history of looks, and thresholds never punish health."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anycastlb.core.decision.gate import NEVER, GateFacts, GatePolicy, enough, penalty, step
from anycastlb.core.model import Damping, Gate, Reason, Share

SECONDS = st.sampled_from([0.0, 0.1, 1.0, 5.0, 30.0, 90.0])
DAMPING = Damping(penalty=1000, half_life=30, suppress=2000, reuse=750, longest=120)
LOOKS = st.lists(st.tuples(SECONDS, st.booleans(), st.booleans()), min_size=1, max_size=30)
HOLDS = st.sampled_from([0.0, 5.0, 60.0])


WHY = Reason("backends_up", "why")
READY = GateFacts(True, WHY)
NEW = Gate(open=False, since=NEVER)


def replay(looks, **rules):
    """Every (now, ready, gate before, gate after, wake) of a history."""
    gate, now, policy = None, 100.0, GatePolicy(**rules)
    for pause, ready, blame in looks:
        now += pause
        before = gate
        gate, reason, wake = step(gate, policy, GateFacts(ready, WHY, blame=blame), now)
        assert reason
        yield now, ready, before, gate, wake


@given(LOOKS, HOLDS, HOLDS, st.sampled_from([None, DAMPING]))
def test_open_only_while_ready_and_closed_at_once(looks, hold_up, hold_down, damping) -> None:
    for _, ready, _, gate, _ in replay(looks, hold_up=hold_up, hold_down=hold_down, damping=damping):
        assert ready or not gate.open


@given(LOOKS, HOLDS, HOLDS)
def test_holds(looks, hold_up, hold_down) -> None:
    """It opens neither before it was ready for hold_up, nor before it was closed for hold_down."""
    for now, _, before, gate, _ in replay(looks, hold_up=hold_up, hold_down=hold_down):
        if gate.open and not (before and before.open):
            assert now - gate.ready_since >= hold_up
            assert before is None or before.since == NEVER or now - before.since >= hold_down


@given(LOOKS, HOLDS, HOLDS, st.sampled_from([None, DAMPING]))
def test_it_opens_when_it_said_it_would(looks, hold_up, hold_down, damping) -> None:
    rules = {"hold_up": hold_up, "hold_down": hold_down, "damping": damping}
    *_, (now, ready, _, gate, wake) = replay(looks, **rules)
    assert (wake is not None) == (ready and not gate.open), "a closed gate that is ready knows its hour"
    if wake is not None:
        assert wake > now
        assert not step(gate, GatePolicy(**rules), READY, now + 0.9 * (wake - now))[0].open
        assert step(gate, GatePolicy(**rules), READY, wake + 0.001)[0].open


@given(LOOKS)
def test_the_penalty_is_bounded_and_only_decays_by_itself(looks) -> None:
    ceiling = DAMPING.reuse * 2 ** (DAMPING.longest / DAMPING.half_life)
    for now, _, before, gate, _ in replay(looks, damping=DAMPING):
        assert 0 <= gate.penalty <= ceiling
        flapped = before is not None and before.open and not gate.open
        assert flapped or gate.penalty == pytest.approx(penalty(before or NEW, DAMPING, now))


@given(LOOKS)
def test_damping_ends(looks) -> None:
    """Whatever happened, a gate that is ready from now on opens within ``longest``."""
    *_, (now, _, _, gate, _) = replay(looks, damping=DAMPING)
    gate, _, wake = step(gate, GatePolicy(damping=DAMPING), READY, now)
    assert gate.open or (wake is not None and wake <= now + DAMPING.longest + 0.001)


@given(LOOKS, SECONDS)
def test_looking_twice_changes_nothing(looks, later) -> None:
    *_, (now, ready, _, gate, _) = replay(looks, hold_up=5.0, damping=DAMPING)
    again, _, _ = step(gate, GatePolicy(hold_up=5.0, damping=DAMPING), GateFacts(ready, WHY), now)
    assert again == gate


@given(
    st.sampled_from([Share(1), Share(3), Share(percent=50), Share(percent=100), Share(weight=150), Share(weight=1)]),
    st.integers(0, 6),
    st.integers(0, 6),
    st.integers(0, 6),
)
def test_one_more_up_never_closes(threshold: Share, up: int, more: int, rest: int) -> None:
    total = up + more + rest
    fewer, _, _ = enough(threshold, up, total, up * 50, total * 50)
    richer, _, _ = enough(threshold, up + more, total, (up + more) * 50, total * 50)
    assert richer or not fewer
    assert up or not fewer, "nothing up is never enough"


EXTREME = st.sampled_from([0.0, 1e-9, 1.0, 60.0, 86400.0, 1e9, 1e300, float("inf")])


@given(
    st.builds(Damping, penalty=EXTREME, half_life=EXTREME, suppress=EXTREME, reuse=EXTREME, longest=EXTREME),
    LOOKS,
    EXTREME,
    EXTREME,
)
def test_no_value_whatever_makes_a_gate_raise(damping: Damping, looks, hold_up, hold_down) -> None:
    """Documents are judged elsewhere; arithmetic must not end the daemon, whatever got past that."""
    for now, ready, before, gate, _ in replay(looks, damping=damping, hold_up=hold_up, hold_down=hold_down):
        assert ready or not gate.open
        assert penalty(before or NEW, damping, now) >= 0 and penalty(gate, damping, now - 1e9) >= 0


@given(st.floats(1, 86400), st.floats(1, 86400), LOOKS)
def test_every_legal_damping_ends(half_life: float, longest: float, looks) -> None:
    damping = Damping(penalty=1000, half_life=half_life, suppress=2000, reuse=750, longest=longest)
    *_, (now, _, _, gate, _) = replay(looks, damping=damping)
    gate, _, wake = step(gate, GatePolicy(damping=damping), READY, now)
    assert gate.open or (wake is not None and wake <= now + longest + 0.001)
