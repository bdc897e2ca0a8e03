"""Mutants of what other programs wrote: KgLb's configuration, GORB's store and ELB's etcd.

What is made of one is a catalog without a problem, or the text as a whole is refused; what stands beside the mutant is
not lost by it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeAlias

from anycastlb.adapters.checks import PARAMS
from anycastlb.cli import formats
from anycastlb.core.catalog.parse import ANY_MARK, ANYWHERE, parse_catalog
from anycastlb.core.importers import Documents, UnreadableInput
from anycastlb.core.model import Catalog, Entry, Tree
from tests.fuzz.mutation import Mutator, may_raise
from tests.support.elb_dump import DUMP
from tests.support.gorb_store import SERVICE, exported

Import: TypeAlias = tuple[formats.Format, str, str]
"""The program, its text, and the key of the document beside the mutant, if the text is whole."""
CHECKERS: Sequence[dict[str, Any]] = (
    {"http": {"scheme": "https", "uri": "/health", "codes": [200], "headers": {"Host": "a.example", "X": "1"}}},
    {"http": {"scheme": "http", "proxy_check_url": "http://a.example/", "codes": [200], "follow_redirects": True}},
    {"dns": {"query_string": "a.example.", "query_type": "NS", "protocol": "UDP", "rcode": 0}},
    {"syslog": {"log_level": 46, "port": 601, "protocol": 1, "check_timeout_ms": 700}},
    {"dummy": {}},
)
BESIDE = 9
"""The number of the balancer that stays as it is."""
ELB = json.loads(DUMP)
PULSE = {"type": "http", "interval": "5s", "args": {"path": "/health", "expect": 200, "host": "10.1.0.9"}}
STORE: dict[str, Any] = {
    "lb/services/web": SERVICE | {"persistent": True, "flags": "sh-port", "method": "sh"},
    "lb/backends/b1": {"host": "10.1.0.1", "port": 80, "weight": 5, "method": "tunnel", "pulse": PULSE, "vsid": "web"},
}


def balancer(number: int) -> dict[str, Any]:
    """A good one of KgLb's."""
    checker = CHECKERS[number % len(CHECKERS)]
    vip = {"ipv4": f"192.0.2.{number + 1}"}
    kind = "udp_attributes" if number % 5 == 2 else "tcp_attributes"
    return {
        "name": f"b{number}", "setupName": "edge",
        "lbService": {"ipvs_service": {kind: {"address": vip, "port": 80}, "scheduler": "WRR", "flags": ["SH_PORT"]}},
        "upstreamRouting": {"forwardMethod": "MASQ"},
        "upstreamDiscovery": {"port": 80, "static_attributes": {"hosts": ["10.1.0.1", "10.1.0.2", "a.example"]}},
        "upstreamChecker": {"intervalMs": 1000, "riseCount": 1, "fallCount": "2", "checker": checker},
        "enableFwmarks": number % 2 == 0, "weightUp": 10,
        "dynamicRouting": {"announceLimitRatio": 0.5, "bgpAttributes": {
            "localAsn": 65001, "peerAsn": 65000, "community": "65001:1 65001:2", "prefix": vip, "prefixlen": 32}},
    }  # fmt: skip


def make(mutator: Mutator) -> Sequence[Import]:
    return (
        _kglb(mutator),
        _gorb(mutator),
        ("elb", mutator.written(mutator.mutant(ELB)).decode(errors="replace"), ""),
    )


def _kglb(mutator: Mutator) -> Import:
    config = {"balancers": [mutator.mutant(balancer(mutator.chance.randrange(len(CHECKERS)))), balancer(BESIDE)]}
    if mutator.chance.random() < 0.7:
        return "kglb", json.dumps(config), f"services/b{BESIDE}"
    return "kglb", mutator.written(config).decode(errors="replace"), ""


def _gorb(mutator: Mutator) -> Import:
    """A value is mutated, and at times what Consul prints."""
    key = mutator.chance.choice(list(STORE))
    value = mutator.written(mutator.mutant(STORE[key])).decode(errors="replace")
    export = exported({**STORE, key: value})
    if mutator.chance.random() < 0.7:
        return "gorb", export, "services/web" if "backends" in key else ""
    return "gorb", mutator.written(mutator.mutant(json.loads(export))).decode(errors="replace"), ""


def judge(imports: Sequence[Import]) -> None:
    for kind, text, beside in imports:
        with may_raise(UnreadableInput):
            documents, notes = formats.read(text, kind)
            assert all(len(note) < 1000 for note in notes)
            assert not beside or beside in documents, "what was beside the mutant is lost"
            whole: Documents = {**documents, **({"gateways/web": formats.LISTENER} if kind == "elb" else {})}
            tree = Tree({key: Entry(json.dumps(document).encode()) for key, document in whole.items()})
            catalog = parse_catalog(tree, Catalog(), ANYWHERE, ANY_MARK, PARAMS)
            assert not catalog.problems and catalog.good.keys() == whole.keys()
