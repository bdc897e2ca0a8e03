"""The laws of reading a catalog step by step: with a memory of the steps before, it is what it is without.

Histories are of two services and few values, so that documents go bad and good again, services claim each other's VIP,
backends come by keys of their own and by discovery, and the catalog in force is not always the one read last.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from anycastlb.adapters.checks import PARAMS
from anycastlb.core.catalog.keys import sorted_keys
from anycastlb.core.catalog.memory import CatalogMemory
from anycastlb.core.catalog.parse import parse_catalog
from anycastlb.core.model import Catalog, ConsulInstances, Entry, Instance, Tree

RANGES = (ip_network("192.0.2.0/24"),)
POOLS = [ConsulInstances("pool"), ConsulInstances("other")]

addresses = st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3", "nowhere"])
backends = st.fixed_dictionaries({"address": addresses}, optional={"weight": st.sampled_from([10, 100, -1])})
documents = st.fixed_dictionaries(
    {"vip": st.sampled_from(["192.0.2.1", "192.0.2.2", ["192.0.2.1", "192.0.2.2"], "198.51.100.1"])},
    optional={
        "port": st.sampled_from([80, 443]),
        "backends": st.dictionaries(st.sampled_from(["b1", "b2"]), backends, max_size=2),
        "backends_from": st.sampled_from([{"consul": {"service": pool.service}} for pool in POOLS]),
        "check": st.sampled_from([{"type": "none"}, {"type": "tcp"}, {"type": "nonsense"}]),
        "strange": st.just(1),
    },
)
pools = st.fixed_dictionaries(
    {"port": st.just(80)},
    optional={"backends": st.dictionaries(st.just("b1"), backends, max_size=1), "balance": st.just("leastconn")},
)
gateways = st.fixed_dictionaries(
    {
        "vip": st.sampled_from(["192.0.2.1", "192.0.2.2"]),
        "port": st.sampled_from([80, 443]),
        "protocol": st.just("http"),
    },
    optional={"spread": st.sampled_from(["none", "nonsense"])},
)
routes = st.builds(
    lambda hostnames, pool: {"gateways": ["g"], "hostnames": hostnames, "rules": [{"backendRefs": [{"name": pool}]}]},
    st.lists(st.sampled_from(["a.example", "b.example", "nonsense/"]), min_size=1, max_size=2, unique=True),
    st.sampled_from(["web", "web-2"]),
)
VALUES: Mapping[str, st.SearchStrategy[Any]] = {
    "services/web": documents,
    "services/web-2": documents | pools,
    "gateways/g": gateways,
    "gateways/h": gateways,
    "routes/r": routes,
    "routes/s": routes,
    "services/web/backends/b1": backends,
    "services/web/backends/b3": backends,
    "services/web-2/backends/b1": backends,
    "defaults": st.sampled_from([{"port": 80}, {"port": 443, "check": {"type": "none"}}, {"port": "many"}, []]),
    "drain/lb1": st.sampled_from([{}, {"reason": "disk"}, {"strange": 1}]),
    "stray": st.just({}),
}
instances = st.lists(st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.9"]), unique=True, max_size=2).map(
    lambda found: tuple(Instance(f"i-{address}", ip_address(address)) for address in found)
)
known = st.dictionaries(st.sampled_from(POOLS), instances)


@st.composite
def edits(draw: st.DrawFn) -> tuple[str, Any]:
    key = draw(st.sampled_from(list(VALUES)))
    return key, draw(st.none() | VALUES[key])


steps = st.tuples(st.lists(edits(), max_size=3), st.none() | known, st.booleans())
"""Edits (None deletes), the instances if they change, and whether the catalog that is read then comes into force."""


class History:
    """A tree that is edited; entries that are not keep their objects."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.index = 0

    def edit(self, changes: list[tuple[str, Any]]) -> Tree:
        for key, value in changes:
            self.index += 1
            before = self.entries.pop(key, None)
            if value is not None:
                created = before.created if before else self.index
                self.entries[key] = Entry(json.dumps(value).encode(), created, version=str(self.index))
        return Tree(dict(self.entries), self.index)


@given(st.lists(steps, min_size=1, max_size=8))
def test_a_catalog_read_with_a_memory_is_the_one_read_from_scratch(history: list[Any]) -> None:
    memory, past, in_force, found = CatalogMemory(), History(), Catalog(), {}
    for changes, discovered, applied in history:
        tree, found = past.edit(changes), found if discovered is None else discovered
        catalog = parse_catalog(tree, in_force, RANGES, (), PARAMS, found, memory)
        assert catalog == parse_catalog(tree, in_force, RANGES, (), PARAMS, found)
        for kind in ("services", "pools", "gateways", "routes"):
            before = {value.name: value for value in getattr(in_force, kind)}
            for value in getattr(catalog, kind):
                assert value is before.get(value.name) or value != before.get(value.name)
        claims = [claim for service in catalog.services for claim in map(service.key, service.vips)]
        claims += [claim for gateway in catalog.gateways for claim in gateway.claims()]
        assert len(set(claims)) == len(claims)
        hosts = [host for route in catalog.routes for host in route.hostnames]
        assert len(set(hosts)) == len(hosts)
        in_force = catalog if applied else in_force


@given(st.lists(steps, min_size=1, max_size=8))
def test_the_keys_of_a_tree_are_sorted_as_from_scratch(history: list[Any]) -> None:
    past, keys = History(), sorted_keys(Tree())
    for changes, _, _ in history:
        tree = past.edit(changes)
        before, keys = keys, sorted_keys(tree, keys)
        assert keys == sorted_keys(tree)
        for name, own in keys.services.items():
            old = before.services.get(name, {})
            assert own is old or any(old.get(key) is not own.get(key) for key in {*own, *old})
