"""ExaBGP's process API: the command lines we write and the answers we read (as ExaBGP 5.0.15 gave them)."""

from __future__ import annotations

import re
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anycastlb.bridge import grammar
from anycastlb.bridge.grammar import Neighbor, StateEvent
from anycastlb.core.model import Route
from tests.support.routes import routes, vips

PEER, PEER6 = ip_address("10.99.1.1"), ip_address("fd00:99:1::1")
EBGP = Neighbor(PEER, 65001, 65000, frozenset({4}))
ONE, TWO = ip_address("192.0.2.1"), ip_address("192.0.2.2")
LISTED = (
    "neighbor 10.99.1.1 local-ip 10.99.1.2 local-as 65001 peer-as 65000 router-id 10.99.1.2 family-allowed in-open "
)


def test_an_announcement_carries_every_attribute() -> None:
    route = Route(("65535:0", "65001:100"), ("65001:1:2",), med=50, local_preference=200, as_path_prepend=2)
    assert grammar.announce([EBGP], route, [ONE, TWO]) == (
        "neighbor 10.99.1.1 announce attributes next-hop self med 50 local-preference 200 "
        "as-path [ 65001 65001 65001 ] community [ 65535:0 65001:100 ] large-community [ 65001:1:2 ] "
        "nlri 192.0.2.1/32 192.0.2.2/32"
    )


def test_a_plain_announcement_and_a_withdrawal() -> None:
    assert grammar.announce([EBGP], Route(), [ONE]) == (
        "neighbor 10.99.1.1 announce attributes next-hop self nlri 192.0.2.1/32"
    )
    assert grammar.withdraw([PEER6], [ip_address("2001:db8::1")]) == (
        "neighbor fd00:99:1::1 withdraw attributes next-hop self nlri 2001:db8::1/128"
    )


def test_one_command_names_every_neighbor_it_is_for() -> None:
    other = Neighbor(ip_address("10.99.2.1"), 65001, 65002, frozenset({4}))
    assert grammar.announce([EBGP, other], Route(), [ONE]) == (
        "neighbor 10.99.1.1 , neighbor 10.99.2.1 announce attributes next-hop self nlri 192.0.2.1/32"
    )
    assert grammar.withdraw([PEER, other.peer], [ONE]).startswith("neighbor 10.99.1.1 , neighbor 10.99.2.1 withdraw ")


def test_neighbors_are_alike_unless_their_path_differs() -> None:
    other = Neighbor(ip_address("10.99.2.1"), 65002, 65000, frozenset({4}))
    internal = Neighbor(ip_address("10.99.3.1"), 65001, 65001, frozenset({4}))
    assert grammar.alike([EBGP, other, internal], Route(med=1)) == (EBGP, other, internal)
    assert grammar.alike([EBGP, other, internal], Route(as_path_prepend=1)) == (EBGP,)


@pytest.mark.parametrize(("neighbors", "prefixes"), [(1, 98), (2, 98), (4, 50), (8, 25), (100, 24)])
def test_a_command_for_many_neighbors_has_fewer_prefixes(neighbors: int, prefixes: int) -> None:
    assert grammar.batch(neighbors) == prefixes


def test_nothing_is_prepended_towards_the_own_as() -> None:
    ibgp = Neighbor(PEER, 65001, 65001, frozenset({4}))
    assert "as-path" not in grammar.announce([ibgp], Route(as_path_prepend=2), [ONE])


@given(routes, st.lists(vips, min_size=1, max_size=5))
def test_lines_hold_only_words_of_the_grammar(route: Route, prefixes: list[grammar.Address]) -> None:
    line = grammar.announce([EBGP], route, prefixes)
    words = r"neighbor|announce|attributes|next-hop|self|med|local-preference|as-path|community|large-community|nlri"
    assert all(re.fullmatch(rf"{words}|[\[\]]|[0-9a-f.:]+(/32|/128)?", word) for word in line.split(" "))


def test_a_value_that_is_no_number_cannot_become_a_line() -> None:
    with pytest.raises(ValueError):
        grammar.announce([EBGP], Route(communities=("graceful-shutdown",)), [ONE])


def test_routes_are_read_with_their_attributes() -> None:
    lines = [
        f"{LISTED}ipv4 unicast 192.0.2.1/32 next-hop 10.99.1.2 as-path ( 65001 65001 65001 ) med 50 "
        "local-preference 200 community [ 65001:100 no-export ] large-community 65001:1:2",
        f"{LISTED}ipv4 unicast 192.0.2.2/32 next-hop 10.99.1.2",
        f"{LISTED}ipv4 unicast 192.0.2.0/24 next-hop 10.99.1.2",
        f"{LISTED}ipv4 unicast 192.0.2.3/32 next-hop 10.99.1.2 originator-id 10.0.0.1",
        f"{LISTED}ipv4 unicast 192.0.2.4/32 next-hop 10.99.1.2 as-path ( 65009 )",
        "what is this",
    ]
    found, senseless = grammar.routes(lines)
    assert found == {
        PEER: {
            ONE: Route(("65001:100", "65535:65281"), ("65001:1:2",), 50, 200, 2),
            TWO: Route(),
            ip_address("192.0.2.3"): None,
            ip_address("192.0.2.4"): None,
        }
    }
    assert senseless == ["what is this"]


def test_neighbors_are_read() -> None:
    answer = (
        '[{"state": "up", "duration": 24, "fsm": "ESTABLISHED", "local": {"families": {"ipv4 unicast": true},'
        ' "address": "10.99.1.2", "as": 65001}, "peer": {"address": "10.99.1.1", "as": 65000}},'
        ' {"state": "down", "duration": 158, "local": {"families": {"ipv6 unicast": true}, "as": 65001},'
        ' "peer": {"address": "fd00:99:1::1", "as": 65000, "id": null}}]'
    )
    first, second = grammar.neighbors(answer)
    assert first == Neighbor(PEER, 65001, 65000, frozenset({4}), up=True, up_for=24)
    assert second == Neighbor(PEER6, 65001, 65000, frozenset({6}))
    assert first.carries(ONE) and not first.carries(ip_address("2001:db8::1"))


@pytest.mark.parametrize("answer", ["", "[", "[7]", "[{}]", '[{"local": [], "peer": {}}]', "7", "[[[]]]"])
def test_a_senseless_list_of_neighbors_is_an_error(answer: str) -> None:
    with pytest.raises(ValueError):
        grammar.neighbors(answer)


def test_events_are_read() -> None:
    line = (
        '{ "exabgp": "5.0.0", "time": 1795204545.76, "host" : "vm", "pid" : 1, "ppid" : 1, "counter": 2, "type": '
        '"state", "neighbor": { "address": { "local": "10.99.1.2", "peer": "10.99.1.1" }, "asn": { "local": 65001, '
        '"peer": 65000 }, "router-id": "10.99.1.2" , "state": "down", "reason": "notification received (6,2)" } }'
    )
    assert grammar.event(line) == StateEvent(PEER, "down", "notification received (6,2)")
    assert grammar.event('{ "exabgp": "5.0.0", "type": "notification", "notification": "shutdown" }') is None


@given(st.text(max_size=80))
def test_no_line_breaks_the_reader(text: str) -> None:
    assert grammar.event("{ " + text) is None
    assert grammar.routes([text])[0] == {}


@given(routes)
def test_the_canonical_form_is_stable(route: Route) -> None:
    assert grammar.canonical(grammar.canonical(route)) == grammar.canonical(route)
