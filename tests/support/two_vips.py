"""The smallest catalog in which one VIP may be in trouble and another not, and decisions about it."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from anycastlb.core.decision.decide import decide_again
from anycastlb.core.decision.remembered import FROM_SCRATCH, Remembered
from anycastlb.core.model import (
    Address,
    Announce,
    Backend,
    Catalog,
    Check,
    CheckState,
    Inputs,
    Memory,
    Policy,
    Result,
    Route,
    Service,
    Share,
    VirtualService,
)

ONE, TWO = ip_address("192.0.2.1"), ip_address("192.0.2.2")
REST = 130.0
"""When ``at_rest`` has decided last."""
UP, DOWN = (CheckState(ok, since=50.0, last=Result(ok, "seen", 0.1, 50.0)) for ok in (True, False))


def backend(number: int) -> Backend:
    address = ip_address(f"10.0.0.{number}")
    return Backend(f"b{number}", address, 80, Check("tcp", address, 80, (), 10, 1, 2, 1))


def service(name: str, vip: Address, *numbers: int, **route: Any) -> Service:
    announce = Announce(Share(1), route=Route(**route))
    return Service(name, (vip,), "tcp", 80, VirtualService("mh"), tuple(map(backend, numbers)), announce=announce)


WEB, API = service("web", ONE, 1, 2, 3, med=7), service("api", TWO, 4)
FIRST, SECOND, THIRD = WEB.backends
(FOURTH,) = API.backends
INPUTS = Inputs(
    Policy("lb1"),
    Catalog((WEB, API)),
    health={FIRST.check: UP, SECOND.check: UP, THIRD.check: DOWN, FOURTH.check: UP},
)
"""Of one service a backend is down: both VIPs are announced in the end."""


def at_rest(inputs: Inputs = INPUTS) -> Remembered:
    """The decision after which nothing changes any more: a VIP waits until all its backends had the time to come up."""
    last = decide_again(FROM_SCRATCH, inputs, Memory(), REST - 30)
    for turn in (20, 10, 0):
        last = decide_again(last, inputs, last.decision.memory, REST - turn)
    return last
