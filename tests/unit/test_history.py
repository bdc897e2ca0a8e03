"""anycastlb.serving.history: a bounded ring of rates and check results."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from anycastlb.core.model import DriverError, HttpCounters, PoolCounters, Result, SiteCounters, SiteKey, Snapshot
from anycastlb.core.model.machine import TrafficCounters
from anycastlb.serving import history
from anycastlb.serving.history import SLOTS, History, sample
from tests.support import http_scene, scene
from tests.support.serving import ask, serving
from tests.support.waiting import eventually

KEY = scene.WEB.key(scene.WEB4)
WEB1 = next(key for key, told in scene.BACKENDS.items() if told.backend == "web1")


def fed(counts: list[int], snapshot: Snapshot | None = None) -> History:
    """A history that saw web1 count so many connections, a sample each five seconds, the last one now."""
    ring = History()
    for place, count in enumerate(counts):
        at = scene.NOW - 5 * (len(counts) - 1 - place)
        ring.observe(snapshot or scene.calm(), {WEB1: TrafficCounters(connections=count, active=3)}, at)
    return ring


def backends(ring: History) -> dict[str, Any]:
    return {item["backend"]: item for item in ring.series(scene.NOW, "web")["backends"]}


def test_rates_are_per_second_and_oldest_first() -> None:
    view = fed([0, 50, 150]).series(scene.NOW, "web")
    assert view["ages_seconds"] == [10, 5, 0]
    told = {item["backend"]: item["rates"]["connections"] for item in view["backends"]}
    assert told == {"web1": [None, 10, 20], "web2": [None] * 3, "web3": [None] * 3}


def test_a_counter_that_began_anew_is_no_negative_rate() -> None:
    assert backends(fed([100, 200, 5, 10]))["web1"]["rates"]["connections"] == [None, 20, None, 1]


def test_the_ring_is_bounded_and_turns() -> None:
    ring = fed([10 * n for n in range(SLOTS + 30)])
    told = backends(ring)["web1"]
    assert told["rates"]["connections"] == [2.0] * SLOTS
    assert len(told["health"]) == SLOTS
    assert ring.series(scene.NOW)["ages_seconds"][0] == 5 * (SLOTS - 1)


def test_what_is_sampled_less_often_reaches_ten_minutes_back_and_no_further() -> None:
    ring = History()
    for at in range(0, 3601, 60):
        ring.observe(scene.calm(), {WEB1: TrafficCounters(connections=600 * at)}, scene.NOW - 3600 + at)
    assert ring.series(scene.NOW)["ages_seconds"] == [540 - 60 * n for n in range(10)]
    assert backends(ring)["web1"]["rates"]["connections"] == [600.0] * 10


def test_a_newcomer_has_no_past_though_it_takes_the_place_of_what_left() -> None:
    ring, snapshot = fed([0, 50, 150]), scene.calm()
    (web,) = (service for service in snapshot.inputs.catalog.services if service.name == "web")
    named = replace(web, backends=tuple(replace(one, name=f"new-{one.name}") for one in web.backends))
    catalog = replace(snapshot.inputs.catalog, services=(named,))
    renamed = replace(snapshot, inputs=replace(snapshot.inputs, catalog=catalog))
    for count in (200, 300):
        ring.observe(renamed, {WEB1: TrafficCounters(connections=count)}, scene.NOW)
    past = backends(ring)
    assert {name[:4] for name in past} == {"new-"}
    assert all(one["rates"]["connections"][:4] == [None] * 4 for one in past.values())
    assert all(one["health"][:3] == "---" for one in past.values())


def test_rows_are_bounded_services_first(monkeypatch: Any) -> None:
    monkeypatch.setattr(history, "MAX_ROWS", 2)
    view = fed([1, 2]).series(scene.NOW, "web")
    assert (len(view["services"]), len(view["backends"]), view["left_out"]) == (1, 1, 2)


def test_what_left_the_catalog_is_forgotten() -> None:
    ring = fed([0, 10])
    ring.observe(Snapshot(), {}, scene.NOW)
    assert ring.series(scene.NOW)["services"] == []
    assert ring.stats(scene.NOW)["services"] == []


def test_health_slot_by_slot() -> None:
    """A failure between two samples shows although the backend stayed up."""
    ring, snapshot = History(), scene.calm()
    for at, ok in ((scene.NOW - 10, True), (scene.NOW - 5, False), (scene.NOW, True)):
        states = {
            check: replace(state, recent=(Result(ok, "", 0.1, at - 1),), last=None)
            for check, state in snapshot.inputs.health.items()
        }
        ring.observe(replace(snapshot, inputs=replace(snapshot.inputs, health=states)), None, at)
    told = backends(ring)
    assert (told["web1"]["health"], told["web3"]["health"]) == ("ufu", "rdr")
    ring = History()
    ring.observe(replace(snapshot, inputs=replace(snapshot.inputs, health={})), None, scene.NOW)
    assert backends(ring)["web1"]["health"] == "-"


async def test_counters_and_rates_through_the_api() -> None:
    async with serving(scene.calm(), history=fed([0, 50])) as served:
        status, view, _ = await ask(served, "/v1/stats")
        (web,) = view["services"]
        assert (status, web["service"], web["vip"], view["age_seconds"]) == (200, "web", "192.0.2.10", 0)
        web1 = web["backends"][0]
        assert (web1["backend"], web1["connections"], web1["active"]) == ("web1", 50, 3)
        assert web1["per_second"]["connections"] == 10
        assert web["backends"][1]["connections"] is None
        status, view, _ = await ask(served, "/v1/history?service=web")
        assert (status, len(view["backends"])) == (200, 3)
        assert (await ask(served, "/v1/history"))[1]["backends"] == []
        status, view, _ = await ask(served, "/v1/history?service=nosuch")
        assert (status, view["error"]["where"]) == (404, "service")


async def test_a_kernel_that_does_not_tell_is_told_and_survived() -> None:
    ring, asked = History(), 0

    async def statistics() -> history.Kernel:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise DriverError("no IPVS here")
        return {WEB1: TrafficCounters(connections=asked)}

    assert ring.stats(scene.NOW)["error"]
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(sample(ring, scene.calm, statistics, pause=0.01, clock=lambda: scene.NOW))
        await eventually(lambda: ring.stats(scene.NOW)["error"] == "no IPVS here")
        await eventually(lambda: ring.stats(scene.NOW)["error"] == "")
        task.cancel()
    assert backends(ring)["web1"]["health"].startswith("u")


# ---------------------------------------------------------------- gateways and pools


def site(requests: int) -> SiteCounters:
    return SiteCounters(requests, 10 * requests, 100 * requests, (requests - 1, 0, 0, 1) if requests else (0, 0, 0, 0))


def counted(exact: int, wildcard: int, pool: int) -> HttpCounters:
    sites = {SiteKey("web", "shop.example"): site(exact), SiteKey("web", "*.shop.example"): site(wildcard)}
    return HttpCounters(sites, {"blog": PoolCounters(pool, 1, 2, 3, 4)})


def http_fed(*counts: HttpCounters | None) -> History:
    """A sample each five seconds, the last one now."""
    ring = History()
    for place, each in enumerate(counts):
        ring.observe(http_scene.snapshot(), None, scene.NOW - 5 * (len(counts) - 1 - place), http=each)
    return ring


def test_gateways_hostnames_and_pools_have_counters_and_rates() -> None:
    ring = http_fed(counted(0, 0, 5), counted(10, 5, 15))
    stats, series = ring.stats(scene.NOW), ring.series(scene.NOW)
    (gateway,) = stats["gateways"]
    assert (gateway["gateway"], gateway["requests"], gateway["bytes_out"]) == ("web", 15, 1500)
    assert (gateway["responses_2xx"], gateway["responses_5xx"]) == (13, 2)
    assert gateway["per_second"]["requests"] == 3.0 and gateway["per_second"]["bytes_in"] == 30.0
    hosts = {one["hostname"]: (one["requests"], one["per_second"]["requests"]) for one in stats["hostnames"]}
    assert hosts == {"shop.example": (10, 2.0), "*.shop.example": (5, 1.0)}
    pools = {one["pool"]: (one["requests"], one["per_second"]["requests"]) for one in stats["pools"]}
    assert pools == {"blog": (15, 2.0), "blog-canary": (0, 0.0), "web": (0, 0.0)}
    (plotted,) = series["gateways"]
    assert plotted["gateway"] == "web" and plotted["rates"]["requests"] == [None, 3.0]
    assert {one["pool"]: one["rates"]["requests"] for one in series["pools"]}["blog"] == [None, 2.0]
    assert "gateways" not in ring.series(scene.NOW, "web")


def test_a_reload_and_a_haproxy_that_is_away_make_gaps_and_no_negative_rates() -> None:
    ring = http_fed(counted(10, 10, 5), counted(20, 20, 5), counted(5, 5, 0), counted(10, 5, 5), None, counted(1, 1, 1))
    rates = {one["pool"]: one["rates"]["requests"] for one in ring.series(scene.NOW)["pools"]}
    assert rates["blog"] == [None, 0.0, None, 1.0, None, None]
    (gateway,) = ring.series(scene.NOW)["gateways"]
    assert gateway["rates"]["requests"] == [None, 4.0, None, 1.0, None, None]
    assert http_fed(None).stats(scene.NOW)["gateways"][0]["requests"] is None


def test_the_past_of_gateways_is_bounded_and_what_left_is_forgotten() -> None:
    ring = http_fed(*[counted(10 * n, 0, n) for n in range(SLOTS + 10)])
    (gateway,) = ring.series(scene.NOW)["gateways"]
    assert gateway["rates"]["requests"] == [2.0] * SLOTS
    ring.observe(Snapshot(), {}, scene.NOW + 5, http=HttpCounters())
    assert {name: ring.stats(scene.NOW)[name] for name in ("gateways", "hostnames", "pools")} == {
        "gateways": [],
        "hostnames": [],
        "pools": [],
    }


async def test_haproxy_is_asked_for_each_sample() -> None:
    ring, answers = History(), [counted(n, n, n) for n in range(1000)]

    async def statistics() -> history.Kernel:
        return {}

    async def http() -> HttpCounters | None:
        return answers.pop(0)

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(sample(ring, http_scene.snapshot, statistics, http=http, pause=0.01))
        await eventually(lambda: ring.stats(scene.NOW)["gateways"] and ring.stats(scene.NOW)["gateways"][0]["requests"])
        task.cancel()


async def test_a_haproxy_that_does_not_answer_thins_out_no_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "TIMEOUT", 0.01)
    ring, asked = History(), 0

    async def statistics() -> history.Kernel:
        return {}

    async def http() -> HttpCounters | None:
        nonlocal asked
        asked += 1
        await asyncio.Event().wait()
        return None

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(sample(ring, http_scene.snapshot, statistics, http=http, pause=0.01))
        await eventually(lambda: asked > 3)
        assert len(ring.series(scene.NOW)["ages_seconds"]) >= 3
        assert ring.stats(scene.NOW)["gateways"][0]["requests"] is None, "not known"
        task.cancel()
