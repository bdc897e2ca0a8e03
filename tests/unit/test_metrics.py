"""Metrics, as Prometheus sees them: scraped over HTTP and parsed with its own parser; and what ships around them."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.error
import urllib.request
from asyncio import to_thread
from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import ip_address
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families as families

from anycastlb import __version__
from anycastlb.adapters.checks import TYPES, CheckType, Down, Found
from anycastlb.adapters.system.clock import Clock
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.events import Event
from anycastlb.core.model import (
    Catalog,
    Change,
    Check,
    Cluster,
    ConsulInstances,
    DriverError,
    Entry,
    Failure,
    Feed,
    HttpCounters,
    Instance,
    NodeDrain,
    Policy,
    Problem,
    Reason,
    Registrar,
    Route,
    Snapshot,
    SyncDaemon,
    Traffic,
    Verdict,
)
from anycastlb.core.model.machine import TrafficCounters
from anycastlb.engine.observer import Unobserved
from anycastlb.engine.prober import Prober
from anycastlb.serving.metrics import Meters, Metrics, Sources
from anycastlb.serving.metrics.backends import counted_columns
from anycastlb.serving.metrics.families import FAMILIES, Family, FamilySamples, document
from anycastlb.serving.metrics.snapshot import DOCUMENTS, closed_by, document_of, fingerprint_number
from anycastlb.serving.metrics.text import Writer
from anycastlb.serving.pieces import Text
from tests.support import http_scene, promql, scene
from tests.support.serving import Served, serving
from tests.support.waiting import PATIENCE

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


async def fetch(served: Served, accept: str = "") -> tuple[str, str]:
    def get() -> tuple[str, str]:
        request = urllib.request.Request(f"{served.url}/metrics", headers={"Accept": accept})
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
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
    assert value(samples, "catalog_problems", document="service") == 1
    assert value(samples, "catalog_problems", document="defaults") == 0
    assert value(samples, "catalog_held") == 1
    assert value(samples, "catalog_connected") == 1
    assert value(samples, "catalog_age_seconds") == 0
    assert value(samples, "checks_running") == len(scene.HEALTH)
    assert value(samples, "failed_changes", table="services") == value(samples, "plan_changes", table="services") == 1
    assert value(samples, "failed_changes", table="routes") == 0
    assert value(samples, "catalog_held_vips") == 2
    assert value(samples, "node_info", node="lb1", exabgp="5.0.15") == 1
    assert value(samples, "vip_route_attributes", vip="192.0.2.10") == 2
    assert value(samples, "vip_route_attributes", vip="2001:db8:ffff::10") == 0
    assert value(samples, "vip_address", vip="192.0.2.13") == 1, "it is leaving"
    assert value(samples, "bgp_session_state", peer="2001:db8:0:1::1", state="down") == 1
    assert value(samples, "bgp_session_state", peer="2001:db8:0:1::1", state="up") == 0
    assert value(samples, "bgp_session_transition_timestamp_seconds", peer="10.0.0.1") == scene.WALL - 7200
    assert value(samples, "table_rows", table="services") == value(samples, "table_rows_desired", table="services") - 1
    assert value(samples, "last_cycle_timestamp_seconds") == scene.WALL


async def test_a_node_that_serves_gateways() -> None:
    ends, answers = {"shop": scene.WALL + 86_400}, [await http_scene.counters(), None, None, None]

    async def counted() -> HttpCounters | None:
        return answers.pop(0)

    async with serving(http_scene.snapshot({"10.1.0.2"}), http=counted, ends=lambda: ends) as served:
        samples = await scrape(served)
        served.snapshot = http_scene.failing()
        failing = await scrape(served)
        served.snapshot = http_scene.away()
        away = await scrape(served)
        served.snapshot = http_scene.snapshot(http=False)
        off = await scrape(served)
    assert value(samples, "gateway_open", gateway="web") == value(samples, "route_open", route="shop") == 1
    assert value(samples, "pool_backends_up", pool="blog") == 1 and value(samples, "pool_backends", pool="blog") == 2
    assert value(samples, "pool_backend_up", pool="blog", backend="b2") == 0
    assert value(samples, "pool_backend_weight", pool="blog", backend="b1") == 100
    site = {"gateway": "web", "hostname": "*.shop.example"}
    assert value(samples, "gateway_requests_total", **site) == 12
    assert value(samples, "gateway_responses_total", status="4xx", **site) == 2
    assert value(samples, "pool_redispatches_total", pool="blog") == 3
    assert value(samples, "certificate_expiry_timestamp_seconds", certificate="shop") == scene.WALL + 86_400
    assert value(samples, "certificate_served", gateway="web", certificate="default") == 1
    assert value(samples, "haproxy_up") == value(samples, "haproxy_statistics_up") == 1
    assert value(samples, "table_rows", table="http_sites") == 2
    assert not [name for name, labels in samples if "nobody.example" in str(labels)], "no route has it any more"
    passive = {name: dict(labels)["backend"] for name, labels in samples if "passive_failed" in name}
    assert passive == {"anycastlb_pool_backend_passive_failed": "b1"}, "no other has max_fails"
    for at, expected in ((samples, 0), (failing, 1)):
        assert value(at, "pool_backend_passive_failed", pool="blog", backend="b1") == expected
    assert value(away, "haproxy_up") == value(away, "vip_open", vip="192.0.2.10") == 0
    assert value(away, "certificate_served", gateway="web", certificate="shop") == 0
    assert value(away, "haproxy_statistics_up") == 0
    new = re.compile("anycastlb_(gateway|route|pool|certificate|haproxy)_|http_sites")
    assert not [name for name, labels in off if new.search(f"{name} {dict(labels)}")]


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

    async def statistics() -> dict[object, TrafficCounters]:
        return {
            key: TrafficCounters(connections=7) for key in (*snapshot.actual.services, *snapshot.actual.destinations)
        }

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
    snapshot = Snapshot(plan=(*made, refused), failures=(Failure(refused, Reason("kernel_refused", "no")),), cycle=1)
    async with serving(scene.calm()) as served:
        assert value(await scrape(served), "changes_total", table="routes", verb="create") == 0
        for duration in (0.004, 0.3, 60.0):
            served.meters.observe_cycle(snapshot, duration)
        samples = await scrape(served)
    assert value(samples, "changes_total", table="routes", verb="create") == 6
    assert value(samples, "changes_total", table="addresses", verb="create") == 0
    assert value(samples, "change_failures_total", table="addresses", verb="create") == 3
    assert value(samples, "change_failures_total", table="routes", verb="create") == 0
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
        await fetch(served)  # so that a request has been counted
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
    assert value(samples, "catalog_loaded") == 0


async def test_what_the_kernel_counted() -> None:
    key = scene.WEB.key(scene.WEB4)
    web1 = next(destination for destination in scene.BACKENDS if destination.service == key)

    async def statistics() -> dict[object, TrafficCounters]:
        return {
            key: TrafficCounters(connections=7, bytes_in=2**40),
            web1: TrafficCounters(connections=3, active=2, inactive=1),
        }

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
    async def statistics() -> dict[object, TrafficCounters]:
        raise DriverError("netlink: no answer")

    async with serving(scene.trouble(), statistics=statistics) as served:
        samples = await scrape(served)
    assert value(samples, "ipvs_statistics_up") == 0
    assert value(samples, "vip_open", vip="192.0.2.10") == 1


# ---------------------------------------------------------------- what only adds up


async def test_checks_are_counted_by_type_and_outcome() -> None:
    async with serving(scene.calm()) as served:
        for outcome, seconds in (("good", 0.004), ("good", 0.02), ("timeout", 1.0), ("withheld", None)):
            served.meters.observe_result("http", outcome, seconds)
        served.meters.observe_result("tcp", "bad", 0.3)
        samples = await scrape(served)
    assert value(samples, "check_results_total", type="http", outcome="good") == 2
    assert value(samples, "check_results_total", type="http", outcome="withheld") == 1
    assert value(samples, "check_duration_seconds_count", type="http") == 3, "what was withheld took no time"
    assert value(samples, "check_duration_seconds_bucket", type="http", le="0.005") == 1
    assert value(samples, "check_duration_seconds_sum", type="tcp") == 0.3


@pytest.mark.virtual_time
async def test_the_prober_tells_results_and_its_load() -> None:
    let_go = asyncio.Event()

    async def probe(check: Check, probe_path: object) -> Found:
        await let_go.wait()
        match check.port:
            case 1:
                return Found("fine")
            case 2:
                raise Down("HTTP 503")
            case 3:
                raise ValueError("odd")
        await asyncio.sleep(60)
        raise AssertionError("it has a time-out")

    seen: list[tuple[str, str, bool]] = []

    class Seen(Unobserved):
        def observe_result(self, type: str, outcome: str, seconds: float | None) -> None:
            seen.append((type, outcome, seconds is not None and seconds >= 0))

    kind = CheckType(TYPES["tcp"].params, probe)
    clock = Clock(asyncio.get_running_loop().time, chance=lambda: 0.0)
    prober = Prober(
        {"odd": kind},
        lambda health, turned: None,
        Journal(),
        clock,
        observer=Seen(),
    )
    target = scene.backend("x", "10.0.0.1", 1, kind="odd").check
    prober.want(
        [replace(target, port=port, interval=30.0, timeout=1.0 if port == 4 else 30.0) for port in (1, 2, 3, 4)]
    )
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(prober.run())
        while prober.load[0] < 4:
            await asyncio.sleep(0)
        assert prober.load == (4, 0, 1000)
        let_go.set()
        while len(seen) < 4:
            await asyncio.sleep(0.005)
        running.cancel()
    assert sorted(seen) == [("odd", outcome, True) for outcome in ("bad", "error", "good", "timeout")]
    assert prober.load == (0, 0, 1000)


@pytest.mark.virtual_time
async def test_probes_that_wait_for_a_place_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anycastlb.engine.probing.MAX_AT_ONCE", 2)

    async def probe(check: Check, probe_path: object) -> Found:
        await asyncio.sleep(60)
        return Found("late")

    kind = CheckType(TYPES["tcp"].params, probe)
    clock = Clock(asyncio.get_running_loop().time, chance=lambda: 0.0)
    prober = Prober(
        {"odd": kind},
        lambda health, turned: None,
        Journal(),
        clock,
    )
    target = scene.backend("x", "10.0.0.1", 1, kind="odd").check
    prober.want([replace(target, port=port, timeout=30.0) for port in range(1, 6)])
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(prober.run())
        while sum(prober.load[:2]) < 5:
            await asyncio.sleep(0)
        assert prober.load == (2, 3, 2)
        running.cancel()
    assert prober.load == (0, 0, 2)


async def test_turns_are_counted_from_events_and_forgotten_with_their_objects() -> None:
    meters, journal = Meters(), Journal()
    journal.observers.append(meters.observe_event)
    async with serving(scene.trouble(), meters=meters, journal=journal) as served:
        journal.emit(Event("gate", "192.0.2.10", after="open"))  # it was never closed: no turn
        for _ in range(3):
            journal.emit(Event("gate", "192.0.2.10", before="open", after="closed", level="warning"))
        journal.emit(Event("gate", "192.0.2.11", before="closed", after="open"))
        journal.emit(Event("gate", "198.51.100.1", before="closed", after="open"))
        journal.emit(Event("bgp", "10.0.0.1", before="down", after="up"))
        journal.emit(Event("bgp", "bridge", "connected", after="connected"))
        journal.emit(Event("bgp", "bridge", "a second bridge was refused", level="error"))
        samples = await scrape(served)
        served.snapshot = scene.calm()
        meters.observe_cycle(served.snapshot, 0.01)
        after = await scrape(served)
        served.snapshot = scene.trouble()
        meters.observe_cycle(served.snapshot, 0.01)
        again = await scrape(served)
    assert value(samples, "vip_transitions_total", vip="192.0.2.10", to="closed") == 3
    assert value(samples, "vip_transitions_total", vip="192.0.2.10", to="open") == 0
    assert value(samples, "bgp_session_transitions_total", peer="10.0.0.1", to="up") == 1
    assert value(samples, "bgp_bridge_transitions_total", to="connected") == 1
    assert value(samples, "bgp_bridge_transitions_total", to="gone") == 0
    assert not any("198.51.100.1" in dict(labels).values() for _, labels in samples)
    assert value(after, "vip_transitions_total", vip="192.0.2.10", to="closed") == 3
    assert not any("192.0.2.11" in dict(labels).values() for _, labels in after)
    assert value(again, "vip_transitions_total", vip="192.0.2.11", to="open") == 0, "a new VIP of that address"


async def test_reads_of_the_catalog_are_counted() -> None:
    async with serving(scene.calm()) as served:
        for outcome in ("changed", "unchanged", "failed", "failed"):
            served.meters.observe_read(outcome)
        samples = await scrape(served)
    assert [value(samples, "catalog_reads_total", outcome=o) for o in ("changed", "unchanged", "failed")] == [1, 1, 2]


async def test_the_event_loop_s_lag_is_sampled() -> None:
    import time

    async with serving(scene.calm()) as served, asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(served.meters.watch_loop())
        await asyncio.sleep(0.01)
        time.sleep(0.6)  # nothing else can run meanwhile
        await asyncio.sleep(0.3)
        samples = await scrape(served)
        watching.cancel()
    assert value(samples, "event_loop_lag_seconds_count") >= 1
    assert value(samples, "event_loop_lag_seconds_sum") > 0.25


async def test_requests_are_counted_by_route_method_and_class() -> None:
    async with serving(scene.calm()) as served:
        await scrape(served)

        def get(path: str, method: str = "GET") -> None:
            request = urllib.request.Request(f"{served.url}{path}", method=method)
            try:
                urllib.request.urlopen(request, timeout=PATIENCE).read()
            except urllib.error.HTTPError:
                return

        for path, method in (
            ("/v1/why/web", "GET"),
            ("/v1/why/nothing", "GET"),
            ("/random/1", "GET"),
            ("/random/2", "PROPFIND"),
            ("/v1/confirm", "GET"),
        ):
            await to_thread(get, path, method)
        samples = await scrape(served)
    why = {"route": "/v1/why/{object}", "method": "GET"}
    assert value(samples, "http_requests_total", **why, status="2xx") == 1
    assert value(samples, "http_requests_total", **why, status="4xx") == 1
    assert value(samples, "http_request_duration_seconds_count", **why) == 2
    assert value(samples, "http_requests_total", route="none", method="GET", status="4xx") == 2, "no route, or not this"
    assert value(samples, "http_requests_total", route="none", method="other", status="4xx") == 1
    assert value(samples, "http_requests_pending") == 1, "this one"
    assert not any("random" in str(labels) for _, labels in samples)


# ---------------------------------------------------------------- the catalog


@pytest.mark.parametrize(
    ("key", "path", "kind"),
    [
        ("services/web", "port", "service"),
        ("services/web/backends/web1", "weight", "backend"),
        ("/etc/anycastlb/catalog/services/web.toml", "", "service"),
        ("/srv/defaults/services/web.json", "", "service"),
        ("/etc/anycastlb/catalog/defaults.yaml", "", "defaults"),
        ("defaults", "", "defaults"),
        ("drain/lb1", "", "drain"),
        ("services/web", "backends_from", "discovery"),
        ("service/web", "", "other"),
    ],
)
def test_problems_by_the_kind_of_document(key: str, path: str, kind: str) -> None:
    assert document_of(Problem(key, path, "expected something else")) == kind
    assert kind in DOCUMENTS


def test_a_fingerprint_tells_documents_and_their_age_apart_and_nothing_else() -> None:
    def of(good: Mapping[str, Entry], **more: Any) -> int:
        return fingerprint_number(Catalog(good=good, **more))

    a, b = Entry(b'{"vip": 1}', created=5, version="5"), Entry(b'{"vip": 2}')
    documents = {"services/a": a, "services/b": b}
    assert of(documents) == of({"services/b": b, "services/a": Entry(a.value, created=5)}, index=77)
    prints = [of({}), of(documents), of({"services/a": a}), of({"services/a": b, "services/b": a})]
    prints.append(of({"services/a": Entry(a.value + b"services/b")}))
    prints.append(of({**documents, "services/a": Entry(a.value, created=9)}))  # another order of backends
    assert len(set(prints)) == len(prints)
    assert all(float(number) == number < 2**48 for number in prints)


async def test_discoveries_and_what_they_found() -> None:
    api, gone = ConsulInstances("api", tag="blue"), ConsulInstances("gone")
    found = (Instance("a", scene.backend("x", "10.0.0.1", 1).address),)
    catalog = replace(
        scene.calm().inputs.catalog, discovers={api: ("web", "shop"), gone: ("x",)}, instances={api: found}
    )
    snapshot = replace(scene.calm(), inputs=replace(scene.calm().inputs, catalog=catalog))
    async with serving(snapshot) as served:
        samples = await scrape(served)
    assert value(samples, "discovery_instances", discovery=str(api)) == 1
    assert value(samples, "discovery_services", discovery=str(api)) == 2
    assert ("anycastlb_discovery_instances", frozenset({("discovery", str(gone))})) not in samples, "nothing is known"
    assert value(samples, "discovery_services", discovery=str(gone)) == 1


# ---------------------------------------------------------------- backends and VIPs


async def test_what_a_weight_is_made_of() -> None:
    async with serving(scene.subtle()) as served:
        samples = await scrape(served)

    def of(name: str, backend: str) -> float | None:
        labels = {"service": "shop", "vip": "192.0.2.20", "backend": backend}
        return samples.get((f"anycastlb_backend_{name}", frozenset(labels.items())))

    assert (of("configured_weight", "s2"), of("administrative_weight", "s2")) == (100, 40)
    assert of("administrative_weight", "s1") is None
    assert of("health_ratio", "s3") == 0.5, "it asked for half"
    assert of("slow_start_ratio", "s1") is not None and 0 < (of("slow_start_ratio", "s1") or 0) <= 1
    assert (of("drained", "s4"), of("drained", "s2"), of("weight", "s4")) == (1, 0, 0)
    assert of("leaves_timestamp_seconds", "s4") == scene.WALL + 12
    assert of("leaves_timestamp_seconds", "s1") is None
    assert (of("check_up", "s2"), of("up", "s2")) == (0, 1), "one failure is no verdict"
    assert of("check_unknown", "s1") == 0
    assert (of("transition_timestamp_seconds", "s5") or 0) > scene.WALL - 30


async def test_a_backend_without_a_result_is_unknown() -> None:
    async with serving(scene.trouble()) as served:
        samples = await scrape(served)
    at = {"service": "dns", "vip": "192.0.2.11"}
    assert value(samples, "backend_check_unknown", backend="dns4", **at) == 1
    assert value(samples, "backend_check_unknown", backend="dns1", **at) == 0
    names = {name for name, labels in samples if ("backend", "dns4") in labels}
    assert not {"anycastlb_backend_check_up", "anycastlb_backend_transition_timestamp_seconds"} & names


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("too_few_backends", "backends"),
        ("peers_reach", "backends"),
        ("last_elsewhere", "backends"),
        ("hold_up", "hold"),
        ("hold_down", "hold"),
        ("damped", "damped"),
        ("unsettled", "unsettled"),
        ("returning", "unsettled"),
        ("catching_up", "unsettled"),
        ("node_stopping", "stopping"),
        ("node_drained", "drained"),
        ("refused", "refused"),
    ],
)
def test_why_a_vip_is_closed_in_one_word(code: str, word: str) -> None:
    assert closed_by(Verdict(scene.DNS, False, Reason(code, "a text that nobody takes apart"), 0.0)) == word


async def test_what_traffic_back_never_shows_is_left_out() -> None:
    key = scene.WEB.key(scene.WEB4)
    web1 = next(destination for destination in scene.BACKENDS if destination.service == key)
    rates = (5, 50, 0, 4000, 0)

    async def statistics() -> dict[object, TrafficCounters]:
        return {key: TrafficCounters(connections=7, rates=rates), web1: TrafficCounters(connections=3)}

    async with serving(scene.trouble(), statistics=statistics) as served:
        samples = await scrape(served)
    service = {"service": "web", "vip": "192.0.2.10"}
    assert value(samples, "ipvs_service_connection_rate", **service) == 5
    assert value(samples, "ipvs_service_byte_rate", direction="in", **service) == 4000
    assert value(samples, "ipvs_service_byte_rate", direction="out", **service) == 0
    assert value(samples, "ipvs_backend_packet_rate", backend="web1", direction="in", **service) == 0
    backend = {(name, dict(labels).get("direction")) for name, labels in samples if "ipvs_backend" in name}
    assert not any("_out_" in name or direction == "out" for name, direction in backend), "its forward is tunnel"


def test_labels_and_numbers_in_words() -> None:
    family = Family("anycastlb_x_total", "counter", ("b", "a"), "Text.")
    samples = [(("", 'q"u\\o\nte'), 2**63 + 1), (("y", "é"), 0.1), (("", "z"), True), (("", "inf"), float("inf"))]
    plain = b"".join(Writer(False).write(FamilySamples(family, samples)).joined()).decode()
    assert plain.splitlines() == [
        "# HELP anycastlb_x_total Text.",
        "# TYPE anycastlb_x_total counter",
        'anycastlb_x_total{a="q\\"u\\\\o\\nte",b=""} 9223372036854775809',
        'anycastlb_x_total{a="é",b="y"} 0.1',
        'anycastlb_x_total{a="z",b=""} 1',
        'anycastlb_x_total{a="inf",b=""} +Inf',
    ]
    (found,) = families(plain)
    assert [(s.labels["b"], s.labels["a"]) for s in found.samples] == [labels for labels, _ in samples]
    modern = b"".join(Writer(True).write(FamilySamples(family, samples)).joined()).decode()
    (found,) = open_families(modern + "# EOF\n")
    assert (found.name, found.type, len(found.samples)) == ("anycastlb_x", "counter", 4)


# ---------------------------------------------------------------- many at once


async def test_a_scrape_after_others_is_the_one_of_a_daemon_that_is_new() -> None:
    """What was written before is used again only where nothing has changed, whatever changes and in which order."""
    trouble, counted = scene.trouble(), TrafficCounters(5, 6, 7, 8, 9, 1, 2, (1, 2, 3, 4, 5))
    keys = [*trouble.decision.backends, *(s.key for v in trouble.decision.verdicts.values() for s in v.services)]
    kernel: dict[object, TrafficCounters] = {}
    health = trouble.inputs.health
    turned = {check: replace(state, up=not state.up, since=state.since + 1) for check, state in health.items()}
    (first, verdict), *others = trouble.decision.backends.items()
    fewer = replace(trouble.decision, backends=dict(others))
    heavier = replace(trouble.decision, backends={**trouble.decision.backends, first: replace(verdict, weight=7)})
    elsewhere = replace(trouble.decision, verdicts={scene.DNS: trouble.decision.verdicts[scene.DNS]})
    staying = replace(trouble.decision, memory=replace(trouble.decision.memory, leaving={}))
    smaller = replace(trouble.inputs, catalog=replace(trouble.inputs.catalog, services=(scene.RESOLVER,)))
    history = [
        trouble,
        replace(trouble, inputs=replace(trouble.inputs, health=turned)),
        replace(trouble, decision=fewer),
        replace(trouble, decision=heavier),
        replace(trouble, decision=elsewhere),
        replace(trouble, decision=staying),
        replace(trouble, inputs=smaller),
        replace(trouble, at_wall=trouble.at_wall + 60.0),
        scene.calm(),
        scene.subtle(),
        trouble,
    ]
    served = Served(trouble)
    metrics = _metrics_of(served, kernel)
    for step, served.snapshot in enumerate([*history, *reversed(history)]):
        kernel.update(dict.fromkeys(keys[step % 3 :], replace(counted, bytes_in=step)) if step % 2 else {})
        text, _ = await metrics.scrape()
        fresh, _ = await _metrics_of(served, kernel).scrape()
        assert _ours(text) == _ours(fresh)


def _metrics_of(served: Served, kernel: Mapping[object, TrafficCounters]) -> Metrics:
    async def statistics() -> dict[object, TrafficCounters]:
        return {key: replace(counters) for key, counters in kernel.items()}

    return Metrics(served, Meters(), Journal(), Sources(statistics), lambda: scene.NOW, lambda: scene.WALL)


def _ours(text: Text) -> list[str]:
    return [line for line in b"".join(text).decode().splitlines() if not line.startswith("process_")]


async def test_those_who_ask_while_a_scrape_is_made_share_the_next_one() -> None:
    looks = count(1)
    made = []

    async def statistics() -> dict[object, TrafficCounters]:
        made.append(next(looks))
        await asyncio.sleep(0.01)
        return {}

    metrics = Metrics(Served(scene.calm()), Meters(), Journal(), Sources(statistics), clock=lambda: scene.NOW)
    texts = await asyncio.gather(*(metrics.scrape() for _ in range(50)))
    assert made == [1, 2], "the first, and one begun after all had asked"
    assert len({text for text, _ in texts[1:]}) == 1
    assert all(b"anycastlb_vip_open" in b"".join(text) for text, _ in texts)
    await metrics.scrape()
    assert made == [1, 2, 3], "nothing old is ever served"


async def test_a_scrape_that_fails_fails_alone() -> None:
    turns = count()

    async def statistics() -> dict[object, TrafficCounters]:
        if not next(turns):
            raise RuntimeError("a fault of ours")
        return {}

    metrics = Metrics(Served(scene.calm()), Meters(), Journal(), Sources(statistics))
    results = await asyncio.gather(*(metrics.scrape() for _ in range(3)), return_exceptions=True)
    assert [isinstance(result, RuntimeError) for result in results] == [True, False, False]


# ---------------------------------------------------------------- what ships with them


async def everything() -> tuple[set[str], dict[str, set[str]]]:
    """Names of all samples, and each family's labels, of scrapes that together have every object there is."""
    held = {
        key: TrafficCounters(connections=1, rates=(1, 1, 1, 1, 1))
        for key in (scene.WEB.key(scene.WEB4), *scene.BACKENDS)
    }
    nat = replace(scene.WEB, backends=tuple(replace(backend, forward="nat") for backend in scene.WEB.backends))
    catalog = replace(
        scene.trouble().inputs.catalog,
        services=(nat,),
        discovers={(a := ConsulInstances("a")): ("w",)},
        instances={a: ()},
    )
    follows = Cluster(follows=True)
    registrars = (Registrar("dns_records", "DNS", refused={"www": "taken"}), Registrar("consul_services", "Consul"))
    trouble = replace(
        scene.trouble(),
        registrars=registrars,
        inputs=replace(scene.trouble().inputs, catalog=catalog, cluster=follows),
        actual=replace(scene.trouble().actual, config={"tcp_timeout": 900}),
    )

    verdicts = trouble.decision.verdicts
    kept = {scene.WEB4: replace(verdicts[scene.WEB4], kept="limit")}
    trouble = replace(trouble, decision=replace(trouble.decision, verdicts={**verdicts, **kept}))

    async def statistics() -> dict[Any, TrafficCounters]:
        return held

    samples = (Traffic(scene.NOW - 2, 10, 3), Traffic(scene.NOW - 1, 15, 3))
    left = NodeDrain(
        "withdrawn", "drained", scene.NOW - 3, scene.NOW + 50, Reason("withdrawn", "a reason"), samples=samples
    )
    memory = replace(trouble.decision.memory, node_drain=left)
    trouble = replace(trouble, decision=replace(trouble.decision, memory=memory))

    names, labels = set(), {}
    for snapshot in (trouble, scene.subtle(flaps=2), http_scene.snapshot()):
        http = (
            {"http": http_scene.counters, "ends": lambda: {"shop": scene.WALL}} if snapshot.inputs.policy.http else {}
        )
        async with serving(snapshot, statistics=statistics, **http) as served:
            served.journal.emit(Event("gate", "192.0.2.10"))
            served.meters.observe_result("http", "good", 0.1)
            await fetch(served)
            text, _ = await fetch(served)
        for family in families(text):
            for sample in family.samples:
                names.add(sample.name)
                short = re.sub(r"_(bucket|sum|count|created)$", "", sample.name)
                labels.setdefault(short if family.type == "histogram" else sample.name, set()).update(
                    set(sample.labels) - {"le"}
                )
    return names, labels


async def test_every_declared_family_is_told_with_its_labels_and_no_other() -> None:
    _, labels = await everything()
    ours = {name: found for name, found in labels.items() if name.startswith("anycastlb_")}
    assert ours == {family.name: set(family.labels) for family in FAMILIES.values()}


def test_the_documentation_has_the_tables_of_the_code() -> None:
    text = Path(promql.CONFIGS.parent / "docs/METRICS.md").read_text()
    assert "\n".join(document()) in text, "print them anew: python -m anycastlb.serving.metrics.families"


def test_every_alert_is_explained_and_tested() -> None:
    text = Path(promql.CONFIGS.parent / "docs/METRICS.md").read_text()
    alerts = [name for name, _ in promql.rule_expressions()]
    assert sorted(alerts) == sorted(re.findall(r"^### (Anycastlb\w+)$", text, re.MULTILINE))
    assert len(set(alerts)) == len(alerts) >= 25
    tested = "".join(path.read_text() for path in (promql.CONFIGS / "prometheus").glob("alerts*.test.yml"))
    assert [name for name in alerts if f'alertname="{name}"' not in tested] == []


def test_every_alert_says_what_to_do() -> None:
    for rule in promql.rules():
        assert rule["labels"]["severity"] in ("critical", "warning"), rule["alert"]
        told = rule["annotations"]
        assert told["runbook"] == f"docs/METRICS.md#{rule['alert'].lower()}"
        assert told["summary"] and told["description"].rstrip()[-1] not in ",;:", rule["alert"]


async def test_alerts_and_dashboard_name_only_what_there_is() -> None:
    names, _ = await everything()
    known = names | {
        "up",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
    }
    for where, expression in [*promql.rule_expressions(), *promql.dashboard_expressions()]:
        named = promql.names(expression)
        assert named and named <= known, f"{where}: {sorted(named - known)}"


def test_the_dashboard_can_be_imported_anywhere() -> None:
    ids = [panel["id"] for panel in promql.panels()]
    assert len(set(ids)) == len(ids) > 30
    text = promql.DASHBOARD.read_text()
    sources = {json.dumps(source) for source in _values(json.loads(text), "datasource")}
    assert sources == {json.dumps({"type": "prometheus", "uid": "${datasource}"})}
    assert "__inputs" not in text
    cells = [(p["gridPos"], p["title"]) for p in promql.panels()]
    taken = [
        (x, y) for at, _ in cells for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(set(taken)) == len(taken) and max(x for x, _ in taken) < 24, "panels overlap"
    assert all(panel.get("description") for panel in promql.panels() if panel["type"] != "row")


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ('sum by (job, vip) (rate(a_total{x="b_total{"}[5m])) > 4', {"a_total"}),
        (
            "histogram_quantile(0.99, sum(rate(a_bucket[5m])) by (le)) / on (x) group_left (y) b unless c",
            {"a_bucket", "b", "c"},
        ),
        ('up{job=~"x.*"} == 0 or absent(y) and 1e3 * time() offset 5m', {"up", "y"}),
        ('count(count_values("v", a))', {"a"}),
    ],
)
def test_names_are_found_in_expressions(expression: str, found: Iterable[str]) -> None:
    assert promql.names(expression) == found


def _values(node: Any, key: str) -> Iterable[Any]:
    if isinstance(node, dict):
        yield from ([node[key]] if key in node else [])
        for child in node.values():
            yield from _values(child, key)
    elif isinstance(node, list):
        for child in node:
            yield from _values(child, key)


async def test_settings_of_ipvs() -> None:
    sync = SyncDaemon("eth0", 1, ip_address("224.0.0.81"), 8848)
    config = {"tcp_timeout": 300, "tcpfin_timeout": 60, "udp_timeout": 20, "sync_backup": sync}
    wanted = replace(scene.trouble().inputs, policy=Policy("lb1", config={"sync_master": sync, "sync_backup": sync}))
    snapshot = replace(scene.trouble(), inputs=wanted, actual=replace(scene.trouble().actual, config=config))
    async with serving(snapshot) as served:
        text, _ = await fetch(served)
    for line in ('timeout_seconds{kind="tcp"} 300', 'timeout_seconds{kind="tcpfin"} 60', "sync_wanted 1",
                 'sync_running{role="master"} 0', 'sync_running{role="backup"} 1'):  # fmt: skip
        assert f"\nanycastlb_ipvs_{line}\n" in text


@pytest.mark.parametrize("forward", ["tunnel", "nat"])
def test_counters_that_are_one_object_are_told_for_each_backend(forward: Any) -> None:
    one = TrafficCounters(connections=7, bytes_out=9, active=2, rates=(1, 2, 3, 4, 5))
    backends = [replace(scene.backend(name, "10.1.0.9", 80), forward=forward) for name in "abc"]
    apart = list(counted_columns([replace(one) for _ in backends], backends))
    assert list(counted_columns([one] * 3, backends)) == apart
    assert {len(numbers) for _, _, numbers in apart} == ({3} if forward == "nat" else {0, 3})
