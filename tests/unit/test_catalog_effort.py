"""What a reading costs of a catalog in which one document is new: little for each service that is as it was."""

from __future__ import annotations

import json
from ipaddress import ip_network

from anycastlb.adapters.checks import PARAMS
from anycastlb.core.catalog.memory import CatalogMemory
from anycastlb.core.catalog.parse import parse_catalog
from anycastlb.core.delta import Edited
from anycastlb.core.model import Catalog, Entry, Tree
from tests.support.effort import calls

RANGES = (ip_network("192.0.2.0/24"),)
FEW, MANY = 20, 200
EACH = 1
"""Calls for each service that has nothing to do with it, at most. One that is read takes several hundred."""


def document(number: int, weight: int) -> Entry:
    backends = {f"b{number}": {"address": f"10.0.0.{number}", "weight": weight}}
    body = {"vip": f"192.0.2.{number}", "port": 80, "check": {"type": "none"}, "backends": backends}
    return Entry(json.dumps(body).encode(), created=number, version=str(weight))


def edited(services: int) -> int:
    """The calls of reading one weight that is new, among so many services."""
    memory, catalog = CatalogMemory(), Catalog()
    tree = Tree({f"services/s{number}": document(number, 100) for number in range(services)}, 1)
    for weight in (50, 60):
        catalog = parse_catalog(tree, catalog, RANGES, (), PARAMS, memory=memory)
        tree = Tree(Edited(tree.entries, {"services/s7": document(7, weight)}), weight)

    def read() -> None:
        made = parse_catalog(tree, catalog, RANGES, (), PARAMS, memory=memory)
        assert [one is two for one, two in zip(made.services, catalog.services, strict=True)].count(False) == 1

    return calls(read)


def test_one_new_weight_costs_little_for_every_service_that_it_does_not_concern() -> None:
    assert edited(MANY) - edited(FEW) < EACH * (MANY - FEW)
