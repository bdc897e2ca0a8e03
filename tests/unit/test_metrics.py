"""Metrics, as Prometheus sees them: scraped over HTTP and parsed with its own parser."""

from __future__ import annotations

import urllib.request
from asyncio import to_thread
from collections.abc import Mapping
from dataclasses import replace

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families as families

from anycastlb import __version__
from anycastlb.drivers.ipvs_reader import Counters
from anycastlb.events import Event
from anycastlb.model import Change, DriverError, Failure, Feed, Route, Snapshot
from tests.unit import scene
from tests.unit.serving import Served, serving

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


async def fetch(served: Served, accept: str = "") -> tuple[str, str]:
    def get() -> tuple[str, str]:
        request = urllib.request.Request(f"{served.url}/metrics", headers={"Accept": accept})
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.read().decode(), response.headers["Content-Type"]

    return await to_thread(get)


async def scrape(served: Served) -> Samples:
    text, _ = await fetch(served)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families(text) for s in family.samples}


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[f"anycastlb_{name}", frozenset(labels.items())]


async def test_a_node_in_trouble() -> None:
    async with serving(scene.trouble()) as served:
        samples = await scrape(served)
    assert value(samples, "build_info", version=__version__) == 1
    assert value(samples, "vip_open", vip="192.0.2.10") == 1
    assert value(samples, "vip_open", vip="192.0.2.11") == 0
    assert value(samples, "vip_announced", vip="2001:db8:ffff::10") == 1
    assert value(samples, "vip_announced", vip="192.0.2.12") == 0
    assert value(samples, "vip_transition_timestamp_seconds", vip="192.0.2.11") == scene.WALL - 12
    dns = {"service": "dns", "vip": "192.0.2.11"}
    assert [value(samples, f"service_{name}", **dns) for name in ("backends_up", "backends", "backends_needed")] == [
        1,
        4,
        2,
    ]
    assert value(samples, "service_open", **dns) == 0
    assert value(samples, "backend_up", service="web", backend="web3", vip="192.0.2.10") == 0
    assert value(samples, "backend_weight", service="web", backend="web2", vip="192.0.2.10") == 30
    assert value(samples, "bgp_session_up", peer="10.0.0.1") == 1
    assert value(samples, "bgp_session_up", peer="2001:db8:0:1::1") == 0
    assert value(samples, "bgp_bridge_connected") == 1
    assert value(samples, "bgp_routes_rejected") == 1
    assert value(samples, "catalog_index") == 4711
    assert value(samples, "catalog_problems") == 1
    assert value(samples, "catalog_held") == 1
    assert value(samples, "catalog_connected") == 1
    assert value(samples, "catalog_age_seconds") == 0
    assert value(samples, "checks_running") == len(scene.HEALTH)
    assert value(samples, "failed_changes") == 1
    assert value(samples, "last_cycle_timestamp_seconds") == scene.WALL


async def test_damping_and_check_times() -> None:
    async with serving(scene.subtle()) as served:
        samples = await scrape(served)
        served.snapshot = scene.subtle(flaps=2)
        damped = await scrape(served)
    assert round(value(samples, "vip_damping_penalty", vip="192.0.2.20")) == 896
    assert value(samples, "vip_damped", vip="192.0.2.20") == 0
    assert value(damped, "vip_damping_penalty", vip="192.0.2.20") > 1500
    assert value(damped, "vip_damped", vip="192.0.2.20") == 1
    took = {"service": "shop", "vip": "192.0.2.20"}
    assert value(samples, "backend_check_duration_seconds", backend="s1", **took) == pytest.approx(0.013), (
        "a probe through IPVS"
    )
    assert value(samples, "backend_check_duration_seconds", backend="s3", **took) == pytest.approx(0.013)
    assert value(samples, "backend_check_duration_seconds", backend="s2", **took) == 1


async def test_a_backend_never_checked_has_no_duration() -> None:
    async with serving(scene.trouble()) as served:
        samples = await scrape(served)
    checked = {
        dict(labels)["backend"] for name, labels in samples if name == "anycastlb_backend_check_duration_seconds"
    }
    assert "dns3" in checked
    assert "dns4" not in checked
    assert value(samples, "vip_damping_penalty", vip="192.0.2.10") == 0


async def test_probes_through_ipvs_are_no_services() -> None:
    snapshot = scene.subtle()
    marked = [key for key in snapshot.actual.services if key.protocol == "fwmark"]

    async def statistics() -> dict[object, Counters]:
        return {key: Counters(connections=7) for key in (*snapshot.actual.services, *snapshot.actual.destinations)}

    async with serving(snapshot, statistics=statistics) as served:
        samples = await scrape(served)
    assert marked
    assert {dict(labels).get("service", "shop") for _, labels in samples} == {"shop"}
    assert {dict(labels).get("vip", "192.0.2.20") for _, labels in samples} == {"192.0.2.20"}
    assert sum(name == "anycastlb_ipvs_service_connections_total" for name, _ in samples) == 1


async def test_series_vanish_with_their_objects() -> None:
    async with serving(scene.trouble()) as served:
        before = await scrape(served)
        served.snapshot = scene.calm()
        after = await scrape(served)

    def labelled(samples: Samples) -> set[tuple[str, str]]:
        return {pair for _, labels in samples for pair in labels if pair[0] in ("vip", "service", "backend", "peer")}

    assert {("vip", "192.0.2.11"), ("service", "dns"), ("backend", "dns1"), ("peer", "2001:db8:0:1::1")} <= labelled(
        before
    )
    assert labelled(after) == {
        ("vip", "192.0.2.10"),
        ("service", "web"),
        ("peer", "10.0.0.1"),
        *(("backend", f"web{n}") for n in (1, 2, 3)),
    }


async def test_the_source_is_away() -> None:
    feed = Feed(False, scene.NOW - 95, "connection refused", loaded=True, cached=True)
    snapshot = replace(scene.calm(), inputs=replace(scene.calm().inputs, feed=feed))
    async with serving(snapshot) as served:
        samples = await scrape(served)
    assert value(samples, "catalog_connected") == 0
    assert value(samples, "catalog_cached") == 1
    assert value(samples, "catalog_age_seconds") == 95


async def test_cycles_add_up() -> None:
    made = [Change("routes", scene.WEB4, None, Route()), Change("routes", scene.WEB6, None, Route())]
    refused = Change("addresses", scene.DNS, None, "x")
    snapshot = Snapshot(plan=(*made, refused), failures=(Failure(refused, "no"),), cycle=1)
    async with serving(scene.calm()) as served:
        assert value(await scrape(served), "changes_total", table="routes", verb="create") == 0
        for duration in (0.004, 0.3, 60.0):
            served.meters.observe_cycle(snapshot, duration)
        samples = await scrape(served)
    assert value(samples, "changes_total", table="routes", verb="create") == 6
    assert value(samples, "changes_total", table="addresses", verb="create") == 0
    assert value(samples, "change_failures_total", table="addresses") == 3
    assert value(samples, "change_failures_total", table="routes") == 0
    assert value(samples, "reconcile_cycles_total") == 3
    assert value(samples, "reconcile_seconds_count") == 3
    assert value(samples, "reconcile_seconds_sum") == 60.304
    counts = [
        value(samples, "reconcile_seconds_bucket", le=bound) for bound in ("0.0025", "0.005", "0.25", "0.5", "+Inf")
    ]
    assert counts == [0, 1, 1, 2, 3]


async def test_a_duration_on_a_bound_is_within_it() -> None:
    async with serving(scene.calm()) as served:
        served.meters.observe_cycle(Snapshot(), 0.005)
        samples = await scrape(served)
    assert value(samples, "reconcile_seconds_bucket", le="0.0025") == 0
    assert value(samples, "reconcile_seconds_bucket", le="0.005") == 1


async def test_events_are_counted() -> None:
    async with serving(scene.calm()) as served:
        served.journal.emit(Event("gate", "192.0.2.10", level="warning"))
        served.journal.emit(Event("gate", "192.0.2.11", level="warning"))
        samples = await scrape(served)
    assert value(samples, "events_total", kind="gate", level="warning") == 2


async def test_both_text_formats_parse_and_agree() -> None:
    async with serving(scene.trouble()) as served:
        served.journal.emit(Event('odd "kind"\n', "x"))
        plain, plain_type = await fetch(served)
        modern, modern_type = await fetch(served, "application/openmetrics-text; version=1.0.0")
    assert plain_type.startswith("text/plain")
    assert modern_type.startswith("application/openmetrics-text")
    ours = {s.name for f in families(plain) for s in f.samples if s.name.startswith("anycastlb_")}
    assert ours == {s.name for f in open_families(modern) for s in f.samples if s.name.startswith("anycastlb_")}
    documented = [f for f in families(plain) if f.name.startswith("anycastlb_")]
    assert all(family.documentation for family in documented)


async def test_before_the_first_cycle_a_scrape_works() -> None:
    async with serving(Snapshot()) as served:
        samples = await scrape(served)
    assert value(samples, "reconcile_cycles_total") == 0
    assert value(samples, "bgp_bridge_connected") == 0
    assert ("process_open_fds", frozenset()) in samples
    assert not any(name.startswith("anycastlb_ipvs") for name, _ in samples), "nobody asked the kernel"


async def test_what_the_kernel_counted() -> None:
    key = scene.WEB.key(scene.WEB4)
    web1 = next(destination for destination in scene.BACKENDS if destination.service == key)

    async def statistics() -> dict[object, Counters]:
        return {key: Counters(connections=7, bytes_in=2**40), web1: Counters(connections=3, active=2, inactive=1)}

    async with serving(scene.trouble(), statistics=statistics) as served:
        samples = await scrape(served)
    service = {"service": "web", "vip": "192.0.2.10"}
    assert value(samples, "ipvs_service_connections_total", **service) == 7
    assert value(samples, "ipvs_service_bytes_in_total", **service) == 2**40
    assert value(samples, "ipvs_backend_connections_total", backend="web1", **service) == 3
    assert value(samples, "ipvs_backend_active", backend="web1", **service) == 2
    assert value(samples, "ipvs_backend_inactive", backend="web1", **service) == 1
    assert value(samples, "ipvs_statistics_up") == 1


async def test_a_kernel_that_does_not_answer_hides_nothing_else() -> None:
    async def statistics() -> dict[object, Counters]:
        raise DriverError("netlink: no answer")

    async with serving(scene.trouble(), statistics=statistics) as served:
        samples = await scrape(served)
    assert value(samples, "ipvs_statistics_up") == 0
    assert value(samples, "vip_open", vip="192.0.2.10") == 1
