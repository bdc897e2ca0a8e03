"""How names are shown: in status, in the chain of a VIP, in the plan."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from anycastlb.cli.render.status import status_lines
from anycastlb.core.decision import plan
from anycastlb.core.model import (
    ConsulKey,
    ConsulService,
    Decision,
    DnsKey,
    DnsRecord,
    Inputs,
    Policy,
    Reason,
    Registrar,
    Snapshot,
    State,
)
from anycastlb.serving.views.changes import plan_view
from anycastlb.serving.views.index import Index
from anycastlb.serving.views.names import names_of_vip
from anycastlb.serving.views.status import status_view

VIP = ip_address("192.0.2.1")
A = DnsKey("www.lb.", "A", "192.0.2.1")
SRV = DnsKey("_http._tcp.www.lb.", "SRV", "0 0 80 www.lb.")
ROW = DnsRecord(30, "web")
KEY = ConsulKey("web", VIP, "lb1")
PASSING = ConsulService("anycastlb-web", VIP, 80, (), True, "2/2 backends up")
PLACE = Registrar("dns_records", "DNS zone lb at 192.0.2.53", True, since=90.0)


TAKEN = Reason("name_refused", "there are records that anycastlb did not make (A)")


def shown(actual: State, desired: State, *registrars: Registrar) -> Snapshot:
    known = registrars or (PLACE,)
    changes = plan.diff(actual, desired)
    return Snapshot(
        Inputs(Policy("lb1")), actual, Decision(desired=desired), pending=changes, registrars=known, at=100.0
    )


@pytest.mark.parametrize(
    ("actual", "desired", "place", "ok", "text"),
    [
        ({A: ROW}, {A: ROW}, PLACE, True, "published, TTL 30 s"),
        ({}, {A: ROW}, PLACE, False, "about to be published"),
        ({}, {A: ROW}, replace(PLACE, refused={A: Reason("name_refused", "taken")}), False, "not published: taken"),
        ({}, {A: ROW}, replace(PLACE, error="REFUSED"), False, "not published: REFUSED"),
        ({A: ROW}, {A: ROW}, replace(PLACE, error="no answer"), True, "published, TTL 30 s; but no answer"),
        ({A: ROW}, {}, PLACE, None, "about to be removed"),
        ({A: ROW}, {}, replace(PLACE, error="no answer"), None, "still published: no answer"),
    ],
)
def test_a_record_says_how_it_stands(actual: Any, desired: Any, place: Registrar, ok: Any, text: str) -> None:
    snapshot = shown(State(dns_records=actual), State(dns_records=desired), place)
    assert names_of_vip(Index(snapshot, 100.0), VIP) == [(ok, "www.lb. A 192.0.2.1", text)]


def test_a_vip_has_its_own_names_only() -> None:
    other = DnsKey("other.lb.", "A", "192.0.2.2")
    state = State(dns_records={A: ROW, SRV: ROW, other: ROW}, consul_services={KEY: PASSING})
    told = names_of_vip(Index(shown(state, state), 100.0), VIP)
    assert [name for _, name, _ in told] == [str(SRV), str(A), "consul anycastlb-web"]
    assert told[-1] == (True, "consul anycastlb-web", "passing: 2/2 backends up")
    closed = State(consul_services={KEY: replace(PASSING, passing=False, reason="0/2 backends up, needs 1")})
    assert names_of_vip(Index(shown(closed, closed), 100.0), VIP) == [
        (None, "consul anycastlb-web", "critical: 0/2 backends up, needs 1")
    ]


def test_status_and_plan_show_what_is_refused() -> None:
    place = replace(PLACE, refused={A: TAKEN})
    snapshot = shown(State(dns_records={SRV: ROW}), State(dns_records={A: ROW, SRV: ROW}), place)
    view = status_view(snapshot, 100.0)
    assert view["names"] == [
        {
            "table": "dns_records",
            "place": "DNS zone lb at 192.0.2.53",
            "seen": True,
            "error": "",
            "since_seconds": 10.0,
            "rows": 1,
            "refused": [{"object": str(A), "reason": TAKEN.text, "reason_code": "name_refused"}],
        }
    ]
    text = "\n".join("".join(part for part, _ in line) for line in status_lines(view, 80))
    assert "DNS zone lb at 192.0.2.53 · 1 record" in text and "did not make" in text
    away = status_view(replace(snapshot, registrars=(replace(PLACE, error="no answer"),)), 100.0)
    assert "AWAY for 10\N{NO-BREAK SPACE}s: no answer" in "\n".join(
        "".join(part for part, _ in line) for line in status_lines(away, 80)
    )
    (change,) = plan_view(snapshot, 100.0)["changes"]
    assert (change["object"], change["verb"]) == (f"record {A}", "create")
    assert change["after"] == {"ttl": 30, "service": "web"} and "did not make" in change["refused"]
