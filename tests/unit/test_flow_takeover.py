"""Which services' flows another node can take over, in the words an operator reads."""

from __future__ import annotations

import json
from typing import Any

import pytest

from anycastlb.adapters.checks import PARAMS
from anycastlb.core.catalog.parse import ANY_MARK, ANYWHERE, parse_catalog
from anycastlb.core.decision import flow_takeover
from anycastlb.core.model import Catalog, Entry, Service, Tree


def service(**document: Any) -> Service:
    text = {"vip": "192.0.2.10", "port": 80, "backends": {"b1": {"address": "10.1.0.1"}}, **document}
    catalog = parse_catalog(
        Tree({"services/web": Entry(json.dumps(text).encode())}), Catalog(), ANYWHERE, ANY_MARK, PARAMS
    )
    assert not catalog.problems
    return catalog.services[0]


@pytest.mark.parametrize(
    ("document", "places"),
    [
        ({}, []),
        ({"forward": "dr", "protocol": "udp"}, []),
        ({"forward": "gue"}, []),
        ({"backends": {"b1": {"address": "10.1.0.1", "max_connections": 9}}}, ["backends"]),
        ({"forward": "nat"}, ["forward"]),
        ({"backends": {"b1": {"address": "10.1.0.1"}, "b2": {"address": "10.1.0.2", "forward": "nat"}}}, ["forward"]),
        ({"scheduler": "rr"}, ["scheduler"]),
        ({"scheduler": "sh"}, ["scheduler"]),
        ({"persistence": {"timeout": "5m"}}, ["persistence"]),
        ({"protocol": "udp", "one_packet": False}, ["one_packet"]),
        ({"protocol": "udp", "scheduler": "wrr"}, ["scheduler"]),
        ({"scheduler": "wlc", "forward": "nat", "persistence": {"timeout": "5m"}}, ["scheduler", "persistence",
                                                                                     "forward"]),
    ],
)  # fmt: skip
def test_what_another_node_lacks(document: dict[str, Any], places: list[str]) -> None:
    made = service(**document)
    assert [obstacle.object for obstacle in flow_takeover.obstacles(made)] == places
    assert bool(flow_takeover.warning(made, sync=False)) == bool(places)
    assert flow_takeover.only_caches(made) == (places in ([], ["one_packet"]))
    if places:
        alone, synced = flow_takeover.warning(made, sync=False), flow_takeover.warning(made, sync=True)
        assert alone is not None and synced is not None and alone.object == places[0]
        assert alone.text.startswith("another node cannot take over") and "connection sync mends that" in alone.text
        assert "covered by connection sync" in synced.text


@pytest.mark.parametrize(
    ("document", "codes"),
    [
        ({"scheduler": "sh"}, ["scheduler_sh"]),
        ({"scheduler": "rr"}, ["scheduler_local"]),
        ({"protocol": "udp", "one_packet": False}, ["one_packet"]),
        ({"protocol": "udp", "one_packet": False, "persistence": {"timeout": "5m"}}, ["persistence"]),
    ],
)
def test_why_it_lacks_them(document: dict[str, Any], codes: list[str]) -> None:
    assert [obstacle.code for obstacle in flow_takeover.obstacles(service(**document))] == codes


def test_time_outs_that_break_idle_flows() -> None:
    assert "idle for 120 s" in str(flow_takeover.timeout_warning(service(scheduler="rr"), 120))
    for fine, timeout in (
        (service(scheduler="rr"), 900),
        (service(scheduler="rr"), None),
        (service(), 10),
        (service(scheduler="rr", protocol="udp"), 10),
    ):
        assert flow_takeover.timeout_warning(fine, timeout) is None


def test_mixed_families() -> None:
    assert flow_takeover.mixed_warning(service(backends={})) is None
    six = {"b6": {"address": "2001:db8::1"}}
    assert str(flow_takeover.mixed_warning(service(backends=six))) == "192.0.2.10"
    assert flow_takeover.mixed_warning(service(backends={**six, "b4": {"address": "10.1.0.1"}})) is None
    assert str(flow_takeover.mixed_warning(service(vip=["192.0.2.10", "2001:db8:2::1"]))) == "2001:db8:2::1"
