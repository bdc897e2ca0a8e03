"""Which services' flows another node can take over, in the words an operator reads."""

from __future__ import annotations

import json
from typing import Any

import pytest

from anycastlb import catalog, takeover
from anycastlb.checks import PARAMS
from anycastlb.cli.judge import ANY_MARK, ANYWHERE
from anycastlb.model import Catalog, Entry, Service, Tree


def service(**document: Any) -> Service:
    text = {"vip": "192.0.2.10", "port": 80, "backends": {"b1": {"address": "10.1.0.1"}}, **document}
    found = catalog.parse(
        Tree({"services/web": Entry(json.dumps(text).encode())}), Catalog(), ANYWHERE, ANY_MARK, PARAMS
    )
    assert not found.problems
    return found.services[0]


@pytest.mark.parametrize(
    ("document", "places"),
    [
        ({}, []),
        ({"forward": "dr", "protocol": "udp"}, []),
        ({"forward": "gue"}, []),
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
    found = service(**document)
    assert [place for place, _ in takeover.lacks(found)] == places
    assert bool(takeover.told(found, sync=False)) == bool(places)
    assert takeover.only_caches(found) == (places in ([], ["one_packet"]))
    if places:
        assert takeover.told(found, sync=False).startswith(f"{places[0]}: another node cannot take over")
        assert "connection sync mends that" in takeover.told(found, sync=False)
        assert "covered by connection sync" in takeover.told(found, sync=True)


def test_time_outs_that_break_idle_flows() -> None:
    assert "idle for 120 s" in takeover.hasty(service(scheduler="rr"), 120)
    assert takeover.hasty(service(scheduler="rr"), 900) == takeover.hasty(service(scheduler="rr"), None) == ""
    assert takeover.hasty(service(), 10) == takeover.hasty(service(scheduler="rr", protocol="udp"), 10) == ""


def test_mixed_families() -> None:
    six = {"b6": {"address": "2001:db8::1"}}
    assert str(takeover.mixed(service(backends=six))) == "192.0.2.10"
    assert takeover.mixed(service(backends={**six, "b4": {"address": "10.1.0.1"}})) is None
    assert str(takeover.mixed(service(vip=["192.0.2.10", "2001:db8:2::1"]))) == "2001:db8:2::1"
