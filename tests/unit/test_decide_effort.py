"""What a cycle costs when one verdict of many turns: what the turned VIP costs, and little for each of the others."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from anycastlb.core.decision.comparison import UNCOMPARED, compare_again
from anycastlb.core.decision.decide import decide_again
from anycastlb.core.decision.remembered import FROM_SCRATCH
from anycastlb.core.model import (
    Backend,
    Catalog,
    Check,
    CheckState,
    Inputs,
    Memory,
    Result,
    Service,
    State,
    VirtualService,
)
from tests.support.effort import calls

FIRST = ip_address("192.0.2.0")
UP = CheckState(True, since=1.0, last=Result(True, "connected", 0.0, 1.0))
DOWN = CheckState(False, since=90.0, last=Result(False, "refused", 0.0, 90.0))
FEW, MANY = 20, 200
EACH = 100
"""Calls for each VIP that has nothing to do with it, at most. One that is decided takes several hundred."""


def service(number: int) -> Service:
    real = ip_address("10.0.0.0") + number
    backend = Backend("b", real, 80, Check("tcp", real, 80, (), 1, 1, 1, 1))
    return Service(f"s{number}", (FIRST + number,), "tcp", 80, VirtualService("mh"), (backend,))


def turned(vips: int) -> int:
    """The calls that one turned verdict takes, with so many VIPs."""
    services = tuple(map(service, range(vips)))
    checks = [one.backends[0].check for one in services]
    health = dict.fromkeys(checks, UP)
    inputs = Inputs(catalog=Catalog(services), health=health)
    last, memory = FROM_SCRATCH, Memory()
    for now in (100.0, 101.0, 102.0):
        last = decide_again(last, inputs, memory, now)
        memory = last.decision.memory
    assert len(last.decision.desired.routes) == vips
    actual = replace(State(), **{table: last.decision.desired.rows(table) for table in ("services", "destinations")})
    compared = compare_again(UNCOMPARED, actual, last.decision.desired)
    news = replace(inputs, health={**health, checks[-1]: DOWN})

    def cycle() -> None:
        made = decide_again(last, news, memory, 103.0)
        assert len(made.decision.desired.routes) == vips - 1
        compare_again(compared, actual, made.decision.desired)

    return calls(cycle)


def test_one_turned_verdict_costs_little_for_every_vip_that_it_does_not_concern() -> None:
    assert turned(MANY) - turned(FEW) < EACH * (MANY - FEW)
