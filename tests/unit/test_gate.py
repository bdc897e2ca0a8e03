"""May the VIP be announced, and why."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from anycastlb.core.decision.gate import NEVER, GateFacts, GatePolicy, combine, enough, step
from anycastlb.core.model import Announce, Damping, Gate, Reason, ServiceKey, ServiceVerdict, Share

FINE, SHUT = Reason("backends_up", "fine"), Reason("too_few_backends", "0/1")
READY, UNREADY = GateFacts(True, FINE), GateFacts(False, SHUT)
KEY = ServiceKey("tcp", ip_address("192.0.2.1"), 80)


def service(name: str, is_open: bool, when: str = "any") -> tuple[Announce, ServiceVerdict]:
    reason = Reason("backends_up", "1/1 backends up")
    if not is_open:
        reason = Reason("too_few_backends", "0/1 backends up, needs 1")
    return Announce(when=when), ServiceVerdict(name, KEY, is_open, int(is_open), 1, 1, reason)  # type: ignore[arg-type]


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
