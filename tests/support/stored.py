"""Catalogs as they are stored: trees of documents, and what is read of them."""

from __future__ import annotations

import json
from ipaddress import ip_network
from typing import Any

from anycastlb.adapters.checks import PARAMS
from anycastlb.core.catalog.edit import (
    Rules,
)
from anycastlb.core.catalog.parse import parse_catalog
from anycastlb.core.model import Catalog, Entry, Tree

RULES = Rules((ip_network("192.0.2.0/24"),), (), PARAMS)


WEB = {"vip": "192.0.2.10", "port": 80}


def tree(**documents: Any) -> Tree:
    """Keys with ``__`` for ``/``; each older than the next."""
    entries = {}
    for age, (key, document) in enumerate(documents.items(), 1):
        value = document if isinstance(document, bytes) else json.dumps(document).encode()
        entries[key.replace("__", "/")] = Entry(value, age, version=f"v{age}")
    return Tree(entries, len(entries))


def backends(*numbers: int) -> dict[str, Any]:
    return {f"b{n}": {"address": f"10.0.0.{n}"} for n in numbers}


def read(tree: Tree, previous: Catalog = Catalog()) -> Catalog:  # noqa: B008
    return parse_catalog(tree, previous, RULES.vip_ranges, (), PARAMS)


def order(tree: Tree, service: str = "web") -> list[str]:
    return [backend.name for one in read(tree).services if one.name == service for backend in one.backends]


MIXED = tree(
    services__web={**WEB, "backends": backends(2, 1)},
    services__web__backends__b9=backends(9)["b9"],
    services__web__backends__b3=b"address=10.0.0.3 weight=7",
)
