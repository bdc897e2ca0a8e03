"""What a cycle costs when one verdict of many turns: what the turned VIP costs, and little for each of the others. And
when HAProxy dies: little for each of its pools."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from anycastlb.core.decision.comparison import UNCOMPARED, compare_again
from anycastlb.core.decision.decide import decide_again
from anycastlb.core.decision.http.pools import checks_of_pool
from anycastlb.core.decision.remembered import FROM_SCRATCH
from anycastlb.core.delta import Edited
from anycastlb.core.model import (
    Backend,
    Catalog,
    Change,
    Check,
    CheckState,
    Decision,
    Failure,
    Inputs,
    Memory,
    Policy,
    Reason,
    Result,
    Service,
    State,
    VirtualService,
)
from tests.support.effort import calls
from tests.support.http_tree import read

FIRST = ip_address("192.0.2.0")
UP = CheckState(True, since=1.0, last=Result(True, "connected", 0.0, 1.0))
DOWN = CheckState(False, since=90.0, last=Result(False, "refused", 0.0, 90.0))
FEW, MANY = 20, 200
EACH = 100
"""Calls for each VIP that has nothing to do with it, at most. One that is decided takes several hundred."""
OF_POOL = 40
"""Calls for each pool, at most, in the decision that withdraws its VIP for want of HAProxy."""


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


def test_a_changed_weight_copies_no_table_of_all_backends() -> None:
    services = list(map(service, range(MANY)))
    inputs = Inputs(catalog=Catalog(tuple(services)), health={one.backends[0].check: UP for one in services})
    last = FROM_SCRATCH
    for now in (100.0, 101.0, 102.0):
        last = decide_again(last, inputs, last.decision.memory, now)
    whole = tables(last.decision)
    for number in (7, 8, 7):
        (backend,) = services[number].backends
        services[number] = replace(services[number], backends=(replace(backend, weight=backend.weight - 30),))
        now += 1.0
        last = decide_again(last, replace(inputs, catalog=Catalog(tuple(services))), last.decision.memory, now)
        for name, table in tables(last.decision).items():
            assert isinstance(table, Edited) and table.parts[0] is whole[name], f"{name} was copied"
    weights = [row.weight for row in last.decision.desired.destinations.values()]
    assert weights == [100] * 7 + [40, 70] + [100] * (MANY - 9)


def tables(decision: Decision) -> Mapping[str, Mapping[Any, Any]]:
    """Those with a row for each backend that a new weight changes."""
    return {
        "destinations": decision.desired.destinations,
        "backends": decision.backends,
        "rows": decision.memory.rows,
    }


def without_haproxy(pools: int) -> int:
    """The calls of the decision that HAProxy has died under, with so many pools."""
    documents: dict[str, object] = {"gateways/web": {"vip": "192.0.2.1", "port": 80, "protocol": "http"}}
    for number in range(pools):
        backends = {"b": {"address": f"10.0.0.{number}"}}
        rules = [{"backendRefs": [{"name": f"p{number}"}]}]
        documents[f"services/p{number}"] = {"port": 80, "check": {"type": "tcp"}, "backends": backends}
        documents[f"routes/p{number}"] = {"gateways": ["web"], "hostnames": [f"p{number}.example"], "rules": rules}
    catalog = read(documents)
    health = {check: UP for pool in catalog.pools for check in checks_of_pool(pool)}
    inputs = Inputs(Policy("lb1", http=True), catalog=catalog, health=health)
    last, memory = FROM_SCRATCH, Memory()
    for now in (100.0, 101.0, 102.0):
        last = decide_again(last, inputs, memory, now)
        memory = last.decision.memory
    desired = last.decision.desired
    assert len(desired.routes) == 1 and len(desired.http_servers) == pools
    (row,) = desired.http_engine.values()
    away = Failure(Change("http_engine", "config", None, row), Reason("haproxy_away", "HAProxy is not running"))
    news = replace(inputs, failures=(away,))

    def cycle() -> None:
        assert not decide_again(last, news, memory, 103.0).decision.desired.routes

    return calls(cycle)


def test_the_death_of_haproxy_costs_little_for_every_pool() -> None:
    """R20: the decision comes before the route is withdrawn."""
    assert without_haproxy(MANY) - without_haproxy(FEW) < OF_POOL * (MANY - FEW)
