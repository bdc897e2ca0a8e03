"""The rows of the tables of the HTTP tier: what HAProxy should have, and what it has.

What can be observed of a row is what is compared. A desired row carries besides what its driver needs to make it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

from anycastlb.core.model.balancing import Balancing
from anycastlb.core.model.base import Address, endpoint
from anycastlb.core.model.http import Gateway, Retry
from anycastlb.core.model.machine import ServiceKey

ServerState: TypeAlias = Literal["ready", "drain", "maint"]
MapName: TypeAlias = Literal["next", "eq", "re0", "re1", "re2", "re3", "re4", "re5", "re6", "re7", "leaf", "do"]
"""Every map that nodes and leaves of routes stand in. The map ``site`` holds the rows of ``http_sites`` itself."""


class MapEntry(NamedTuple):
    """One entry of a map of HAProxy. Equal keys of one map always have equal values: they come from their content."""

    map: MapName
    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Section:
    """A backend section of HAProxy: a pool, as far as its requests are repeated in the same way."""

    name: str
    """As it stands in the configuration (``core.http.names.section``)."""
    pool: str
    balancing: Balancing
    retry: Retry


@dataclass(frozen=True, slots=True)
class HttpConfig:
    """The static part: what HAProxy only takes by a reload. Every tuple is sorted."""

    gateways: tuple[Gateway, ...]
    """Without their ``when``, ``announce`` and ``drain``, which are no business of HAProxy's."""
    sections: tuple[Section, ...]
    subjects: tuple[str, ...]
    """What nodes look at, as it stands in their ids: ``p``, ``m``, ``h.user-agent``, ``q.page``, ``c``, ``cs``,
    ``cc.uid``."""
    request_headers: tuple[str, ...]
    """The names of headers that leaves change."""
    response_headers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HttpEngine:
    """The row ``config`` of the table ``http_engine``."""

    digest: str
    """Of the static part; HAProxy says it in its ``description``."""
    config: HttpConfig | None = field(default=None, compare=False, repr=False)
    """None in an observed row."""
    listens: frozenset[ServiceKey] = field(default=frozenset(), compare=False, repr=False)
    """Where the gateways of this configuration listen."""

    def __str__(self) -> str:
        return f"configuration {self.digest}"


@dataclass(frozen=True, slots=True)
class SiteKey:
    """A hostname of a gateway, which is a key of the map ``site``."""

    gateway: str
    host: str

    def __str__(self) -> str:
        return f"{self.gateway}|{self.host}"


@dataclass(frozen=True, slots=True)
class HttpSite:
    """A row of ``http_sites``: which graph the requests for a hostname are decided by."""

    root: str
    """The id of its first node, which holds the digest of the whole graph."""
    entries: tuple[MapEntry, ...] = field(default=(), compare=False, repr=False)
    """Everything that the root leads to. They must be there before the root is set."""

    def __str__(self) -> str:
        return f"rules {self.root}"


@dataclass(frozen=True, slots=True)
class HttpServerKey:
    """A backend of a pool, in a section of HAProxy."""

    section: str
    """Both names as HAProxy has them (``core.http.names``)."""
    server: str

    def __str__(self) -> str:
        return f"{self.section}/{self.server}"


@dataclass(frozen=True, slots=True)
class HttpServer:
    """A row of ``http_servers``."""

    address: Address
    port: int
    weight: int
    """0 to 256, which is HAProxy's largest."""
    state: ServerState = "ready"
    """``drain``: only flows that it has; ``maint``: nothing."""
    maxconn: int = 0
    """0 = no bound."""

    def __str__(self) -> str:
        return f"{endpoint(self.address, self.port)}, weight {self.weight}, {self.state}"


@dataclass(frozen=True, slots=True)
class HttpCertificate:
    """A row of ``http_certificates``, by the name of its file."""

    fingerprint: str
    """SHA-1 of the certificate in lower case, as HAProxy tells it."""
    gateways: tuple[str, ...] = ()
    """The names of those that use it, sorted."""

    def __str__(self) -> str:
        return f"certificate {self.fingerprint[:16]}"
