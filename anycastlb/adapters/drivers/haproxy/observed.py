"""What HAProxy has, as one look found it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from anycastlb.adapters.drivers.haproxy.answers import Info
from anycastlb.core.model import EMPTY, HttpCertificate, HttpEngine, HttpServer, HttpServerKey, HttpSite, SiteKey, Table

UNKNOWN = HttpEngine("unknown")
"""The row of a configuration that is not ours."""


@dataclass(frozen=True, slots=True)
class Observed:
    """The rows of all four tables, and what else HAProxy has."""

    info: Info | None = None
    """None: HAProxy is away."""
    engine: Mapping[str, HttpEngine] = field(default_factory=lambda: EMPTY)
    certificates: Mapping[str, HttpCertificate] = field(default_factory=lambda: EMPTY)
    servers: Mapping[HttpServerKey, HttpServer] = field(default_factory=lambda: EMPTY)
    sites: Mapping[SiteKey, HttpSite] = field(default_factory=lambda: EMPTY)
    out_of_use: frozenset[HttpServerKey] = frozenset()
    """Servers that were removed, and whose place HAProxy still keeps."""

    @property
    def foreign(self) -> bool:
        """HAProxy runs with a configuration that is not ours."""
        return self.engine.get("config") == UNKNOWN

    def rows(self, table: Table) -> Mapping[Any, Any]:
        rows: Mapping[Any, Any] = getattr(self, table.removeprefix("http_"))
        return rows


AWAY = Observed()
