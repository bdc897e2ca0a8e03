"""Garbage in the KV is quarantined, named and harmless: the good service never notices."""

from __future__ import annotations

import json
import random
from typing import Any

from tests.lab.lab import Lab, document
from tests.lab.node import Node
from tests.lab.process import until
from tests.lab.topology import vip
from tests.support.two_nodes import BOTH, VIP, serve

NOISE = random.Random(1).randbytes(500_000)  # Consul itself refuses more than 512 KiB
OTHER = document(vip(1))
BAD: dict[str, tuple[str, Any, str]] = {
    "not JSON": ("services/bad1", b"{ vip: 192.0.2.11", "services/bad1"),
    "not UTF-8": ("services/bad2", b"\xff\xfe\x00{}", "services/bad2"),
    "an empty value": ("services/bad3", b"", "services/bad3"),
    "a list": ("services/bad4", [1, 2, 3], "services/bad4"),
    "wrong types": ("services/bad5", {**OTHER, "backends": ["b1"]}, "services/bad5 backends"),
    "a number for an address": ("services/bad6", {**OTHER, "vip": 3221225995}, "services/bad6 vip"),
    "a number for a duration": ("services/bad7", {**OTHER, "drain": 30}, "services/bad7 drain"),
    "an unknown field": ("services/bad8", {**OTHER, "shceduler": "rr"}, "services/bad8 shceduler"),
    "a port out of range": ("services/bad9", {**OTHER, "port": 99999}, "services/bad9 port"),
    "a vip outside the ranges": ("services/bada", {**OTHER, "vip": "203.0.113.9"}, "services/bada vip.0"),
    "the vip, port and protocol of another": ("services/x", document(VIP), "services/x vip"),
    "noise": ("services/badb", NOISE, "services/badb"),
    "deep nesting": ("services/badc", b"[" * 100_000, "services/badc"),
    "a backend of no service": ("services/badd/backends/b1", {"address": "10.1.0.1"}, "services/badd"),
    "bad defaults": ("defaults", b"no", "defaults"),
    "a key that means nothing": ("services/web/backend/b1", {}, "services/web/backend/b1"),
}


def test_garbage_is_named_and_harmless(lab: Lab) -> None:
    """All of it at once: every document has its own problem, and nothing of what is good changes."""
    serve(lab)
    nodes = list(lab.nodes.values())
    before = [node.ordered() for node in nodes]
    updates = lab.router.all_updates()

    for key, value, _ in BAD.values():
        lab.consul.put(f"anycastlb/{key}", value)
    for node in nodes:
        node.until(lambda node=node: _reported(node) == list(BAD), "every bad document is reported")
        problems = node.status()["problems"]
        assert all(item["expected"] for item in problems)
        assert max(len(json.dumps(item)) for item in problems) < 2000, "a megabyte of noise became a megabyte of report"
        assert node.total("anycastlb_catalog_problems") >= len(BAD)

    assert [node.ordered() for node in nodes] == before
    assert lab.router.all_updates() == updates
    assert lab.router.routes(VIP) == BOTH
    assert set(lab.client.spread(30, VIP)) == {"b1", "b2", "b3"}

    for key, _, _ in BAD.values():
        lab.consul.delete(f"anycastlb/{key}")
    for node in nodes:
        node.until(lambda node=node: not node.status()["problems"], "the problems are gone with their keys")


def _reported(node: Node) -> list[str]:
    """The names of the bad documents of which the node tells at their place."""
    places = [f"{item['key']} {item['path']}" for item in node.status()["problems"]]
    return [name for name, (_, _, named) in BAD.items() if any(place.startswith(named) for place in places)]


def test_a_service_that_becomes_bad_keeps_its_last_good_version(lab: Lab) -> None:
    serve(lab)
    updates = lab.router.all_updates()
    lab.put("web", {**document(VIP), "port": "eighty"})
    for node in lab.nodes.values():
        node.until(lambda node=node: node.status()["problems"], "the bad document is reported")
    assert set(lab.client.spread(30, VIP)) == {"b1", "b2", "b3"}
    assert lab.router.all_updates() == updates
    lab.put("web", document(VIP, port=8080))
    until(lambda: all(set(node.ipvs()) >= {f"tcp {VIP}:8080"} for node in lab.nodes.values()), "the new port")
    assert set(lab.client.spread(30, VIP, 8080)) == {"b1", "b2", "b3"}


def test_garbage_does_not_stop_what_comes_with_it(lab: Lab) -> None:
    for number in range(20):
        lab.put(f"bad{number}", f"garbage {number}")
    lab.put("web", document(VIP))
    lab.settle(VIP)
    assert lab.lb1.total("anycastlb_catalog_problems") == 20
    assert lab.lb1.http("/readyz")[0] == 200
