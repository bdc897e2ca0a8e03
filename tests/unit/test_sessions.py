"""Which routes reach a router, by the BGP sessions of a node."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from anycastlb.core.decision.sessions import carried, cut_off, known_state
from anycastlb.core.model import Session, SessionSummary, Speaker
from anycastlb.serving.views.status import status_view
from tests.support import scene

FOUR, SIX = ip_address("192.0.2.10"), ip_address("2001:db8::10")
P4, Q4, P6 = "198.51.100.1", "198.51.100.2", "2001:db8:1::1"


def session(peer: str, state: Any, reason: str = "") -> Session:
    return Session(peer, state, 0.0, reason)


@pytest.mark.parametrize(
    "sessions,reached",
    [
        ((), {FOUR, SIX}),
        ((session(P4, "up"), session(P6, "up")), {FOUR, SIX}),
        ((session(P4, "down", "hold timer expired"), session(P6, "up")), {SIX}),
        ((session(P4, "down", "hold timer expired"), session(Q4, "up")), {FOUR, SIX}),
        ((session(P4, "up"), session(Q4, "down", "hold timer expired")), {FOUR, SIX}),
        ((session(P4, "down", "hold timer expired"), session(Q4, "down", "refused")), {SIX}),
        ((session(P4, "down", "hold timer expired"), session(Q4, "unknown")), {FOUR, SIX}),
        ((session(P4, "down"), session(P6, "down", "refused")), {FOUR}),
    ],
)
def test_a_route_reaches_a_router_unless_every_session_of_its_family_is_known_to_be_down(
    sessions: tuple[Session, ...], reached: set[Any]
) -> None:
    assert carried([FOUR, SIX], Speaker(True, sessions=sessions)) == reached


@pytest.mark.parametrize(
    ("state", "reason", "known"),
    [("up", "", "up"), ("up", "established", "up"), ("down", "refused", "down"), ("down", "", "unknown")],
)
def test_a_session_is_down_only_with_a_reason(state: str, reason: str, known: str) -> None:
    assert known_state(session(P4, state, reason)) == known


def test_what_a_peer_publishes_may_be_anything() -> None:
    assert cut_off((SessionSummary("a router", "down"), SessionSummary(P4, "asleep"))) == frozenset()


@pytest.mark.parametrize(
    ("one", "state", "named"),
    [
        (session(P4, "up"), "up", ""),
        (session(P4, "down", "hold timer expired"), "down", "hold timer expired"),
        (session(P4, "down"), "unknown", "encoder json or neighbor-changes is missing in exabgp.conf"),
    ],
)
def test_what_status_says_of_a_session(one: Session, state: str, named: str) -> None:
    snapshot = scene.trouble()
    snapshot = replace(snapshot, speaker=replace(snapshot.speaker, sessions=(one,)))
    (shown,) = status_view(snapshot, scene.NOW)["speaker"]["sessions"]
    assert shown["state"] == state and named in shown["reason"] and bool(shown["reason"]) is bool(named)
