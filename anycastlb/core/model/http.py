"""The documents of the HTTP tier as they were parsed: gateways, routes, and what a route is made of.

A gateway is a VIP and port that speaks HTTP; a route says which requests for which hostnames go to which pool. A pool
is a ``Service`` without VIPs. A text that comes from a document is only ever data for HAProxy, never a part of its
configuration; the names that do stand there are of a few harmless characters.

Decision record: docs/decisions/0019-http-tier.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from anycastlb.core.model.announce import Announce
from anycastlb.core.model.base import Address
from anycastlb.core.model.machine import ServiceKey

PathKind: TypeAlias = Literal["exact", "prefix", "regex"]
RewriteKind: TypeAlias = Literal["full", "prefix", "regex"]


@dataclass(frozen=True, slots=True)
class Tls:
    """How a gateway ends TLS."""

    certificates: tuple[str, ...]
    """Names of files in ``[http] certificate_dir``, without their ending; the first one is sent where none fits."""
    min_version: Literal["1.2", "1.3"] = "1.2"
    alpn: tuple[Literal["h2", "http/1.1"], ...] = ("h2", "http/1.1")
    strict_sni: bool = False
    """Refuse a handshake for a name that no certificate has, instead of sending the first one."""


@dataclass(frozen=True, slots=True)
class HttpLimits:
    maxconn: int = 20_000
    """Open connections of clients."""
    request_timeout: float = 10.0
    """Seconds within which the whole head of a request must be there."""
    idle_timeout: float = 60.0
    """Seconds that a connection may wait for its next request."""
    header_bytes: int = 16_384
    """Of all headers of a request together."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """A VIP and port that speaks HTTP: Gateway API's listener, HAProxy's frontend."""

    name: str
    vips: tuple[Address, ...]
    port: int
    tls: Tls | None = None
    """None: plain HTTP."""
    spread: Literal["mh", "none"] = "mh"
    """``mh``: IPVS in front of the HAProxies of all nodes of this gateway; ``none``: whatever comes to this node."""
    limits: HttpLimits = HttpLimits()
    forwarded_for: Literal["replace", "append"] = "replace"
    """What becomes of the X-Forwarded-For that a client sends."""
    when: Literal["any", "all", "critical"] = "any"
    """How many of its routes must be served for its VIPs to be announced: any, all, or all that are ``critical``."""
    announce: Announce = Announce()
    """Everything else about its routes in BGP. ``when`` in there is ``all`` exactly if ours is not ``any``."""
    drain: float = 30.0
    """Seconds for which a removed gateway is still served."""

    def claims(self) -> tuple[ServiceKey, ...]:
        """What no other gateway and no service may claim."""
        return tuple(ServiceKey("tcp", vip, self.port) for vip in self.vips)


@dataclass(frozen=True, slots=True)
class PathMatch:
    kind: PathKind = "prefix"
    value: str = "/"
    """A prefix is one of whole segments and has no slash at its end, unless it is ``/``. A regular expression is of
    RE2's syntax and found anywhere in the path."""


@dataclass(frozen=True, slots=True)
class ValueMatch:
    """A header, or a parameter of the query, that a request must have."""

    name: str
    """Of a header in lower case."""
    value: str
    regex: bool = False


@dataclass(frozen=True, slots=True)
class Match:
    """What a request must be like: all of it."""

    path: PathMatch = PathMatch()
    method: str = ""
    """Empty: any."""
    headers: tuple[ValueMatch, ...] = ()
    query: tuple[ValueMatch, ...] = ()


@dataclass(frozen=True, slots=True)
class PathRewrite:
    kind: RewriteKind
    value: str
    """The new path; instead of the prefix that matched; or the template with ``\\1`` for what ``pattern`` found."""
    pattern: str = ""


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Gateway API's URLRewrite."""

    host: str = ""
    """Empty: as the client sent it."""
    path: PathRewrite | None = None


@dataclass(frozen=True, slots=True)
class Redirect:
    """Gateway API's RequestRedirect: the answer, instead of a pool. What is empty or None is as in the request."""

    scheme: Literal["", "http", "https"] = ""
    host: str = ""
    port: int | None = None
    path: PathRewrite | None = None
    status: Literal[301, 302, 303, 307, 308] = 302


@dataclass(frozen=True, slots=True)
class HeaderChange:
    """Gateway API's RequestHeaderModifier and ResponseHeaderModifier. All names are in lower case."""

    of: Literal["request", "response"]
    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()


Filter: TypeAlias = Rewrite | Redirect | HeaderChange


@dataclass(frozen=True, slots=True)
class BackendRef:
    pool: str
    """The name of a service, with or without a VIP."""
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Retry:
    """When a request is sent to another backend. HAProxy's sections differ by it: see ``core.http.names``."""

    attempts: int = 2
    on: tuple[str, ...] = ("conn-failure", "empty-response", "response-timeout", "500", "504")
    """HAProxy's words: events, and statuses of the backend's answer."""


@dataclass(frozen=True, slots=True)
class Sticky:
    """What chooses between the pools of a rule."""

    by: Literal["chance", "source", "cookie"] = "chance"
    cookie: str = ""
    """The name of a cookie of the application's own. A request without it is left to chance."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Gateway API's HTTPRouteRule."""

    name: str
    """As in the document, else ``rule-1``, ``rule-2`` by its place."""
    matches: tuple[Match, ...] = (Match(),)
    """At least one, of which one must match."""
    filters: tuple[Filter, ...] = ()
    refs: tuple[BackendRef, ...] = ()
    """Empty only if a filter redirects."""
    retry: Retry = Retry()
    timeout: float | None = None
    """Seconds that a backend may be silent; None: the default of the node."""
    sticky: Sticky = Sticky()


@dataclass(frozen=True, slots=True)
class ElbRule:
    """One rule of ELB's graph."""

    name: str
    type: Literal["ua", "path", "backend"]
    pattern: str = ""
    regex: bool = False
    """Of a path rule: the pattern is a regular expression, otherwise a prefix of the text. Of a ua rule: always."""
    rewrite: bool = False
    """The path becomes what the first group found."""
    succ: str = ""
    fail: str = ""
    """The next rules; empty: the request is answered with 403."""
    pool: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    """Set in the request to the pool."""


@dataclass(frozen=True, slots=True)
class ElbGraph:
    """ELB's own document of a domain."""

    init: str
    rules: tuple[ElbRule, ...]


@dataclass(frozen=True, slots=True)
class HttpRoute:
    """A route document: some hostnames of some gateways, and what becomes of their requests."""

    name: str
    gateways: tuple[str, ...]
    hostnames: tuple[str, ...]
    """In lower case: ``shop.example``, ``*.shop.example``, ``*``, an address, ``[2001:db8::1]``."""
    rules: tuple[Rule, ...] = ()
    graph: ElbGraph | None = None
    """Instead of rules."""
    critical: bool = False
    """Counts for gateways whose VIPs need their critical routes."""

    def pools(self) -> frozenset[str]:
        """The names of all services that it sends requests to."""
        named = {ref.pool for rule in self.rules for ref in rule.refs}
        return frozenset(named | {rule.pool for rule in self.graph.rules if rule.pool} if self.graph else named)
