"""What operators read: the views of a snapshot, and their plain text as golden files.

``ANYCASTLB_GOLDEN=write pytest tests/unit/test_views.py`` writes the golden files anew; read the difference.
"""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from anycastlb.adapters.system.journal import EventRecord, Journal
from anycastlb.cli.commands import checks
from anycastlb.cli.render import style, why
from anycastlb.core.decision import decide, gate, weights
from anycastlb.core.events import Event
from anycastlb.core.model import (
    Feed,
    Inputs,
    Memory,
    Policy,
    Reason,
    Result,
    Service,
    Shrink,
    Snapshot,
    State,
    Verdict,
    VirtualService,
    Weights,
)
from anycastlb.serving.views import evidence
from anycastlb.serving.views.arithmetic import explain_weight
from anycastlb.serving.views.changes import plan_view
from anycastlb.serving.views.events import event_views
from anycastlb.serving.views.format import span
from anycastlb.serving.views.index import destination_keys
from anycastlb.serving.views.status import liveness, readiness, status_view
from anycastlb.serving.views.why import explain, near
from tests.support import scene
from tests.support.golden import GOLDEN, drawn, golden


def explained(snapshot: Snapshot, name: str, columns: int = 80) -> str:
    view = explain(snapshot, scene.NOW, name)
    assert view is not None
    return style.plain(why.why_lines(view, columns))


# ---------------------------------------------------------------- golden files


def test_status_of_a_node_in_trouble() -> None:
    golden("status-trouble", drawn(scene.trouble()))


def test_status_of_a_calm_node() -> None:
    text = drawn(scene.calm())
    golden("status-calm", text)
    assert "!" not in text


def test_a_vip_that_is_only_kept_open_is_no_good_news() -> None:
    calm = scene.calm()
    before = calm.decision.verdicts[scene.WEB4]
    kept = replace(
        before,
        kept="last",
        reason=Reason("kept_last", "0/3 backends up, needs 1; kept as the last route (last = keep)"),
    )
    decision = replace(calm.decision, verdicts={**calm.decision.verdicts, scene.WEB4: kept})
    (line,) = [line for line in drawn(replace(calm, decision=decision), 300).splitlines() if str(scene.WEB4) in line]
    assert "◐" in line and "open for 2 h: 0/3 backends up, needs 1; kept as the last route (last = keep)" in line


def test_status_on_a_narrow_terminal() -> None:
    golden("status-narrow", drawn(scene.trouble(), 60))


def test_status_of_a_drained_and_stopping_node_without_source_and_bridge() -> None:
    calm = scene.calm()
    catalog = replace(calm.inputs.catalog, drained=frozenset({"lb1", "lb2"}))
    feed = Feed(False, scene.NOW - 95, "connection refused by 127.0.0.1:8500", loaded=True, cached=True)
    inputs = replace(calm.inputs, catalog=catalog, feed=feed, stopping=True)
    verdict = Verdict(scene.WEB4, False, Reason("node_stopping", "this node is stopping"), scene.NOW - 2)
    snapshot = replace(
        calm,
        inputs=inputs,
        actual=replace(calm.actual, routes={}),
        decision=replace(calm.decision, verdicts={scene.WEB4: verdict}),
        speaker=replace(calm.speaker, connected=False, sessions=()),
    )
    golden("status-stopping", drawn(snapshot, now=scene.NOW + 75))


def test_status_before_the_first_cycle() -> None:
    golden(
        "status-starting",
        drawn(Snapshot(inputs=Inputs(Policy("lb1"), feed=Feed(error="no answer yet", since=scene.NOW)))),
    )


def test_status_of_a_service_that_asks_for_everything() -> None:
    golden("status-subtle", drawn(scene.subtle()))


@pytest.mark.parametrize("name", ["192.0.2.20", "shop/s1", "shop/s2", "shop/s3", "shop/s4", "shop/s6", "shop/sorry"])
def test_why_of_subtle_things(name: str) -> None:
    """Probes through IPVS, evidence old and new, the arithmetic of weights, drain, floor, fallback, penalty."""
    golden("why-" + name.replace("/", "-"), explained(scene.subtle(), name))


def test_why_of_a_damped_vip() -> None:
    golden("why-damped", explained(scene.subtle(flaps=2), "192.0.2.20"))


@pytest.mark.parametrize(
    "name",
    ["192.0.2.10", "192.0.2.11", "192.0.2.12", "192.0.2.13", "2001:db8:ffff::10", "web", "web/web2", "dns/dns2", "api"],
)
def test_why(name: str) -> None:
    golden("why-" + name.replace("/", "-").replace(":", "_"), explained(scene.trouble(), name))


def test_the_list_of_checks() -> None:
    golden("checks", style.plain(checks.list_types(None, False, 80)))


def test_every_parameter_of_every_check() -> None:
    golden("checks-all", style.plain(checks.list_types(None, True, 80)))


def test_plan() -> None:
    view = plan_view(scene.trouble(), scene.NOW)
    golden("plan", style.plain(why.changes(view, 80, "The node is not running.")))


def test_plan_of_a_calm_node_is_empty() -> None:
    view = plan_view(scene.calm(), scene.NOW)
    assert view["changes"] == []
    assert "nothing to change" in style.plain(why.changes(view, 80))


def test_events() -> None:
    told = [
        EventRecord(1, scene.WALL, Event("catalog", "catalog", "index 4711", after="applied")),
        EventRecord(
            2, scene.WALL + 0.25, Event("gate", "192.0.2.11", "1/4 backends up, needs 2", "open", "closed", "warning")
        ),
        EventRecord(
            3, scene.WALL + 1, Event("failure", "create services tcp 192.0.2.12:25", scene.REFUSED.text, level="error")
        ),
    ]
    golden("events", style.plain(why.events(event_views(told))))


@pytest.mark.parametrize(
    "name",
    [
        "status-trouble",
        "status-calm",
        "status-stopping",
        "status-subtle",
        "why-web",
        "why-192.0.2.11",
        "why-192.0.2.20",
        "why-shop-s1",
        "why-damped",
        "plan",
        "checks",
        "checks-all",
    ],
)
def test_pictures_fit_eighty_columns(name: str) -> None:
    assert max(map(len, (GOLDEN / f"{name}.txt").read_text().splitlines())) <= 80


# ---------------------------------------------------------------- the views themselves


def test_status_names_everything_an_operator_asks_for() -> None:
    view = status_view(scene.trouble(), scene.NOW, scene.SOURCE)
    web = next(vip for vip in view["vips"] if vip["vip"] == "192.0.2.10")
    assert (web["open"], web["announced"], web["address"], web["since_seconds"]) == (True, True, True, 7200.0)
    web3 = web["services"][0]["backends"][2]
    assert (web3["up"], web3["weight"], web3["kernel_weight"], web3["nominal_weight"]) == (False, 0, 50, 50)
    assert web3["check"]["last"] == {
        "ok": False,
        "detail": "connection refused",
        "duration_seconds": 0.0004,
        "age_seconds": 1.2,
    }
    assert view["catalog"]["held"]["believed_in_seconds"] == 270
    assert view["pending"] == len(plan_view(scene.trouble(), scene.NOW)["changes"]) == 4


def test_vips_stand_in_order_ipv4_first() -> None:
    names = [vip["vip"] for vip in status_view(scene.trouble(), scene.NOW)["vips"]]
    assert names == ["192.0.2.10", "192.0.2.11", "192.0.2.12", "192.0.2.13", "2001:db8:ffff::10"]


@pytest.mark.parametrize("snapshot", [Snapshot(), scene.trouble(), scene.calm(), scene.subtle(), scene.subtle(2)])
def test_views_are_strict_json(snapshot: Snapshot) -> None:
    never = {vip: replace(v, since=gate.NEVER) for vip, v in snapshot.decision.verdicts.items()}
    snapshot = replace(snapshot, decision=replace(snapshot.decision, verdicts=never))
    for view in (status_view(snapshot, 5.0), plan_view(snapshot, 5.0), readiness(snapshot)):
        assert json.loads(json.dumps(view, allow_nan=False)) == view
    for name in ("192.0.2.10", "web", "web/web1", "192.0.2.20", "shop", "shop/s1"):
        json.dumps(explain(snapshot, 5.0, name), allow_nan=False)
    drawn(snapshot)


def test_a_gate_that_never_moved_has_no_age() -> None:
    snapshot = scene.trouble()
    verdict = replace(snapshot.decision.verdicts[scene.DNS], since=gate.NEVER)
    snapshot = replace(snapshot, decision=replace(snapshot.decision, verdicts={scene.DNS: verdict}))
    assert "○ 192.0.2.11  closed: 1/4 backends up, needs 2\n" in drawn(snapshot)


def test_views_join_what_the_decision_really_made() -> None:
    """The decision's own keys, also those of a firewall mark that serves two VIPs."""
    mark = Service("marked", (scene.DNS, scene.MAIL), "fwmark", 7, VirtualService("rr"), scene.RESOLVER.backends)
    catalog = replace(scene.trouble().inputs.catalog, services=(mark, scene.WEB))
    inputs = Inputs(Policy("lb1"), catalog, Feed(True, loaded=True), scene.HEALTH)
    decision = decide.decide(inputs, Memory(), scene.NOW)
    snapshot = Snapshot(inputs, decision.desired, decision, at=scene.NOW, cycle=1)
    view = status_view(snapshot, scene.NOW)
    assert [vip["vip"] for vip in view["vips"]] == ["192.0.2.10", "192.0.2.11", "192.0.2.12", "2001:db8:ffff::10"]
    for vip in view["vips"]:
        for service in vip["services"]:
            assert service["up"] == sum(backend["up"] for backend in service["backends"])
            assert all(backend["kernel_weight"] == backend["weight"] for backend in service["backends"])
    assert view["pending"] == 0
    assert "1/4 backends up" in explained(snapshot, "marked")
    empty = scene.waiting(replace(snapshot, actual=State()))
    told = {change["object"]: change["why"] for change in plan_view(empty, scene.NOW)["changes"]}
    assert told["destination tcp 192.0.2.10:80 -> 10.1.0.3:80"] == "down: connection refused"
    assert told["route 192.0.2.10"] == told["address 192.0.2.10"] == "2/3 backends up"


# ---------------------------------------------------------------- evidence and arithmetic


def backend_view(snapshot: Snapshot, name: str) -> dict[str, Any]:
    (vip,) = status_view(snapshot, scene.NOW)["vips"]
    return next(backend for backend in vip["services"][0]["backends"] if backend["backend"] == name)


def test_evidence_is_told_newest_first_and_failures_outlive_successes() -> None:
    check = backend_view(scene.subtle(), "s1")["check"]
    assert [(run["ok"], run["detail"], run["times"], run["earlier"]) for run in check["runs"]] == [
        (True, "HTTP 200", 10, False),
        (False, "HTTP 503", 1, True),
    ]
    assert (check["runs"][0]["newest_seconds"], check["runs"][0]["oldest_seconds"]) == (0.5, 18.5)
    assert (check["runs"][0]["fastest_seconds"], check["runs"][0]["slowest_seconds"]) == (0.004, 0.013)
    assert check["record"] == {"good": 12, "of": 13}


def test_every_single_result_is_in_the_answer_for_one_backend() -> None:
    view = explain(scene.subtle(), scene.NOW, "shop/s6")
    assert view is not None
    (evidence,) = view["evidence"]
    assert evidence["vip"] == "192.0.2.20"
    assert [result["age_seconds"] for result in evidence["results"]] == [3.0, 5.0, 7.0, 9.0, 16.5, 18.5, 20.5]
    assert [result["ok"] for result in evidence["results"]] == [False] * 4 + [True] * 3
    assert evidence["failures"] == [], "they are all among the last results"
    s1 = explain(scene.subtle(), scene.NOW, "shop/s1")
    assert s1 is not None
    assert [result["detail"] for result in s1["evidence"][0]["failures"]] == ["HTTP 503"]


def test_equal_failures_are_not_counted_twice() -> None:
    state = scene.told(*((False, "refused", 0.001, 40.0 - n) for n in range(15)))
    recent, earlier = evidence.results(state)
    assert [result.at for result in recent] == [scene.NOW - 26 - n for n in range(10)]
    assert earlier == []


def test_a_result_that_no_history_holds_is_still_told() -> None:
    """A check that could not run has a last result only."""
    state = replace(scene.told(), last=Result(False, "cannot be checked", 0.0, scene.NOW))
    assert [run.last.detail for run in evidence.runs(state)] == ["cannot be checked"]
    assert evidence.runs(None) == evidence.runs(scene.told()) == []


def test_a_check_through_ipvs_is_looked_up_by_its_vip() -> None:
    view = backend_view(scene.subtle(), "s1")
    low, high = scene.subtle().inputs.policy.marks
    assert view["check"]["check"] == "http 192.0.2.20:80 via tunnel 10.4.0.1"
    assert view["check"]["last"]["detail"] == "HTTP 200"
    assert (view["check"]["via"]["forward"], view["check"]["via"]["problem"]) == ("tunnel", "")
    assert low <= view["check"]["via"]["mark"] <= high
    assert backend_view(scene.subtle(), "s3")["check"]["via"] is None


def test_a_check_without_a_way_through_ipvs_says_why() -> None:
    snapshot = scene.subtle()
    bare = replace(snapshot, actual=replace(snapshot.actual, services={}))
    assert backend_view(bare, "s1")["check"]["via"]["problem"] == "the kernel has no way for the probe yet"
    assert "the kernel has no way for the probe yet" in explained(bare, "shop/s1", 120)
    assert "the check cannot run" in drawn(bare, 120)
    probe_paths = dict.fromkeys(snapshot.decision.probe_paths)
    full = replace(snapshot, decision=replace(snapshot.decision, probe_paths=probe_paths))
    assert "widen [checks] marks" in backend_view(full, "s1")["check"]["via"]["problem"]


def test_rows_of_probes_are_told_as_such_and_are_no_vips() -> None:
    snapshot = scene.subtle()
    view = status_view(snapshot, scene.NOW)
    assert [vip["vip"] for vip in view["vips"]] == ["192.0.2.20"]
    assert "1095499776" not in drawn(snapshot)
    told = [
        (change["verb"], change["why"])
        for change in plan_view(scene.waiting(replace(snapshot, actual=State())), scene.NOW)["changes"]
        if "fwmark" in change["object"]
    ]
    assert told
    assert set(told) == {("create", "the way of a probe through IPVS (via forward)")}
    gone = replace(snapshot.decision, desired=State(), probe_paths={})
    told = [
        (change["verb"], change["why"])
        for change in plan_view(scene.waiting(replace(snapshot, decision=gone)), scene.NOW)["changes"]
        if "fwmark" in change["object"]
    ]
    assert set(told) == {("delete", "no probe goes this way any more")}


def test_a_drained_backend_is_drained_and_not_missing() -> None:
    snapshot = scene.subtle()
    assert backend_view(snapshot, "s4")["leaves_in_seconds"] == 12
    memory = replace(snapshot.decision.memory, leaving={})
    gone = replace(snapshot, actual=snapshot.decision.desired, decision=replace(snapshot.decision, memory=memory))
    view = backend_view(gone, "s4")
    assert (view["kernel_weight"], view["leaves_in_seconds"], view["reason"]) == (None, None, "drained")
    text = explained(gone, "shop/s4", 120)
    assert "· kernel   tcp 192.0.2.20:80 -> 10.4.0.4:80  drained, not in the kernel" in text
    assert "→ drained, not in the kernel" in explained(gone, "shop", 200)
    assert "refused" not in text


@pytest.mark.parametrize(
    ("parts", "configured", "effective", "words"),
    [
        (Weights(100), 100, 100, ""),
        (Weights(100, health=0.0), 100, 0, ""),
        (Weights(100, admin=40), 100, 40, ""),
        (Weights(100, admin=0), 100, 0, ""),
        (Weights(90), 93, 90, "90, rounded from 93, = 90"),
        (Weights(100, ramp=0.3), 100, 30, "100 × slow start 30% = 30"),
        (Weights(100, health=0.5, ramp=0.3), 100, 10, "100 × health 50% × slow start 30% ≈ 10"),
        (Weights(100, admin=40, health=0.5), 100, 20, "40, set instead of 100, × health 50% = 20"),
        (Weights(1, ramp=0.1), 1, 1, "1 × slow start 10% ≈ 1"),
    ],
)
def test_the_arithmetic_of_a_weight(parts: Weights, configured: int, effective: int, words: str) -> None:
    assert weights.effective(parts) == effective, "the case itself must be one that can be"
    assert explain_weight(parts, configured, effective) == words


def test_the_penalty_is_shown_beside_its_limits() -> None:
    view = status_view(scene.subtle(), scene.NOW)["vips"][0]["damping"]
    assert view == {
        "penalty": 896.1,
        "suppressed": False,
        "suppress": 1500,
        "reuse": 750,
        "half_life_seconds": 60,
        "longest_seconds": 600,
    }
    damped = status_view(scene.subtle(flaps=2), scene.NOW)["vips"][0]
    assert damped["damping"]["suppressed"]
    assert "damped: penalty" in damped["reason"]
    assert status_view(scene.calm(), scene.NOW)["vips"][0]["damping"] is None


def test_backends_that_were_not_checked_yet_are_told_with_their_deadline() -> None:
    snapshot = scene.subtle()
    inputs = replace(snapshot.inputs, health={})
    decision = decide.decide(inputs, Memory(), scene.NOW)
    text = explained(replace(snapshot, inputs=inputs, decision=decision), "192.0.2.20", 160)
    assert "some backends are not checked yet: all will be within 3 s" in " ".join(text.split())


def test_near_names() -> None:
    snapshot = scene.trouble()
    assert near(snapshot, "web3")[0] == "web/web3"
    assert near(snapshot, "wbe") == ["web"]
    assert near(snapshot, "webb")[0] == "web"
    assert "web/web3" in near(snapshot, "wbe/web33")
    assert near(snapshot, "dns/web2")[0] == "web/web2"
    assert "192.0.2.11" in near(snapshot, "192.0.2.1")
    assert near(snapshot, "zzzzzzzzz") == []


@pytest.mark.parametrize("name", ["", "192.0.2.99", "web/none", "nothing", "/", "web/web1/x", "😀"])
def test_why_knows_what_it_does_not_know(name: str) -> None:
    assert explain(scene.trouble(), scene.NOW, name) is None


def test_why_takes_any_spelling_of_an_address() -> None:
    view = explain(scene.trouble(), scene.NOW, "[2001:DB8:FFFF:0::10]")
    assert view is not None
    assert view["object"] == "2001:db8:ffff::10"


def test_why_of_a_bad_backend_key_is_told_at_its_service() -> None:
    snapshot = scene.trouble()
    problem = replace(snapshot.inputs.catalog.problems[0], key="services/web/backends/web1")
    catalog = replace(snapshot.inputs.catalog, problems=(problem,))
    text = explained(replace(snapshot, inputs=replace(snapshot.inputs, catalog=catalog)), "web")
    assert "✗ problem  services/web/backends/web1" in text
    assert "last good version" in text


def test_why_fits_a_screen_whatever_the_number_of_backends() -> None:
    many = tuple(scene.backend(f"b{n}", f"10.9.{n // 250}.{n % 250 + 1}", 80) for n in range(500))
    catalog = replace(scene.calm().inputs.catalog, services=(replace(scene.WEB, vips=(scene.WEB4,), backends=many),))
    snapshot = replace(scene.calm(), inputs=replace(scene.calm().inputs, catalog=catalog))
    text = explained(snapshot, "192.0.2.10", 120)
    assert text.count("\n") < 50
    assert "and 488 more backends" in text


def test_control_characters_of_a_peer_do_not_reach_the_terminal() -> None:
    snapshot = scene.trouble()
    check = scene.WEB.backends[0].check
    evil = scene.seen(False, "HTTP \x1b[31m\x07owned\r\n", 0.1, 1.0)
    snapshot = replace(snapshot, inputs=replace(snapshot.inputs, health={**scene.HEALTH, check: evil}))
    for text in (drawn(snapshot), explained(snapshot, "web/web1")):
        assert "owned" in text
        assert not {"\x1b", "\x07", "\r"} & set(text)


def test_many_problems_are_counted_not_listed() -> None:
    snapshot = scene.trouble()
    problems = tuple(replace(snapshot.inputs.catalog.problems[0], key=f"services/s{n}") for n in range(300))
    catalog = replace(snapshot.inputs.catalog, problems=problems)
    text = drawn(replace(snapshot, inputs=replace(snapshot.inputs, catalog=catalog)))
    assert "and 290 more problems" in text
    assert text.count("PROBLEM") == 10


def test_a_hold_that_only_a_person_ends_says_so() -> None:
    snapshot = scene.trouble()
    held = Shrink((scene.DNS,), 4, scene.NOW - 30, None)
    text = drawn(replace(snapshot, inputs=replace(snapshot.inputs, feed=replace(snapshot.inputs.feed, held=held))))
    assert "`anycastlb confirm`" in text
    assert "believed in" not in text


# ---------------------------------------------------------------- alive and ready


def test_ready_says_what_is_missing() -> None:
    assert readiness(scene.calm()) == {"ready": True, "missing": []}
    missing = readiness(Snapshot(inputs=Inputs(feed=Feed(error="connection refused"))))["missing"]
    assert [text.split(":")[0] for text in missing[:2]] == ["the first cycle has not finished", "no catalog is loaded"]
    assert "bridge" in missing[2]
    failed = readiness(scene.trouble())
    assert not failed["ready"]
    assert failed["missing"] == [f"changes refused: 1; the first: create services tcp 192.0.2.12:25: {scene.REFUSED}"]


def test_alive_while_there_are_signs_of_life() -> None:
    assert liveness(scene.calm(), 100.0, 71.0, 30.0)["alive"]
    assert not liveness(scene.calm(), 100.0, 69.0, 30.0)["alive"]


def test_waiting_for_the_first_catalog_is_alive() -> None:
    waiting = liveness(Snapshot(), 1000.0, 0.0, 30.0)
    assert (waiting["alive"], waiting["waiting_for_catalog"]) == (True, True)
    loaded = Snapshot(inputs=Inputs(feed=Feed(loaded=True)))
    assert not liveness(loaded, 1000.0, 0.0, 30.0)["alive"]


def test_events_above_an_id() -> None:
    journal = Journal()
    for number in range(3):
        journal.emit(Event("gate", f"192.0.2.{number}"))
    view = event_views(journal.records(), 2)
    assert [item["id"] for item in view["events"]] == [3]
    assert view["last"] == 3
    assert event_views([], 7) == {"events": [], "last": 0}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 ms"), (0.0004, "0.4 ms"), (0.003, "3 ms"), (0.9996, "1 s"), (1, "1 s"), (119.9, "119 s"), (120, "2 min"),
     (7200, "2 h"), (172_800, "2 d"), (float("inf"), "ever"), (None, "ever")],
)  # fmt: skip
def test_durations_in_words(seconds: float | None, words: str) -> None:
    assert span(seconds) == words


def test_addresses_are_no_services() -> None:
    assert explain(scene.calm(), scene.NOW, str(ip_address("192.0.2.11"))) is None


def test_the_names_of_rows_are_the_very_ones_of_the_decision_if_they_are_the_same() -> None:
    vip, made = scene.WEB4, destination_keys(scene.WEB, scene.WEB4, {})
    assert [(key.service, key.address, key.port) for key in made] == [
        (scene.WEB.key(vip), backend.address, backend.port) for backend in scene.WEB.members(vip)
    ]
    assert len(made) > 1
    assert destination_keys(scene.WEB, vip, {scene.WEB.key(vip): made}) is made
    for other in (made[::-1], made[:-1], (*made[:-1], replace(made[-1], port=9))):
        assert destination_keys(scene.WEB, vip, {scene.WEB.key(vip): other}) == made
