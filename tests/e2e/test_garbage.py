"""Garbage in the KV is quarantined, named and harmless: the good service never notices."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from tests.lab.lab import Lab, document
from tests.lab.process import until
from tests.lab.topology import vip
from tests.support.two_nodes import BOTH, VIP, serve

NOISE = random.Random(1).randbytes(500_000)  # Consul itself refuses more than 512 KiB
BAD: dict[str, tuple[str, Any, str]] = {
    "not JSON": ("services/bad", b"{ vip: 192.0.2.11", "services/bad"),
    "not UTF-8": ("services/bad", b"\xff\xfe\x00{}", "services/bad"),
    "an empty value": ("services/bad", b"", "services/bad"),
    "a list": ("services/bad", [1, 2, 3], "services/bad"),
    "wrong types": ("services/bad", {**document(vip(1)), "backends": ["b1"]}, "backends"),
    "a number for an address": ("services/bad", {**document(vip(1)), "vip": 3221225995}, "vip"),
    "a number for a duration": ("services/bad", {**document(vip(1)), "drain": 30}, "drain"),
    "an unknown field": ("services/bad", {**document(vip(1)), "shceduler": "rr"}, "shceduler"),
    "a port out of range": ("services/bad", {**document(vip(1)), "port": 99999}, "port"),
    "a vip outside the ranges": ("services/bad", {**document(vip(1)), "vip": "203.0.113.9"}, "vip.0"),
    "the vip, port and protocol of another": ("services/bad", document(VIP), "vip"),
    "noise": ("services/bad", NOISE, "services/bad"),
    "deep nesting": ("services/bad", b"[" * 100_000, "services/bad"),
    "a backend of no service": ("services/bad/backends/b1", {"address": "10.1.0.1"}, "services/bad"),
    "bad defaults": ("defaults", b"no", "defaults"),
    "a key that means nothing": ("services/web/backend/b1", {}, "services/web/backend/b1"),
}


@pytest.mark.parametrize("name", BAD)
def test_garbage_is_named_and_harmless(lab: Lab, name: str) -> None:
    key, value, named = BAD[name]
    serve(lab)
    nodes = list(lab.nodes.values())
    before = [node.ordered() for node in nodes]
    updates = lab.router.all_updates()

    lab.consul.put(f"anycastlb/{key}", value)
    for node in nodes:
        node.until(lambda node=node: node.status()["problems"], 5, "the bad document is reported")
        problems = node.status()["problems"]
        assert any(named in f"{item['key']} {item['path']}" for item in problems), problems
        assert all(item["expected"] for item in problems)
        assert len(json.dumps(problems)) < 5000, "a megabyte of noise became a megabyte of report"
        assert node.total("anycastlb_catalog_problems") >= 1

    assert [node.ordered() for node in nodes] == before
    assert lab.router.all_updates() == updates
    assert lab.router.routes(VIP) == BOTH
    assert set(lab.client.spread(30, VIP)) == {"b1", "b2", "b3"}

    lab.consul.delete(f"anycastlb/{key}")
    for node in nodes:
        node.until(lambda node=node: not node.status()["problems"], 5, "the problem is gone with its key")


def test_a_service_that_becomes_bad_keeps_its_last_good_version(lab: Lab) -> None:
    serve(lab)
    updates = lab.router.all_updates()
    lab.put("web", {**document(VIP), "port": "eighty"})
    for node in lab.nodes.values():
        node.until(lambda node=node: node.status()["problems"], 5, "the bad document is reported")
    assert set(lab.client.spread(30, VIP)) == {"b1", "b2", "b3"}
    assert lab.router.all_updates() == updates
    lab.put("web", document(VIP, port=8080))
    until(lambda: all(set(node.ipvs()) >= {f"tcp {VIP}:8080"} for node in lab.nodes.values()), 5, "the new port")
    assert set(lab.client.spread(30, VIP, 8080)) == {"b1", "b2", "b3"}


def test_garbage_does_not_stop_what_comes_with_it(lab: Lab) -> None:
    for number in range(20):
        lab.put(f"bad{number}", f"garbage {number}")
    lab.put("web", document(VIP))
    lab.settle(VIP)
    assert lab.lb1.total("anycastlb_catalog_problems") == 20
    assert lab.lb1.http("/readyz")[0] == 200
