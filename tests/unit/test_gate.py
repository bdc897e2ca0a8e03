"""May the VIP be announced, and why."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from anycastlb.core.decision.gate import NEVER, GateFacts, GatePolicy, combine, enough, step
from anycastlb.core.model import Announce, Damping, Gate, Reason, ServiceKey, ServiceVerdict, Share

FINE, SHUT = Reason("backends_up", "fine"), Reason("too_few_backends", "0/1")
READY, UNREADY = GateFacts(True, FINE), GateFacts(False, SHUT)
KEY = ServiceKey("tcp", ip_address("192.0.2.1"), 80)


def service(name: str, is_open: bool, when: str = "any", **more: float) -> tuple[Announce, ServiceVerdict]:
    reason = Reason("backends_up", "1/1 backends up")
    if not is_open:
        reason = Reason("too_few_backends", "0/1 backends up, needs 1")
    verdict = ServiceVerdict(name, KEY, is_open, int(is_open), 1, 1, reason)
    return Announce(when=when), replace(verdict, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("services", "ready"),
    [
        ([service("a", True), service("b", False)], True),
        ([service("a", False), service("b", False)], False),
        ([service("a", True, "all"), service("b", False, "all")], False),
        ([service("a", True, "all"), service("b", True, "all")], True),
        ([service("a", True, "any"), service("b", False, "all")], False),
        ([service("a", False, "any"), service("b", True, "all")], True),
    ],
)
def test_any_and_all(services: list[tuple[Announce, ServiceVerdict]], ready: bool) -> None:
    assert combine(services)[0] is ready


def test_every_no_names_the_service_to_blame() -> None:
    assert combine([service("a", True, "all"), service("b", False, "all")])[1] == Reason(
        "too_few_backends", "b: 0/1 backends up, needs 1", "b"
    )
    assert combine([service("a", False)])[1].text == "0/1 backends up, needs 1", "alone it needs no name"


NEW_ONES = "stays open until its new backends are checked"


@pytest.mark.parametrize(
    ("services", "replaced", "ready", "reason"),
    [
        ([service("a", True)], False, True, Reason("backends_up", "1/1 backends up")),
        (
            [service("a", True), service("b", False)],
            False,
            True,
            Reason("backends_up", "a: 1/1 backends up; b: 0/1 backends up, needs 1", "a"),
        ),
        ([service("a", False, up=1)], False, False, Reason("too_few_backends", "0/1 backends up, needs 1")),
        ([service("a", False)], True, False, Reason("too_few_backends", "0/1 backends up, needs 1")),
        # One that waits for the new backends of an edit serves with some of the old ones, or with what it replaces.
        ([service("a", False, proving=5.0)], False, False, Reason("too_few_backends", "0/1 backends up, needs 1")),
        (
            [service("a", False, proving=5.0, up=1)],
            False,
            True,
            Reason("proving", f"0/1 backends up, needs 1; {NEW_ONES}"),
        ),
        ([service("a", False, proving=5.0)], True, True, Reason("proving", f"0/1 backends up, needs 1; {NEW_ONES}")),
        (
            [service("a", True), service("b", False, "all", proving=5.0)],
            False,
            True,
            Reason("proving", f"a: 1/1 backends up; b: 0/1 backends up, needs 1; {NEW_ONES}", "a"),
        ),
    ],
)
def test_what_waits_for_an_edit_blocks_nothing(
    services: list[tuple[Announce, ServiceVerdict]], replaced: bool, ready: bool, reason: Reason
) -> None:
    assert combine(services, replaced) == (ready, reason)


@pytest.mark.parametrize(
    ("waits", "code", "words", "at"),
    [
        ({}, "", "", None),
        ({"unsettled": 4.0}, "unsettled", "some backends are not checked yet", 104.0),
        ({"returning": 3.0}, "returning", "some backends may come up with the others", 103.0),
        ({"catching_up": 107.0}, "catching_up", "some backends that peers reach are not up here yet", 107.0),
        ({"unsettled": 4.0, "returning": 5.0}, "returning", "some backends may come up with the others", 105.0),
        ({"unsettled": 4.0, "catching_up": 99.0}, "unsettled", "some backends are not checked yet", 104.0),
    ],
)
def test_a_closed_gate_waits_for_the_latest_moment_and_says_for_which(
    waits: dict[str, float], code: str, words: str, at: float | None
) -> None:
    gate, reason, wake = step(None, GatePolicy(), replace(READY, **waits), 100.0)  # type: ignore[arg-type]
    assert (gate.open, wake) == (at is None, at)
    assert reason == (FINE if at is None else Reason(code, f"fine; {words}: opens in {at - 100.0:.1f} s"))
    already = Gate(True, 50.0, 50.0)
    assert step(already, GatePolicy(), replace(READY, **waits), 100.0) == (already, FINE, None), "it stays open"  # type: ignore[arg-type]


def test_a_withdrawal_is_written_down_where_the_budget_has_counted_it() -> None:
    closed, _, _ = step(Gate(True, 50.0, 50.0), GatePolicy(), replace(UNREADY, withdrawn_wall=7), 100.0)
    assert closed == Gate(False, 100.0, withdrawn_wall=7)
    assert step(closed, GatePolicy(), UNREADY, 101.0)[0] == closed, "and stays so"


def test_it_closes_at_once_and_opens_after_hold_up_and_hold_down() -> None:
    holds = GatePolicy(hold_up=5, hold_down=60)
    gate, _, wake = step(None, holds, READY, 100.0)
    assert not gate.open and wake == 105.0, "hold_down is for a gate that was open"
    gate, reason, wake = step(gate, holds, READY, 105.0)
    assert gate.open and wake is None and reason == FINE
    gate, reason, _ = step(gate, holds, UNREADY, 110.0)
    assert not gate.open and reason == SHUT
    gate, reason, wake = step(gate, holds, READY, 120.0)
    assert not gate.open and wake == 170.0 and reason == Reason("hold_down", "fine; hold_down: opens in 50.0 s")
    gate, _, _ = step(gate, holds, UNREADY, 168.0)
    gate, reason, wake = step(gate, holds, READY, 169.0)
    assert wake == 174.0 and reason.code == "hold_up", "a break starts hold_up again"
    gate, _, _ = step(gate, holds, READY, 174.0)
    assert gate.open and (gate.since, gate.ready_since) == (174.0, 169.0)


DAMPING = Damping(penalty=1000, half_life=60, suppress=2000, reuse=750, longest=600)
DAMPED = GatePolicy(damping=DAMPING)


def flap(times: int, start: float = 0.0, blame: bool = True) -> Gate:
    """Closed and opened again every second."""
    gate: Gate | None = Gate(True, NEVER, NEVER)
    for number in range(times):
        gate, _, _ = step(gate, DAMPED, replace(UNREADY, blame=blame), start + number)
        if number < times - 1:
            gate, _, _ = step(gate, DAMPED, READY, start + number + 0.5)
    assert gate is not None
    return gate


def test_a_gate_that_flaps_is_damped_and_reused() -> None:
    once = flap(1)
    assert once.penalty == 1000 and step(once, DAMPED, READY, 1.0)[0].open, "once is no flapping"
    often = flap(3)
    assert 2900 < often.penalty < 3000 and often.suppressed_since == 2.0
    gate, reason, wake = step(often, DAMPED, READY, 3.0)
    assert not gate.open and wake is not None and 100 < wake < 130, "log2(2966 / 750) half-lives of 60 s"
    assert reason.code == "damped" and "damped: penalty 29" in reason.text and "reuse 750" in reason.text
    gate, _, _ = step(gate, DAMPED, READY, wake + 0.001)
    assert gate.open and gate.suppressed_since is None


@pytest.mark.parametrize(
    ("gate", "damping", "after"),
    [
        (Gate(True, 50.0, 50.0), {}, (1000.0, 100.0, None)),
        # Exactly ``suppress`` is not above it.
        (Gate(True, 50.0, 50.0, 1000.0, 100.0), {}, (2000.0, 100.0, None)),
        (Gate(True, 50.0, 50.0, 1000.5, 100.0), {}, (2000.5, 100.0, 100.0)),
        # What was there before has decayed by one half-life, and by two.
        (Gate(True, 50.0, 50.0, 1000.0, 40.0), {}, (1500.0, 100.0, None)),
        (Gate(True, 50.0, 50.0, 8000.0, -20.0), {}, (3000.0, 100.0, 100.0)),
        # It is suppressed since the first time.
        (Gate(True, 50.0, 50.0, 2500.0, 100.0, 40.0), {}, (3500.0, 100.0, 40.0)),
        # The ceiling takes ``longest`` to decay to ``reuse``.
        (Gate(True, 50.0, 50.0, 9000.0, 100.0), {"longest": 180.0}, (6000.0, 100.0, 100.0)),
        (Gate(True, 50.0, 50.0, 1000.0, 99.0), {"half_life": 0.5}, (1250.0, 100.0, None)),
        # Nobody may divide by a half-life of 0, whatever a document says.
        (Gate(True, 50.0, 50.0, 1000.0, 100.0), {"half_life": 0.0}, (1000.0, 100.0, None)),
        # Less than a thousandth is nothing.
        (Gate(True, 50.0, 50.0, 0.002, 40.0), {}, (1000.001, 100.0, None)),
        (Gate(True, 50.0, 50.0, 0.0019, 40.0), {}, (1000.0, 100.0, None)),
    ],
)
def test_what_a_closing_adds(gate: Gate, damping: dict[str, float], after: tuple[float, float, float | None]) -> None:
    policy = GatePolicy(damping=replace(DAMPING, **damping))
    closed, _, _ = step(gate, policy, UNREADY, 100.0)
    assert (closed.penalty, closed.penalty_at, closed.suppressed_since) == after


@pytest.mark.parametrize(
    ("penalty", "damping", "at"),
    [
        (3000.0, {}, 220.0),
        (751.0, {}, pytest.approx(100.1153, abs=0.001)),
        (750.0, {}, None),
        (749.0, {}, None),
        (0.0, {}, None),
        (3000.0, {"longest": 25.0}, 115.0),
        # Below a ``reuse`` of 1 or of 0, whatever a document says.
        (4.0, {"reuse": 0.5}, 280.0),
        (3000.0, {"reuse": 0.0}, 690.0),
        (0.0, {"reuse": 0.0}, None),
    ],
)
def test_when_a_damped_gate_is_reused(penalty: float, damping: dict[str, float], at: float | None) -> None:
    policy = GatePolicy(damping=replace(DAMPING, **damping))
    suppressed = Gate(False, 90.0, 90.0, penalty, 100.0, suppressed_since=90.0)
    gate, reason, wake = step(suppressed, policy, READY, 100.0)
    assert (gate.open, wake) == (at is None, at)
    assert at is None or reason.code == "damped"
    undamped, _, _ = step(suppressed, GatePolicy(), READY, 100.0)
    assert undamped.open and undamped.penalty == 0, "without damping nothing holds it"
    assert step(replace(suppressed, suppressed_since=None), policy, READY, 100.0)[0].open


def test_a_gate_at_rest_is_left_alone() -> None:
    gate = Gate(True, 50.0, 50.0)
    assert step(gate, DAMPED, READY, 200.0)[0] == gate
    closed, _, _ = step(gate, DAMPED, UNREADY, 200.0)
    assert step(closed, DAMPED, UNREADY, 200.0)[0] == closed, "one that is closed already cannot close again"


def test_damping_never_lasts_longer_than_its_longest() -> None:
    gate = flap(50)
    _, _, wake = step(gate, DAMPED, READY, 50.0)
    assert wake is not None and wake <= 50 + DAMPING.longest


def test_an_operator_is_not_a_flap() -> None:
    assert flap(5, blame=False).penalty == 0


@pytest.mark.parametrize(
    ("threshold", "met", "words"),
    [
        (Share(2), True, "2/4 backends up"),
        (Share(3), False, "2/4 backends up, needs 3"),
        (Share(percent=60), False, "2/4 backends up, needs 3"),
        (Share(weight=150), True, "2/4 backends up, weight 150/400"),
        (Share(weight=200), False, "2/4 backends up, weight 150/400, needs 200"),
    ],
)
def test_thresholds(threshold: Share, met: bool, words: str) -> None:
    found, _, told = enough(threshold, 2, 4, 150, 400)
    assert (found, told) == (met, words)


@pytest.mark.parametrize(
    ("share", "total", "needed"),
    [(Share(2), 10, 2), (Share(percent=50), 3, 2), (Share(percent=1), 3, 1), (Share(percent=50), 0, 1)],
)
def test_min_backends(share: Share, total: int, needed: int) -> None:
    assert share.of(total) == needed
