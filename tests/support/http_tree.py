"""A small catalog with a gateway, a route and pools, as the page about the HTTP tier shows them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any

from anycastlb.adapters.checks import PARAMS
from anycastlb.core.catalog.parse import parse_catalog
from anycastlb.core.model import Catalog, Entry, Problem, Tree

RANGES = (ip_network("192.0.2.0/24"), ip_network("2001:db8::/32"))
NOTHING = Catalog()
CERTIFICATES = frozenset({"shop", "default"})

GATEWAY: dict[str, Any] = {
    "vip": ["192.0.2.10", "2001:db8:2::10"], "port": 443, "protocol": "https",
    "tls": {"certificates": ["shop", "default"], "min_version": "1.2", "alpn": ["h2", "http/1.1"], "strict_sni": True},
    "spread": "mh", "limits": {"maxconn": 20000, "request_timeout": "10s", "header_bytes": 16384},
    "announce": {"when": "any", "communities": ["65001:100"]},
}  # fmt: skip
ROUTE: dict[str, Any] = {
    "gateways": ["web"],
    "hostnames": ["shop.example", "*.shop.example"],
    "rules": [
        {
            "name": "blog-canary",
            "matches": [
                {
                    "path": {"type": "PathPrefix", "value": "/blog"},
                    "headers": [{"name": "user-agent", "type": "RegularExpression", "value": "(?i)httpie"}],
                }
            ],
            "filters": [
                {
                    "type": "URLRewrite",
                    "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}},
                }
            ],
            "backendRefs": [{"name": "blog", "weight": 90}, {"name": "blog-canary", "weight": 10}],
            "retry": {"attempts": 2, "on": ["conn-failure", "empty-response", 500, 504]},
            "timeouts": {"request": "30s"},
        },
        {"backendRefs": [{"name": "web"}]},
    ],
}
ELB: dict[str, Any] = {
    "init": "r1",
    "rules": {
        "r1": {"type": "ua", "args": {"fail": "r3", "pattern": "httpie(\\S+)$", "succ": "r4"}},
        "r2": {"type": "backend", "args": {"servername": "blog"}},
        "r3": {"type": "backend", "args": {"servername": "web"}},
        "r4": {
            "type": "path",
            "args": {"regex": True, "pattern": "^\\/blog\\/(\\S+)$", "succ": "r2", "fail": "r3", "rewrite": False},
        },
    },
}
README = r"""{
    "init": "r1",
    "rules": {
        "r1": {"type": "ua", "args": {"fail": "r3", "pattern": "httpie(\\S+)$", "succ": "r4"}},
        "r2": {"type": "backend", "args": {"servername": "upstrimg1"}},
        "r3": {"type": "backend", "args": {"servername": "upstream2"}},
        "r4": {"type": "path", "args": {"regex": true, "pattern": "^\\/blog\\/(\\S+)$", "succ": "r2", "fail": "r3", "rewrite": false}}
    },
}"""  # noqa: E501
"""ELB's example, byte for byte, with its comma too many."""
EXAMPLE: dict[str, Any] = json.loads(README.replace("},\n}", "}\n}"))
POOL: dict[str, Any] = {
    "port": 80, "check": {"type": "http", "path": "/health"}, "balance": "leastconn", "persistence": {"cookie": "SRV"},
    "max_fails": 3, "fail_timeout": "5s",
    "backends": {"b1": {"address": "10.1.0.1"}, "b2": {"address": "10.1.0.2", "port": 8080, "max_fails": 0}},
}  # fmt: skip
DOCUMENTS: dict[str, Any] = {
    "services/blog": POOL,
    "services/blog-canary": {"port": 80, "backends": {"c1": {"address": "10.1.0.3"}}},
    "services/web": {"vip": "192.0.2.20", "port": 80, "backends": {"w1": {"address": "10.1.0.4"}}},
    "gateways/web": GATEWAY,
    "routes/shop": ROUTE,
}


def changed(document: Mapping[str, Any], *path: str | int, to: Any) -> Any:
    """A copy of a document with another value at a place; a value that is missing there is added."""
    copy = json.loads(json.dumps(document))
    place = copy
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = to
    return copy


def tree(documents: Mapping[str, Any], index: int = 1) -> Tree:
    """The keys in the order of their age; a value of bytes stands as it is."""
    entries = {
        key: Entry(value if isinstance(value, bytes) else json.dumps(value).encode(), created=place + 1)
        for place, (key, value) in enumerate(documents.items())
    }
    return Tree(entries, index)


def read(documents: Mapping[str, Any], previous: Catalog | None = None, index: int = 1) -> Catalog:
    return read_tree(tree(documents, index), previous or Catalog())


def read_tree(given: Tree, previous: Catalog = NOTHING) -> Catalog:
    return parse_catalog(given, previous, RANGES, ((100, 199),), PARAMS, certificates=CERTIFICATES)


def texts(problems: tuple[Problem, ...]) -> list[str]:
    return list(map(str, problems))
