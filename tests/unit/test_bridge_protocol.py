"""The wire: what one side encodes the other decodes, and nothing else gets through."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anycastlb.bridge.protocol import (
    Heartbeat,
    ProtocolError,
    Report,
    RouteSet,
    decode_order,
    decode_report,
    encode,
    fault,
    within,
)
from anycastlb.core.model import Route, Session
from tests.support.routes import routes, vips

VIP, SIX = ip_address("192.0.2.10"), ip_address("2001:db8::10")
RANGES = (ip_network("192.0.2.0/24"), ip_network("2001:db8::/64"))

tables = st.dictionaries(vips, routes, max_size=4)
texts = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=20)
seconds = st.floats(0, 1e9)
sessions = st.lists(st.builds(Session, texts, st.sampled_from(["up", "down"]), seconds, texts), max_size=3).map(tuple)
reports = st.builds(
    Report, st.integers(0), st.booleans(), texts, tables, st.dictionaries(vips, texts, max_size=3), sessions
)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
WORDS = ["set", "beat", "report", "serial", "hold", "routes", "ready", "version", "announced", "rejected", "sessions"]
near_misses = st.dictionaries(
    st.sampled_from(WORDS), st.dictionaries(st.sampled_from([*WORDS, str(VIP)]), json_values, max_size=6), max_size=2
)


@given(st.builds(RouteSet, st.integers(1), st.floats(0.1, 600), tables) | st.builds(Heartbeat, st.integers(1)))
def test_orders_survive_the_wire(message: RouteSet | Heartbeat) -> None:
    line = encode(message)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert decode_order(line) == message


@given(reports)
def test_reports_survive_the_wire(message: Report) -> None:
    assert decode_report(encode(message)) == message


@given(st.binary(max_size=200) | (json_values | near_misses).map(lambda value: json.dumps(value).encode()))
def test_decoding_gives_a_message_or_its_own_error(line: bytes) -> None:
    for decode in (decode_order, decode_report):
        try:
            message = decode(line)
        except ProtocolError as exc:
            assert str(exc)
        else:
            assert isinstance(message, (RouteSet, Heartbeat, Report))


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"\xff", "one JSON object a line"),
        (b"[" * 100_000, "one JSON object a line"),
        (b'{"beat": 1, "set": 2}', "expected"),
        (b'{"beat": true}', "beat: expected a whole number"),
        (b'{"beat": 0}', "of at least 1"),
        (b'{"set": {"serial": 1, "hold": 2}}', "routes"),
        (b'{"set": {"serial": 1, "hold": 1e999, "routes": {}}}', "hold: expected"),
        (b'{"set": {"serial": 1, "hold": NaN, "routes": {}}}', "hold: expected"),
        (b'{"set": {"serial": 1, "hold": 0, "routes": {}}}', "hold: expected seconds"),
        (b'{"set": {"serial": 1, "hold": 2, "routes": {"192.0.2.0/31": {}}}}', "host address"),
        (b'{"set": {"serial": 1, "hold": 2, "routes": {"fe80::1%x": {}}}}', "without zone"),
        (b'{"set": {"serial": 1, "hold": 2, "routes": {"192.0.2.1": {"next_hop": "self"}}}}', "unknown attribute"),
        (b'{"set": {"serial": 1, "hold": 2, "routes": {"192.0.2.1": {"med": "1"}}}}', "whole number"),
        (b'{"set": {"serial": 1, "hold": 2, "routes": {"192.0.2.1": {"communities": "1:1"}}}}', "list of strings"),
    ],
)
def test_what_is_wrong_is_named(line: bytes, complaint: str) -> None:
    with pytest.raises(ProtocolError, match=complaint):
        decode_order(line)


@pytest.mark.parametrize(
    ("route", "complaint"),
    [
        (Route(communities=("65536:1",)), "communities: expected 2 numbers below 65536"),
        (Route(communities=("graceful-shutdown no-export",)), "communities"),
        (Route(communities=("1:2 3:4",)), "communities"),
        (Route(communities=("１:2",)), "communities"),
        (Route(communities=("1:2",) * 65), "at most 64"),
        (Route(large_communities=("1:2",)), "large_communities: expected 3 numbers"),
        (Route(large_communities=("1:2:4294967296",)), "large_communities"),
        (Route(med=2**32), "med: expected a number from 0 to 4294967295"),
        (Route(local_preference=-1), "local_preference"),
        (Route(as_path_prepend=33), "as_path_prepend: expected a number from 0 to 32"),
    ],
)
def test_attributes_that_do_not_fit_are_a_fault(route: Route, complaint: str) -> None:
    assert complaint in fault(VIP, route, RANGES)


@given(routes)
def test_good_routes_have_no_fault(route: Route) -> None:
    assert fault(VIP, route, RANGES) == ""
    assert fault(SIX, route, RANGES) == ""


def test_a_vip_outside_the_ranges_is_a_fault() -> None:
    assert "outside vip_ranges" in fault(ip_address("198.51.100.1"), Route(), RANGES)
    assert "outside vip_ranges" in fault(ip_address("2001:db8:1::1"), Route(), RANGES)
    assert not within(ip_address("192.0.3.0"), RANGES)
