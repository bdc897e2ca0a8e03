"""Documents at the bounds of what is allowed: whatever parses can be decided, planned, written and published.

A document that only one part cannot bear is a poison: each node that reads it fails in the same way.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from anycastlb.adapters.checks import PARAMS
from anycastlb.adapters.cluster import status_bytes, status_document
from anycastlb.adapters.drivers.ipvs.requests import script
from anycastlb.bridge.protocol import RouteSet, decode_order, encode, fault
from anycastlb.core.catalog.parse import parse_catalog
from anycastlb.core.decision import plan
from anycastlb.core.decision.decide import adopt, decide
from anycastlb.core.model import (
    Catalog,
    Check,
    CheckState,
    Cluster,
    DnsPolicy,
    Entry,
    Feed,
    Inputs,
    Memory,
    Naming,
    Policy,
    Result,
    Share,
    Snapshot,
    State,
    Tree,
)
from anycastlb.engine.cycle_events import cycle_events
from anycastlb.engine.node import checks

RANGES = (ip_network("192.0.2.0/24"), ip_network("2001:db8:2::/64"))
VIPS = ["192.0.2.1", "192.0.2.2", "2001:db8:2::1"]
PAUSES = [0.0005, 0.1, 1.0, 10.0, 1000.0, 86400.0]


def optional(**fields: list[Any] | st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Any of these fields."""
    values = {name: st.sampled_from(field) if isinstance(field, list) else field for name, field in fields.items()}
    return st.fixed_dictionaries({}, optional=values)


durations = ["0s", "1ms", "10ms", "1s", "59s", "1h", "1d", "0.001s", "86400s"]
shares = [1, 2, 1000000, "1%", "50%", "100%", "0.0001%", "weight 1", "weight 999999999"]
dampings = st.fixed_dictionaries(
    {"half_life": st.sampled_from(["1s", "1d"]), "longest": st.sampled_from(["1d", "1s"])},
    optional={
        "penalty": st.sampled_from([1e-300, 1, 1000, 1e9]),
        "suppress": st.sampled_from([1000, 1e9]),
        "reuse": st.sampled_from([1e-320, 1e-300, 1, 750]),
    },
)
check_documents = optional(
    type=["tcp", "none", "http"],
    interval=["10ms", "2s", "1d"],
    timeout=["1ms", "1h"],
    rise=[1, 1000],
    fall=[1, 1000],
    down_interval=["10ms", "1d"],
    fast_interval=["10ms", "1d"],
    via=["direct", "forward"],
)
backend_documents = optional(
    port=[80, 65535],
    weight=[0, 1, 2, 10, 99, 65535, "100", 1e3],
    drain=[True, False],
    forward=["tunnel", "dr", "nat", "gue", "gre"],
    tunnel_port=[1, 65535],
    max_connections=[0, 2**31 - 1],
    fallback=[True, False],
    override=[0, 1, 65535],
    check=check_documents,
)
announcements = optional(
    min_backends=[1, 2, "0.0001%", "50%", "weight 1"],
    reopen=shares,
    when=["any", "all"],
    fail=["withdraw", "keep"],
    fallback=["withdraw", "keep"],
    last=["withdraw", "keep"],
    damping=dampings,
    hold_up=["0s", "1ms", "1s", "1d"],
    hold_down=["0s", "1ms", "1s", "1d"],
    communities=[["65535:65535", "0:0"]],
    large_communities=[["4294967295:0:0"]],
    med=[2**32 - 1],
    local_preference=[0],
    as_path_prepend=[10],
)
more_documents = optional(
    protocol=["tcp", "udp", "sctp"],
    scheduler=["mh", "rr", "sh", "wlc"],
    persistence=[{"timeout": "1s"}, {"timeout": "31d"}],
    check=check_documents,
    drain=durations,
    slow_start=["history", "1d", "1ms", "0s"],
    max_failed=[0, 1, "0%", "100%", "33.3%"],
    dns=[True, "name", {"ttl": "1d", "srv": "_http._tcp"}],
)
"""Beside what is always there, so that gates open and close in most examples."""


@st.composite
def service_documents(draw: st.DrawFn) -> dict[str, Any]:
    vips = draw(st.lists(st.sampled_from(VIPS), min_size=1, max_size=3, unique=True))
    where = draw(st.sampled_from([{"port": 80}, {"port": 443}, {"port": 65535}, {"fwmark": 7}]))
    family = "10.1.0.{}" if "." in vips[0] else "2001:db8:1::{}"
    count = draw(st.integers(1, 4))
    backends = {f"b{n}": {"address": family.format(n), **draw(backend_documents)} for n in range(1, count + 1)}
    more = {name: value for name, value in draw(more_documents).items() if name != "protocol" or "port" in where}
    return {"vip": vips, **where, "backends": backends, "announce": draw(announcements), **more}


@st.composite
def states(draw: st.DrawFn, wanted: set[Check], now: float) -> Mapping[Check, CheckState]:
    known = {}
    ups = draw(st.sampled_from([[True], [False], [True, False, None]]))
    for check in sorted(wanted, key=str):
        if (up := draw(st.sampled_from(ups))) is not None:
            asks = draw(st.sampled_from([None, 0, 1, 50, 100, 1000])), draw(st.booleans())
            known[check] = CheckState(up, since=now, last=Result(up, "seen", 0.0, now), asks=asks, record=(50.0, 100))
    return known


@settings(max_examples=200)
@given(st.lists(service_documents(), min_size=1, max_size=3), st.data())
def test_what_parses_can_be_borne_by_every_part(documents: list[dict[str, Any]], data: st.DataObject) -> None:
    entries = {f"services/s{n}": Entry(json.dumps(text).encode(), n + 1) for n, text in enumerate(documents)}
    catalog = parse_catalog(Tree(entries, 1), Catalog(), RANGES, ((1, 99),), PARAMS)
    assume(catalog.services)
    memory, actual, now, previous = Memory(), State(), 100.0, Snapshot()
    for _ in range(data.draw(st.integers(2, 6))):
        now += data.draw(st.sampled_from(PAUSES))
        inputs = Inputs(
            policy=Policy(
                "lb1",
                naming=Naming(DnsPolicy("x.", every=True), True),
                max_withdrawals=data.draw(st.sampled_from([None, Share(1)])),
            ),
            catalog=catalog,
            feed=Feed(loaded=True),
            health=data.draw(states(checks(catalog), now)),
            names={"dns_records": {}, "consul_services": {}},
            announced=frozenset(actual.routes),
            wall=1.8e9,
            cluster=Cluster(follows=True, connected=True),
        )
        if data.draw(st.booleans()):
            memory = adopt(actual, now, catalog=catalog)
        decision = decide(inputs, memory, now)
        assert not decision.faults
        assert decision.wake_at is None or decision.wake_at > now
        changes, faults = plan.compare(actual, decision.desired)
        assert not faults and len(changes) == len(set(changes))
        kernel = script([change for change in changes if change.table in ("services", "destinations")])
        assert not kernel.failures
        assert not [reason for vip, route in decision.desired.routes.items() if (reason := fault(vip, route, RANGES))]
        wanted = RouteSet(1, 15.0, decision.desired.routes)
        assert decode_order(encode(wanted).strip()) == wanted
        assert all(str(event.reason) is not None for event in cycle_events("lb1", previous, decision, changes, ()))
        memory, actual = decision.memory, decision.desired
        previous = Snapshot(inputs=inputs, actual=actual, decision=decision, cycle=1, at=now)
        status = status_document.summarise(previous)
        assert status_bytes.decode(status_bytes.encode(status), "lb1").vips == status.vips
