"""May the VIP be announced, and why."""

from ipaddress import ip_address

import pytest

from anycastlb.gate import combine, step
from anycastlb.model import Announce, Gate, ServiceKey, ServiceVerdict, Share

KEY = ServiceKey("tcp", ip_address("192.0.2.1"), 80)


def service(name: str, is_open: bool, when: str = "any") -> tuple[Announce, ServiceVerdict]:
    reason = "1/1 backends up" if is_open else "0/1 backends up, needs 1"
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
    assert combine([service("a", True, "all"), service("b", False, "all")])[1] == "b: 0/1 backends up, needs 1"
    assert combine([service("a", False)])[1] == "0/1 backends up, needs 1", "alone it needs no name"


def test_it_closes_at_once_and_opens_after_hold_up_and_hold_down() -> None:
    gate, _, wake = step(None, True, "fine", 5, 60, 100.0)
    assert not gate.open and wake == 105.0, "hold_down is for a gate that was open"
    gate, reason, wake = step(gate, True, "fine", 5, 60, 105.0)
    assert gate.open and wake is None and reason == "fine"
    gate, reason, _ = step(gate, False, "0/1", 5, 60, 110.0)
    assert not gate.open and reason == "0/1"
    gate, reason, wake = step(gate, True, "fine", 5, 60, 120.0)
    assert not gate.open and wake == 170.0 and reason == "fine; hold_down: opens in 50.0 s"
    gate, _, _ = step(gate, False, "0/1", 5, 60, 168.0)
    gate, reason, wake = step(gate, True, "fine", 5, 60, 169.0)
    assert wake == 174.0 and "hold_up" in reason, "a break starts hold_up again"
    assert step(gate, True, "fine", 5, 60, 174.0)[0] == Gate(True, 174.0, 169.0)


@pytest.mark.parametrize(
    ("share", "total", "needed"),
    [(Share(2), 10, 2), (Share(percent=50), 3, 2), (Share(percent=1), 3, 1), (Share(percent=50), 0, 1)],
)
def test_min_backends(share: Share, total: int, needed: int) -> None:
    assert share.of(total) == needed
