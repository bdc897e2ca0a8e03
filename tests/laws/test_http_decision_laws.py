"""The laws of decisions with gateways: a step by step decision is the one from scratch, and plans lead to it."""

from __future__ import annotations

import json
from functools import cache
from ipaddress import ip_network
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from anycastlb.adapters.checks import PARAMS
from anycastlb.core.catalog.parse import parse_catalog
from anycastlb.core.decision import plan
from anycastlb.core.decision.decide import adopt, decide, decide_again
from anycastlb.core.decision.http.passive import FAILED
from anycastlb.core.decision.http.pools import HEAVIEST, checks_of_pool
from anycastlb.core.decision.proof import differences
from anycastlb.core.decision.remembered import FROM_SCRATCH
from anycastlb.core.model import (
    HTTP_TABLES,
    Catalog,
    Change,
    CheckState,
    Entry,
    Failure,
    Inputs,
    Memory,
    PassiveFailure,
    Policy,
    Reason,
    Result,
    State,
    Tree,
)
from anycastlb.core.model.announce import most_failed
from tests.support.decisions import differences as all_differences

RANGES = (ip_network("192.0.2.0/24"),)
NAMES = ("blog", "shop")
POOLS: tuple[dict[str, Any], ...] = (
    {},
    {"backends": {"b1": {"address": "10.0.0.1"}}},
    {"backends": {"b1": {"address": "10.0.0.1", "weight": 1000}, "b2": {"address": "10.0.0.2", "drain": True}}},
    {"backends": {"b1": {"address": "10.0.0.1"}, "b3": {"address": "10.0.0.3"}}, "max_failed": "50%"},
    {"backends": {"b4": {"address": "10.0.0.4"}, "b5": {"address": "10.0.0.5", "fallback": True}}, "slow_start": "5s"},
)
WHEN = ("any", "all", "critical")


@cache
def catalog(pools: tuple[int, ...], gateway: int, routes: tuple[bool, bool], service: bool) -> Catalog:
    """``gateway``: how many of ``WHEN``, or 3 for none at all."""
    documents: dict[str, Any] = {}
    for name, number in zip(NAMES, pools, strict=True):
        documents[f"services/{name}"] = {"port": 80, "check": {"type": "tcp"}, "drain": "3s", **POOLS[number]}
    if gateway < len(WHEN):
        announce = {"when": WHEN[gateway]}
        documents["gateways/web"] = {
            "vip": "192.0.2.1", "port": 80, "protocol": "http", "announce": announce, "drain": "4s",
        }  # fmt: skip
    for name, there in zip(NAMES, routes, strict=True):
        if there:
            rule = {"backendRefs": [{"name": name}]}
            documents[f"routes/{name}"] = {
                "gateways": ["web"], "hostnames": [f"{name}.example"], "rules": [rule], "critical": name == "shop",
            }  # fmt: skip
    if service:
        documents["services/plain"] = {"vip": "192.0.2.1", "port": 53, "check": {"type": "tcp"},
                                       "backends": {"b1": {"address": "10.0.0.1"}}}  # fmt: skip
    entries = {key: Entry(json.dumps(value).encode()) for key, value in documents.items()}
    return parse_catalog(Tree(entries), Catalog(), RANGES, (), PARAMS)


CATALOGS = st.builds(
    catalog,
    st.tuples(*[st.integers(0, len(POOLS) - 1)] * 2),
    st.integers(0, 3),
    st.tuples(st.booleans(), st.booleans()),
    st.booleans(),
)
EVENTS = st.one_of(
    st.tuples(st.just("catalog"), CATALOGS),
    st.tuples(st.just("health"), st.integers(0, 63)),
    st.tuples(st.just("health"), st.sampled_from([0, 63])),
    st.tuples(st.just("passive"), st.integers(0, 63)),
    st.tuples(st.just("away"), st.booleans()),
    st.tuples(st.just("time"), st.sampled_from([0.1, 1.0, 3.5, 10.0])),
    st.tuples(st.just("stop")),
)
HTTP = Policy("lb1", http=True)


def refused(state: State, reason: Reason) -> tuple[Failure, ...]:
    """Every row of HAProxy that could not be made."""
    rows = [(table, key, row) for table in HTTP_TABLES for key, row in state.rows(table).items()]
    return tuple(Failure(Change(table, key, None, row), reason) for table, key, row in rows)


def passive(catalog: Catalog, failing: int, now: float) -> dict[str, Any]:
    """The backends that fail requests of clients, by the bits of ``failing``; until 3 s from now."""
    failure = PassiveFailure(now, now + 3.0, "4 of 9 requests failed")
    pools: dict[str, Any] = {}
    for place, (name, backend) in enumerate((pool.name, one) for pool in catalog.pools for one in pool.backends):
        if failing >> place & 1:
            pools.setdefault(name, {})[backend.address, backend.port] = failure
    return pools


def after(inputs: Inputs, event: tuple[Any, ...], now: float, desired: State) -> Inputs:
    values: dict[str, Any] = {}
    match event:
        case "catalog", found:
            values["catalog"] = found
        case "health", ups:
            checks = [check for pool in inputs.catalog.pools for check in checks_of_pool(pool)]
            results = {check: bool(ups >> place & 1) for place, check in enumerate(dict.fromkeys(checks))}
            values["health"] = {
                check: known
                if (known := inputs.health.get(check)) is not None and known.up is up
                else CheckState(up, 0, now, Result(up, "tried", 0.0, now))
                for check, up in results.items()
            }
        case "passive", failing:
            values["passive"] = passive(inputs.catalog, failing, now)
        case "away", away:
            values["failures"] = refused(desired, Reason("haproxy_away", "it is away")) if away else ()
        case ("stop",):
            values["stopping"] = True
    return Inputs(**{**{name: getattr(inputs, name) for name in Inputs.__slots__}, **values})


@given(st.lists(EVENTS, max_size=12))
def test_each_decision_is_the_one_from_scratch_and_plans_lead_to_it(events: list[tuple[Any, ...]]) -> None:
    now, memory = 100.0, adopt(State(), 100.0)
    inputs, last, state = Inputs(HTTP), FROM_SCRATCH, State()
    for event in (("time", 0.0), *events):
        now += event[1] if event[0] == "time" else 0.5
        inputs = after(inputs, event, now, state)
        for _ in range(2):  # the second decision has nothing new, and may use all of the first
            made = decide_again(last, inputs, memory, now)
            assert not all_differences(made.decision, decide(inputs, memory, now))
            last, memory = made, made.decision.memory
        desired = made.decision.desired
        for change in plan.diff(state, desired):
            state = plan.apply(state, change)
        assert state == desired and plan.diff(state, desired) == ()
        assert all(0 <= row.weight <= HEAVIEST for row in desired.http_servers.values())
        if away := [one for one in inputs.failures if one.change.table == "http_engine"]:
            closed = {key.address for one in away for key in one.change.new.listens}
            gateways = {vip for one in inputs.catalog.gateways for vip in one.vips} & closed
            others = {vip for one in inputs.catalog.services for vip in one.vips}
            assert not [vip for vip in gateways - others if made.decision.verdicts[vip].open]


@given(CATALOGS)
def test_what_nothing_has_changed_about_is_the_same_object(found: Catalog) -> None:
    inputs, memory, last = Inputs(HTTP, catalog=found), Memory(), FROM_SCRATCH
    for _ in range(3):
        last = decide_again(last, inputs, memory, 100.0)
        memory = last.decision.memory
    again = decide_again(last, inputs, memory, 100.0)
    for table in HTTP_TABLES:
        assert again.decision.desired.rows(table) is last.decision.desired.rows(table)
    assert again.decision.http is last.decision.http


@given(CATALOGS, st.floats(0.0, 50.0))
def test_without_http_gateways_are_nothing_at_all(found: Catalog, now: float) -> None:
    """Neither their documents nor those of routes and pools change anything about a node that does not serve them."""
    bare = Catalog(services=found.services)
    one, other = (decide(Inputs(Policy("lb1"), catalog=each), Memory(), now) for each in (found, bare))
    assert not differences(one, other)
    assert all(not one.desired.rows(table) for table in HTTP_TABLES)


@given(CATALOGS, st.integers(0, 63), st.integers(0, 63))
def test_no_passive_failure_closes_anything_or_breaks_a_floor(found: Catalog, ups: int, failing: int) -> None:
    without = after(Inputs(HTTP, catalog=found), ("health", ups), 100.0, State())
    having = after(without, ("passive", failing), 100.0, State())
    plain, made = (decide(inputs, Memory(), 100.0).http for inputs in (without, having))
    assert {name: route.open for name, route in made.routes.items()} == {
        name: route.open for name, route in plain.routes.items()
    }
    assert {name: one.open for name, one in made.gateways.items()} == {
        name: one.open for name, one in plain.gateways.items()
    }
    for pool in found.pools:
        before, now = plain.pools[pool.name], made.pools[pool.name]
        assert now.serves == before.serves
        weights = [{name: one.weight for name, one in each.backends.items()} for each in (before, now)]
        lost = {name for name, weight in weights[0].items() if weight and not weights[1][name]}
        assert lost == {name for name, one in now.backends.items() if one.reason.code == FAILED}
        assert len(lost) <= max(1, len(pool.backends) // 2) and (not lost or any(weights[1].values()))
        if pool.max_failed is not None:
            down = sum(not weight for weight in weights[1].values())
            assert not lost or down <= most_failed(pool.max_failed, len(pool.backends))
    over = after(having, ("time",), 103.0, State())
    assert not all_differences(decide(over, Memory(), 103.0), decide(without, Memory(), 103.0))
