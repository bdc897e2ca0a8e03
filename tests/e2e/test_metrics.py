"""Metrics of both nodes while the story happens, the shipped alerts in a real Prometheus, and the shipped dashboard."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from anycastlb.serving.metrics.families import FAMILIES, SECTIONS
from tests.lab.http import get
from tests.lab.lab import Lab, document
from tests.lab.monitor import monitoring
from tests.lab.node import API_PORT, Node
from tests.lab.process import until
from tests.lab.topology import BACKENDS, vip
from tests.support.promql import dashboard_expressions, names, rule_expressions
from tests.support.two_nodes import BOTH, FRESH, VIP, serve

COUNTED = vip(FRESH["metrics"])
WEB = {"service": "web", "vip": str(COUNTED)}
ELSEWHERE = {
    "anycastlb_discovery_instances",
    "anycastlb_discovery_services",
    "anycastlb_backend_administrative_weight",
    "anycastlb_backend_leaves_timestamp_seconds",
    "anycastlb_vip_closed",
    "anycastlb_vip_kept",
    "anycastlb_node_leave_stage",
    "anycastlb_node_leave_since_timestamp_seconds",
    "anycastlb_node_leave_deadline_timestamp_seconds",
    "anycastlb_node_leave_connections",
    "anycastlb_node_leave_packets_per_second",
    "anycastlb_names_up",
    "anycastlb_names_refused",
    *(family.name for family in SECTIONS["Gateways"]),
}
"""What a healthy lab has no object for; tests/unit/test_metrics.py sees them, and test_http_commands.py gateways."""

SLOW = "AnycastlbEventLoopLag"
"""What a machine that others use too may fire, and be right."""


def label(name: str, **labels: str) -> str:
    inside = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
    return f"anycastlb_{name}" + (f"{{{inside}}}" if inside else "")


def sample(node: Node, name: str, **labels: str) -> float | None:
    return node.metrics().get(label(name, **labels))


def names_of(node: Node) -> set[str]:
    return {name.partition("{")[0] for name in node.metrics()}


def test_values_follow_the_story_and_series_vanish(lab: Lab) -> None:
    serve(lab, FRESH["metrics"], forward="nat")
    answered = lab.client.spread(60, COUNTED)
    assert sum(answered.values()) == 60
    nodes = list(lab.nodes.values())
    connections = label("ipvs_service_connections_total", **WEB)
    each = [label("ipvs_backend_connections_total", backend=name, **WEB) for name in BACKENDS]
    # The kernel counts a service's up at another moment than those of its backends.
    for counters in ([connections], each):
        until(lambda: sum(node.metrics()[one] for node in nodes for one in counters) == 60, "60 connections")  # noqa: B023
    for node in nodes:
        now = node.metrics()
        assert now[label("vip_announced", vip=str(COUNTED))] == now[label("vip_open", vip=str(COUNTED))] == 1
        assert now[label("service_backends_up", **WEB)] == 3
        assert sum(now[one] for one in each) == now[connections] > 0
        assert now[label("ipvs_service_bytes_out_total", **WEB)] > now[connections] * 60, "answers pass the node"
        assert now[label("bgp_routes_announced")] == 1
        assert now[label("table_rows", table="destinations")] == 3
        assert now[label("check_results_total", type="http", outcome="good")] >= 3, "each backend is up after one"
        assert now[label("event_loop_lag_seconds_count")] > 0
        assert now[label("catalog_reads_total", outcome="changed")] > 0
    prints = {node.metrics()[label("catalog_fingerprint")] for node in nodes}
    assert len(prints) == 1 and prints != {0}

    lab.backends["b1"].kill()
    for node in nodes:
        node.until(lambda node=node: sample(node, "backend_up", backend="b1", **WEB) == 0, "b1 counts as down")
        now = node.metrics()
        assert now[label("backend_weight", backend="b1", **WEB)] == 0
        assert now[label("backend_configured_weight", backend="b1", **WEB)] == 100
        assert now[label("backend_check_up", backend="b1", **WEB)] == 0
        assert now[label("service_backends_up", **WEB)] == 2

    lab.consul.put("anycastlb/drain/lb1", "")
    lab.router.until(COUNTED, {"lb2"})
    lab.lb1.until(lambda: sample(lab.lb1, "vip_closed", vip=str(COUNTED), reason="drained") == 1, "lb1 says drained")
    assert sample(lab.lb1, "node_drained") == 1 and sample(lab.lb1, "vip_announced", vip=str(COUNTED)) == 0
    assert sample(lab.lb2, "node_drained") == 0 and sample(lab.lb2, "vip_announced", vip=str(COUNTED)) == 1
    assert sample(lab.lb1, "vip_transitions_total", vip=str(COUNTED), to="closed") == 1

    lab.remove("web")
    for node in nodes:
        node.until(
            lambda node=node: not any(str(COUNTED) in name for name in node.metrics()), f"{COUNTED} has vanished"
        )
        assert not any('service="web"' in name for name in node.metrics())


def test_everything_shipped_names_only_what_a_node_tells(lab: Lab, require: Callable[[str], str]) -> None:
    lab.put("web", document([vip(0), vip(0, 6)], "nat"))
    lab.settle(vip(0), vip(0, 6))
    lab.client.spread(5, VIP)
    told = names_of(lab.lb1)
    named = {name for _, text in [*rule_expressions(), *dashboard_expressions()] for name in names(text)} - {"up"}
    assert named - told <= ELSEWHERE
    documented = {f.name + ("_bucket" if f.type == "histogram" else "") for f in FAMILIES.values()}
    assert documented - told <= ELSEWHERE
    ours = {
        name for name in told if name.startswith("anycastlb_") and not name.endswith(("_sum", "_count", "_created"))
    }
    assert ours <= documented


def test_promtool_accepts_the_scrape_of_a_node(lab: Lab, require: Callable[[str], str]) -> None:
    promtool = require("promtool")
    serve(lab)
    text = get(lab.lb1.namespace, "127.0.0.1", API_PORT, "/metrics")[1]
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=300)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_the_alerts_are_quiet_when_all_is_well_and_fire_when_it_is_not(
    lab: Lab, require: Callable[[str], str], tmp_path: Path
) -> None:
    program = require("prometheus")
    serve(lab)
    with monitoring(lab, program, tmp_path) as monitor:
        monitor.until("both nodes are scraped", lambda: monitor.value("sum(up)") == 2)
        seen = 'sum(count_over_time(up{job="anycastlb"}[30s]))'
        monitor.until("five scrapes of each", lambda: (monitor.value(seen) or 0) >= 10)
        monitor.until("no alert fires", lambda: not {found for found in monitor.alerts() if found[0] != SLOW})

        for backend in lab.backends.values():
            backend.kill()
        wanted = {("AnycastlbAllBackendsDown", str(VIP)), ("AnycastlbVipNotAnnounced", str(VIP))}
        monitor.until("all backends are down", lambda: wanted <= monitor.alerts())
        for backend in lab.backends.values():
            backend.restore()
        lab.router.until(VIP, BOTH)
        monitor.until("it is over", lambda: not wanted & monitor.alerts())

        lab.put("bad", '{"vip": 1}')
        expected = {
            ("AnycastlbVipPartlyAnnounced", str(VIP)),
            ("AnycastlbBridgeDisconnected", "lb2"),
            ("AnycastlbCatalogProblems", "service"),
            ("AnycastlbNoBgpSession", "lb2"),
        }
        with lab.lb2.changed(('hold = "600s"', 'hold = "2s"')):  # for so long a lost bridge may still have its routes
            lab.lb2.exabgp.kill()
            monitor.until("lb2 lost ExaBGP", lambda: expected <= monitor.alerts())
            lab.lb2.exabgp.start()
        lab.lb1.daemon.kill()
        monitor.until("lb1 is gone", lambda: ("AnycastlbTargetMissing", "lb1") in monitor.alerts())
        lab.consul.kill()
        monitor.until("no catalog", lambda: ("AnycastlbCatalogDisconnected", "lb2") in monitor.alerts())
