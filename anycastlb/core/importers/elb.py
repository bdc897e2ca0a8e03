"""What ELB keeps in etcd to documents of our catalog: upstreams become pools, the rules of domains become routes.

The text is what etcd's v2 API answers to ``GET /v2/keys/ELB?recursive=true``, or a plain object of keys and values. The
servers of an upstream get keys of their own, as they have in etcd, so that each one's agent can go on writing its own.
What nginx would assume is written down (``weight=1 max_fails=1 fail_timeout=10s``). Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from anycastlb.core.catalog.bounds import MAX_BULK, read_json
from anycastlb.core.catalog.keys import named
from anycastlb.core.fields import is_address, shown
from anycastlb.core.http.request import host_of
from anycastlb.core.importers.documents import Documents, Note, UnreadableInput

SERVER = {"weight": "weight", "max_fails": "max_fails", "max_conns": "max_connections"}
FLAGS = {"backup": "fallback", "down": "drain"}
POOL: Mapping[str, Any] = {"balance": "roundrobin", "max_fails": 1, "fail_timeout": "10s"}
EXPECTED = "the answer of etcd to GET /v2/keys/ELB?recursive=true, or an object of keys and values"


def convert(text: str, gateway: str = "web") -> tuple[Documents, list[Note]]:
    """The documents by key, and what could not be carried over. ``gateway``: the name of the one that routes belong to.
    Raises ``UnreadableInput``."""
    conversion = _Conversion(gateway)
    upstreams: list[tuple[str, str, str]] = []
    for key, value in _values(text):
        match re.sub(r"/+", "/", key).strip("/").split("/"):
            case [_, "upstreams", upstream, server]:
                upstreams.append((upstream, server, value))
            case [_, "rules", domain]:
                conversion.rules.append((domain, value))
            case _:
                conversion.note(f"{shown(key)}: neither a rule nor a server of an upstream")
    for upstream, server, options in upstreams:
        conversion.add_server(upstream, server, options)
    for domain, rule in conversion.rules:
        conversion.add_domain(domain, rule)
    return conversion.documents, conversion.notes


class _Conversion:
    def __init__(self, gateway: str) -> None:
        self.documents: Documents = {}
        self.notes: list[Note] = []
        self.rules: list[tuple[str, str]] = []
        self._gateway = gateway

    def note(self, what: str) -> None:
        self.notes.append(Note(0, what))

    def add_server(self, upstream: str, server: str, options: str) -> None:
        if not named(upstream):
            self.note(f"upstream {shown(upstream)}: no pool can have that name")
            return
        self.documents.setdefault(f"services/{upstream}", dict(POOL))
        endpoint = _endpoint(server)
        if endpoint is None:
            self.note(f"upstream {upstream}: {shown(server)} is no address; write its address, or discover it by DNS")
            return
        backend = {"address": endpoint[0], "port": endpoint[1], "weight": 1, **self._options(upstream, server, options)}
        self.documents[f"services/{upstream}/backends/{server}"] = backend

    def _options(self, upstream: str, server: str, options: str) -> dict[str, Any]:
        known: dict[str, Any] = {}
        for option in options.split():
            name, _, value = option.partition("=")
            if option in FLAGS:
                known[FLAGS[option]] = True
            elif name in SERVER and value.isdecimal():
                known[SERVER[name]] = int(value)
            elif name == "fail_timeout" and re.fullmatch(r"\d{1,9}(s|ms|m|h|d)?", value):
                known["fail_timeout"] = f"{value}s" if value.isdecimal() else value
            else:
                self.note(f"upstream {upstream}: {server}: the option {shown(option)} has no counterpart")
        return known

    def add_domain(self, domain: str, text: str) -> None:
        try:
            graph = read_json(text)
        except ValueError as exc:
            self.note(f"domain {shown(domain)}: its rules are no JSON: {shown(str(exc))}")
            return
        host = host_of(domain)
        if host != domain:
            self.note(f"domain {shown(domain)}: it is compared without its port and in small letters, as {shown(host)}")
        key = f"routes/{host}"
        if not named(host) or key in self.documents:
            self.note(f"domain {shown(domain)}: " + ("there are two" if key in self.documents else "no host name"))
            return
        self.documents[key] = {"gateways": [self._gateway], "hostnames": [host], "graph": graph}
        for pool in _servernames(graph):
            self._add_missing_pool(domain, pool)

    def _add_missing_pool(self, domain: str, pool: str) -> None:
        """A server name that is no upstream is an address, or nothing that was there."""
        if f"services/{pool}" in self.documents or not named(pool):
            return
        self.documents[f"services/{pool}"] = dict(POOL)
        endpoint = _endpoint(pool if ":" in pool else f"{pool}:80")
        if endpoint is None:
            self.note(f"domain {shown(domain)}: there is no upstream {pool}; its pool is empty and answers 503")
        else:
            name = f"services/{pool}/backends/{pool}"
            self.documents[name] = {"address": endpoint[0], "port": endpoint[1], "weight": 1}


def _values(text: str) -> Iterator[tuple[str, str]]:
    """The keys of a dump with their values. Raises ``UnreadableInput``."""
    try:
        dump = read_json(text, MAX_BULK)
    except ValueError as exc:
        raise UnreadableInput(0, f"expected {EXPECTED}: {exc}") from exc
    if not isinstance(dump, dict):
        raise UnreadableInput(0, f"expected {EXPECTED}, not {shown(dump)}")
    if isinstance(dump.get("node"), dict):
        yield from _nodes(dump["node"])
    else:
        yield from ((key, value if isinstance(value, str) else json.dumps(value)) for key, value in dump.items())


def _nodes(node: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """``read_json`` has found the nesting to be bounded."""
    key, value = node.get("key"), node.get("value")
    if isinstance(key, str) and isinstance(value, str) and not node.get("dir"):
        yield key, value
    nodes = node.get("nodes")
    for below in nodes if isinstance(nodes, list) else ():
        if isinstance(below, dict):
            yield from _nodes(below)


def _servernames(graph: Any) -> Iterator[str]:
    rules = graph.get("rules") if isinstance(graph, dict) else None
    for rule in rules.values() if isinstance(rules, dict) else ():
        args = rule.get("args") if isinstance(rule, dict) and rule.get("type") == "backend" else None
        if isinstance(args, dict) and isinstance(args.get("servername"), str):
            yield args["servername"]


def _endpoint(server: str) -> tuple[str, int] | None:
    """Address and port; None if it is a name."""
    match = re.fullmatch(r"\[?([^\]\[]*)\]?:(\d{1,5})", server)
    if match is None or not is_address(match[1]) or not 0 < int(match[2]) < 65536:
        return None
    return match[1], int(match[2])
