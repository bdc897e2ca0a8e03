"""What ELB's admin API says, in our documents and back: upstreams are pools, domains are routes with a graph. Pure.

It differs from ELB where ELB was wrong: a name that is no address is refused, and so is a graph that leads nowhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from anycastlb.core.catalog.edit import Stored, delete, read_documents, same, write
from anycastlb.core.fields import shown
from anycastlb.core.http.request import host_of
from anycastlb.core.importers import elb
from anycastlb.core.importers.documents import Documents
from anycastlb.core.model import AnycastlbError, Catalog, Edit, Service, Tree, endpoint


class ErulbRefusal(AnycastlbError):
    """What was sent cannot be written."""


def domains(tree: Tree) -> dict[str, Any]:
    """The graph of every domain that has one."""
    found: dict[str, Any] = {}
    for name, document in read_documents(tree, "routes").items():
        if isinstance(document.get("graph"), dict):
            hosts = document.get("hostnames") or name
            found |= dict.fromkeys(hosts if isinstance(hosts, list) else [hosts], document["graph"])
    return found


def domain_edits(tree: Tree, domain: str, graph: Any, gateway: str) -> tuple[Edit, ...]:
    """The edits after which a domain has these rules; a pool that is not there is made, as ELB takes rules before
    upstreams. ``gateway``: of a route that is new; empty for the only one that there is. Raises ``ErulbRefusal``."""
    key = f"routes/{host_of(domain)}"
    known = read_documents(tree, "routes").get(key.partition("/")[2])
    gateways = (known or {}).get("gateways") or gateway or _only_gateway(tree)
    documents, notes = elb.convert(json.dumps({f"/ELB/rules/{domain}": json.dumps(graph)}))
    if key not in documents:
        raise ErulbRefusal("; ".join(map(str, notes)) or f"{shown(domain)} is no host name")
    route = {**documents.pop(key), "gateways": gateways}
    if known is not None:
        route["hostnames"] = known.get("hostnames", route["hostnames"])
    edits = [] if known is not None and same(known, route) else [write(tree, key, route)]
    new = {name: document for name, document in documents.items() if "/".join(name.split("/")[:2]) not in tree.entries}
    return (*edits, *(write(tree, name, document) for name, document in new.items()))


def _only_gateway(tree: Tree) -> str:
    names = sorted(key.partition("/")[2] for key in tree.entries if key.startswith("gateways/"))
    if len(names) == 1:
        return names[0]
    if not names:
        raise ErulbRefusal("there is no gateway yet: anycastlb gateway add web http ADDRESS:80")
    raise ErulbRefusal(f"which gateway? Add ?gateway=NAME: {', '.join(names)}")


def domain_deletion(tree: Tree, domain: str) -> tuple[Edit, ...]:
    """The edits after which a domain has no rules. A route that is not ELB's stays."""
    name = host_of(domain)
    return (delete(tree, f"routes/{name}"),) if "graph" in read_documents(tree, "routes").get(name, {}) else ()


def upstreams(catalog: Catalog) -> dict[str, list[dict[str, Any]]]:
    """Every pool with its servers, as nginx tells them."""
    return {pool.name: _servers(pool) for pool in catalog.pools}


def _servers(pool: Service) -> list[dict[str, Any]]:
    return [
        {
            "addr": (place := endpoint(backend.address, backend.port)),
            "name": place,
            "weight": backend.weight,
            "max_fails": backend.passive.max_fails if backend.passive else 0,
            "fail_timeout": round(backend.passive.fail_timeout) if backend.passive else 0,
        }
        for backend in pool.backends
    ]


def upstream_edits(tree: Tree, name: str, servers: Any, stored: Stored | None) -> tuple[Edit, ...]:
    """The edits after which a pool has exactly these servers. Raises ``ErulbRefusal``."""
    if not isinstance(servers, dict) or not all(isinstance(options, str) for options in servers.values()):
        raise ErulbRefusal(f'expected servers such as {{"10.1.0.1:80": "weight=10"}}, not {shown(servers)}')
    documents = _upstream(name, servers)
    key = f"services/{name}"
    own = stored.own if stored and stored.own is not None else None
    if own is not None and "vip" in own:
        raise ErulbRefusal(f"the service {name} has a VIP: it is no upstream")
    pool = {field: value for field, value in (own or documents[key]).items() if field != "backends"}
    edits = [] if own is not None and same(own, pool) else [write(tree, key, pool)]
    wanted = {each: document for each, document in documents.items() if each != key}
    gone = [stored.backend_key(each) for each in stored.keyed] if stored else []
    edits += [delete(tree, each) for each in gone if each not in wanted]
    return (*edits, *(write(tree, each, document) for each, document in wanted.items()))


def _upstream(name: str, servers: Mapping[str, str]) -> Documents:
    dump = {f"/ELB/upstreams/{name}/{server}": options for server, options in servers.items()}
    documents, notes = elb.convert(json.dumps(dump))
    if not servers:
        documents = {f"services/{name}": dict(elb.POOL)}
    if len(documents) != len(servers) + 1 or f"services/{name}" not in documents:
        raise ErulbRefusal("; ".join(map(str, notes)) or f"{shown(name)} is no name of an upstream")
    return documents


def upstream_deletion(tree: Tree, stored: Stored) -> tuple[Edit, ...]:
    keys: Iterable[str] = (stored.key, *(stored.backend_key(name) for name in stored.keyed))
    return tuple(delete(tree, key) for key in keys)
