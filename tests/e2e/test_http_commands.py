"""Gateways and routes made by commands alone: what operators see of them, and what HAProxy itself says of a request."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from anycastlb.serving.metrics.families import SECTIONS
from tests.lab.haproxy import NodeHaproxy, serving_gateways
from tests.lab.http import get
from tests.lab.lab import Lab
from tests.lab.process import until
from tests.lab.topology import own, vip

HTTP = vip(20)
WITHOUT_TLS = {"anycastlb_certificate_expiry_timestamp_seconds", "anycastlb_certificate_served"}
"""Metrics that a node without certificates does not have."""
CANARY = {
    "gateways": ["web"],
    "hostnames": ["shop.example", "*.shop.example"],
    "rules": [
        {
            "name": "beta",
            "matches": [{"headers": [{"name": "user-agent", "type": "RegularExpression", "value": "(?i)beta"}]}],
            "backendRefs": [{"name": "blog"}],
        },
        {"backendRefs": [{"name": "shop", "weight": 1}, {"name": "blog", "weight": 0}]},
    ],
}


@pytest.fixture
def haproxy(lab: Lab, require: Callable[[str], str]) -> Iterator[NodeHaproxy]:
    """``lb1`` serves gateways, and ``lb2`` does not."""
    with serving_gateways(lab, require("haproxy-12")) as haproxy:
        yield haproxy


def test_from_commands_to_answers(lab: Lab, haproxy: NodeHaproxy, tmp_path: Path) -> None:
    lb1 = lab.lb1
    for name, backend in (("shop", "b1"), ("blog", "b3")):
        passive = ("--set", "max_fails=3")
        lb1.cli("service", "add", name, "--pool", "80", "--check-http", "/health", "--health-period", "200ms", *passive)
        lb1.cli("server", "add", name, f"{backend}={own(backend)}")
    lb1.cli("gateway", "add", "web", "http", f"{HTTP}:80")
    lb1.cli("route", "add", "all", "*", "--gateway", "web", "--to", "shop")
    haproxy.start()
    lab.router.until(HTTP, {"lb1"})
    assert get(lab.client.namespace, str(HTTP), 80, "/") == (200, "b1")

    document = tmp_path / "shop.json"
    document.write_text(json.dumps(CANARY))
    lb1.cli("route", "put", "shop", str(document))
    url = "http://a.shop.example:80/x"
    beta = ("why", url, "-H", "user-agent: BETA/1")
    lb1.until(lambda: "goes to blog" in lb1.cli(*beta).stdout, "the catalog has the new rules", 100)
    lb1.until(lambda: lb1.cli(*beta).returncode == 0, "HAProxy has the new rules", 40)
    told = lb1.cli(*beta).stdout
    assert f"GET {url}  goes to blog" in told
    assert f"✓ vip      {HTTP}  announced by lb1" in told
    assert "✓ rule     beta  header user-agent matches (?i)beta" in told
    assert "✓ haproxy  (?i)beta  HAProxy itself says that it matches" in told
    told = lb1.cli("why", url, "-H", "user-agent: curl").stdout
    assert "goes to shop" in told and "· passed   beta  header user-agent does not match (?i)beta" in told

    lb1.cli("route", "split", "shop", "shop=0", "blog=1")
    until(lambda: "goes to blog" in lb1.cli("why", url).stdout, "the split is in force")
    lb1.until(lambda: lb1.cli("plan").stdout.startswith("nothing to change"), "all is as it is wanted")
    status = " ".join(lb1.cli("status").stdout.split())
    assert "http 1 gateway · 2 routes · 2 pools · HAProxy runs with the configuration that is wanted" in status
    assert "web gateway · http 80 · 2/2 routes can be served" in status
    assert "✓ shop shop.example, *.shop.example → blog, shop" in status

    before = lb1.total("anycastlb_gateway_requests_total", 'hostname="*"')
    assert get(lab.client.namespace, str(HTTP), 80, "/") == (200, "b1"), "of no name that the other route has"
    for metric in (("requests_total",), ("responses_total", 'status="2xx"')):
        labels = ('hostname="*"', *metric[1:])
        lb1.until(lambda: lb1.total(f"anycastlb_gateway_{metric[0]}", *labels) == before + 1, "it is counted")  # noqa: B023
    told = {name.partition("{")[0] for name in lb1.metrics()}
    assert {family.name for family in SECTIONS["Gateways"]} - told == WITHOUT_TLS
    assert lb1.total("anycastlb_haproxy_up") == lb1.total("anycastlb_haproxy_statistics_up") == 1

    for kind, name in (("route", "all"), ("route", "shop"), ("gateway", "web"), ("service", "shop")):
        lb1.cli(kind, "del", "-y", name)
    lab.router.until(HTTP, set())
