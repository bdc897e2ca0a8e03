"""The static part of HAProxy's configuration: what costs a reload, and what does not; and the rows of sites."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from anycastlb.core.http.entries import compile_graph
from anycastlb.core.http.request import Target
from anycastlb.core.http.routes import graph_of
from anycastlb.core.http.sites import Sites, listening
from anycastlb.core.http.static import engine_row, site_rows
from anycastlb.core.model import Catalog, HttpConfig, HttpEngine, SiteKey
from tests.support.http_tree import DOCUMENTS, GATEWAY, POOL, ROUTE, changed, read


def engine(catalog: Catalog) -> HttpEngine:
    pools = {service.name: service for service in (*catalog.services, *catalog.pools)}
    return engine_row(catalog.gateways, map(graph_of, catalog.routes), pools)


def config_of(documents: Any) -> HttpConfig:
    row = engine(read(documents))
    assert row.config is not None
    return row.config


def test_the_static_part_of_a_catalog() -> None:
    config = config_of(DOCUMENTS)
    assert [gateway.name for gateway in config.gateways] == ["web"]
    names = [(one.pool, one.name.startswith(one.pool), one.retry.attempts) for one in config.sections]
    assert names == [
        ("blog", True, 2), ("blog-canary", True, 2), ("blog-canary", True, 2), ("blog", True, 2), ("web", True, 2)
    ]  # fmt: skip
    assert len({one.name for one in config.sections}) == 5, "a pool has a section for each way to repeat its requests"
    assert config.subjects == ("c", "cs", "h.user-agent", "m", "p")
    assert config.request_headers == config.response_headers == ()


HEADERS = {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "X-A", "value": "1"}]}}
LIVE = {
    "a weight": {"routes/shop": changed(ROUTE, "rules", 0, "backendRefs", 0, "weight", to=1)},
    "a path": {"routes/shop": changed(ROUTE, "rules", 0, "matches", 0, "path", "value", to="/other")},
    "a pattern": {"routes/shop": changed(ROUTE, "rules", 0, "matches", 0, "headers", 0, "value", to="^curl")},
    "a hostname": {"routes/shop": changed(ROUTE, "hostnames", to=["other.example"])},
    "a time-out": {"routes/shop": changed(ROUTE, "rules", 0, "timeouts", "request", to="7s")},
    "a backend": {"services/blog": changed(POOL, "backends", "b3", to={"address": "10.1.0.9"})},
    "an announcement": {"gateways/web": changed(GATEWAY, "announce", "when", to="all")},
    "the spread of IPVS": {"gateways/web": changed(GATEWAY, "spread", to="none")},
}
RELOADS = {
    "a header's name": {"routes/shop": changed(ROUTE, "rules", 0, "matches", 0, "headers", 0, "name", to="x-b")},
    "a header to change": {"routes/shop": changed(ROUTE, "rules", 1, "filters", to=[HEADERS])},
    "a pool": {"services/new": {"port": 80}},
    "a way to balance": {"services/blog": changed(POOL, "balance", to="source")},
    "a way to repeat": {"routes/shop": changed(ROUTE, "rules", 0, "retry", "attempts", to=1)},
    "a port": {"gateways/web": changed(GATEWAY, "port", to=8443)},
    "a limit": {"gateways/web": changed(GATEWAY, "limits", "maxconn", to=7)},
}


@pytest.mark.parametrize("name", LIVE)
def test_what_is_live_changes_nothing_static(name: str) -> None:
    before = read(DOCUMENTS)
    after = read({**DOCUMENTS, **LIVE[name]}, before, 2)
    assert not after.problems and after != replace(before, index=2)
    assert engine(after) == engine(before)


@pytest.mark.parametrize("name", RELOADS)
def test_what_is_static_changes_the_digest(name: str) -> None:
    before = read(DOCUMENTS)
    after = read({**DOCUMENTS, **RELOADS[name]}, before, 2)
    assert not after.problems and engine(after) != engine(before)


def test_the_sites_of_a_route_share_one_graph() -> None:
    (route,) = read(DOCUMENTS).routes
    compiled = compile_graph(graph_of(route))
    rows = site_rows(route, compiled)
    assert list(rows) == [SiteKey("web", "shop.example"), SiteKey("web", "*.shop.example")]
    assert {row.root for row in rows.values()} == {compiled.root}
    assert all(row.entries is compiled.entries for row in rows.values())
    assert list(map(str, rows)) == ["web|shop.example", "web|*.shop.example"], "the keys of the map site"


def test_the_closest_hostname_of_a_gateway_wins() -> None:
    second = {**ROUTE, "hostnames": ["a.shop.example", "*"]}
    sites = Sites(read({**DOCUMENTS, "routes/second": second}).routes)
    named = {host: sites.find("web", host) for host in ("shop.example", "a.shop.example", "b.shop.example", "x", "")}
    assert {host: site and (site.route.name, site.hostname) for host, site in named.items()} == {
        "shop.example": ("shop", "shop.example"),
        "a.shop.example": ("second", "a.shop.example"),
        "b.shop.example": ("shop", "*.shop.example"),
        "x": ("second", "*"),
        "": ("second", "*"),
    }
    assert sites.find("other", "shop.example") is None


def test_the_gateways_that_an_url_may_come_to() -> None:
    plain = {**GATEWAY, "port": 80, "protocol": "http"}
    del plain["tls"]
    other = {**GATEWAY, "vip": "192.0.2.11"}
    gateways = read({**DOCUMENTS, "gateways/plain": plain, "gateways/other": other}).gateways
    found = {
        url: [one.name for one in listening(gateways, Target(*url), host)]
        for url, host in {("https", 443): "shop.example", ("http", 80): "x", ("http", 443): "x"}.items()
    }
    assert found == {("https", 443): ["other", "web"], ("http", 80): ["plain"], ("http", 443): []}
    assert [one.name for one in listening(gateways, Target("https", 443), "[2001:db8:2::10]")] == ["web"]
