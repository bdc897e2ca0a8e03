"""Rows of the HTTP tier as the compiler would make them, by hand, and a reconciler's cycle with one driver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from anycastlb.adapters.drivers import Driver
from anycastlb.core.model import (
    Change,
    Failure,
    HttpCertificate,
    HttpConfig,
    HttpEngine,
    HttpServer,
    HttpServerKey,
    HttpSite,
    MapEntry,
    ServerState,
    SiteKey,
    Table,
)
from tests.support.haproxy import LOOPBACK

ORDER: tuple[tuple[tuple[Table, str], ...], ...] = (
    (
        ("http_engine", "create"), ("http_engine", "update"),
        ("http_certificates", "create"), ("http_certificates", "update"),
        ("http_servers", "create"), ("http_servers", "raise"),
        ("http_sites", "create"), ("http_sites", "update"),
    ),
    (
        ("http_servers", "lower"), ("http_sites", "delete"), ("http_servers", "delete"),
        ("http_certificates", "delete"), ("http_engine", "delete"),
    ),
)  # fmt: skip
"""What is applied together: everything that arrives, and after the routes of BGP everything that leaves."""
STATES = {"maint": 0, "drain": 1, "ready": 2}


@dataclass(frozen=True)
class Wanted:
    """A desired state of the four tables."""

    config: HttpConfig | None = None
    digest: str = "first"
    servers: Mapping[HttpServerKey, HttpServer] = field(default_factory=dict)
    sites: Mapping[SiteKey, HttpSite] = field(default_factory=dict)
    certificates: Mapping[str, HttpCertificate] = field(default_factory=dict)

    def rows(self, table: Table) -> Mapping[Any, Any]:
        if table == "http_engine":
            return {"config": HttpEngine(self.digest, self.config)} if self.config else {}
        rows: Mapping[Any, Any] = getattr(self, table.removeprefix("http_"))
        return rows


def server(port: int, weight: int = 10, state: ServerState = "ready", maxconn: int = 0) -> HttpServer:
    return HttpServer(LOOPBACK, port, weight, state, maxconn)


def at(section: str, name: str) -> HttpServerKey:
    return HttpServerKey(section, name)


def host(name: str = "shop.example", gateway: str = "web") -> SiteKey:
    return SiteKey(gateway, name)


def site(version: str, pools: Mapping[str, str], **changes: str) -> HttpSite:
    """Requests go to pools by the first segment of their path (``/blog?``: exactly that); ``""`` is every other path.

    ``changes`` are entries of the map ``do`` for every leaf.
    """
    root = f"p:t:{version}.0"
    entries = []
    for place, (prefix, pool) in enumerate(sorted(pools.items()), 1):
        leaf = f"{'>++' if changes else '>'}:{version}.{place}"
        entries.append(MapEntry("next", f"{root}|={prefix}" if prefix else f"{root}|", leaf))
        entries.append(MapEntry("leaf", leaf, pool))
        entries += [MapEntry("do", f"{leaf}|{what.replace('__', '.')}", value) for what, value in changes.items()]
    return HttpSite(root, tuple(entries))


async def look(driver: Driver) -> dict[Table, dict[Any, Any]]:
    return {table: dict(rows) for table, rows in (await driver.observe()).items()}


async def settle(driver: Driver, wanted: Wanted) -> list[Failure]:
    """One cycle of a reconciler."""
    changes = differences(await look(driver), wanted)
    failures: list[Failure] = []
    for phases in ORDER:
        due = [change for phase in phases for change in changes if _phase(change) == phase]
        if due:
            failures += await driver.apply(due)
    return failures


def differences(actual: Mapping[Table, Mapping[Any, Any]], wanted: Wanted) -> Sequence[Change]:
    changes = []
    for table, old in actual.items():
        new = wanted.rows(table)
        changes += [Change(table, key, old.get(key), row) for key, row in new.items() if old.get(key) != row]
        changes += [Change(table, key, row, None) for key, row in old.items() if key not in new]
    return changes


def _phase(change: Change) -> tuple[Table, str]:
    if change.table == "http_servers" and change.verb == "update":
        old, new = change.old, change.new
        lower = (STATES[new.state], new.weight) < (STATES[old.state], old.weight)
        return change.table, "lower" if lower else "raise"
    return change.table, change.verb
