"""The events of gateways, routes and pools."""

from __future__ import annotations

from anycastlb.core.model import NO_HTTP, HttpServerKey
from anycastlb.engine.tier_events import server_reason, tier_events
from tests.support import http_scene

ALL = {"10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.0.4"}


def test_each_turn_is_told_once_with_its_reason() -> None:
    well, dead = http_scene.snapshot().decision.http, http_scene.snapshot(ALL).decision.http
    told = [(one.kind, one.subject, one.before, one.after, one.level) for one in tier_events(well, dead)]
    assert told == [
        ("pool", "blog", "open", "closed", "warning"),
        ("pool", "blog-canary", "open", "closed", "warning"),
        ("pool", "web", "open", "closed", "warning"),
        ("route", "shop", "open", "closed", "warning"),
        ("gateway", "web", "open", "closed", "warning"),
    ]
    *_, gateway = tier_events(well, dead)
    assert gateway.code == "routes_dead" and "0/1 routes can be served" in gateway.reason
    assert {one.level for one in tier_events(dead, well)} == {"info"}
    assert {one.before for one in tier_events(NO_HTTP, well)} == {""}
    assert list(tier_events(well, well)) == list(tier_events(well, NO_HTTP)) == []


def test_a_server_has_the_reason_of_its_backend() -> None:
    http = http_scene.snapshot({"10.1.0.2"}).decision.http
    assert server_reason(HttpServerKey("blog_r12345678", "b2"), http).code == "check_failed"
    assert server_reason(HttpServerKey("gone", "b2"), http).code == ""
