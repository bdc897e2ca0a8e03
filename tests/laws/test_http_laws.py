"""The laws of routes: three readings of one document agree on every request.

The document itself in the order of Gateway API, the decision graph walked by ``evaluate``, and the entries that HAProxy
is given, interpreted as decision record 19 says its configuration does.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from anycastlb.core.catalog.http.route import parse_route
from anycastlb.core.http.entries import beginnings, compile_graph
from anycastlb.core.http.evaluate import walk
from anycastlb.core.http.explain import explain_request, unmet
from anycastlb.core.http.graph import SLOTS, Leaf, Status, slots_of
from anycastlb.core.http.names import section
from anycastlb.core.http.request import Request, Target
from anycastlb.core.http.rewrite import rewritten
from anycastlb.core.http.routes import graph_of
from anycastlb.core.http.sites import Site
from anycastlb.core.model import HttpRoute
from tests.support import http_documents
from tests.support.http_machine import Machine, WireRequest, node_of
from tests.support.http_reading import chosen, elb_says, meets, weights


def as_request(wire: WireRequest) -> Request:
    return Request(wire.method, "shop.example", wire.path, wire.query, wire.headers, ip_address(wire.source))


def read(document: Any) -> HttpRoute:
    route = parse_route("routes/shop", "shop", document)
    assume(isinstance(route, HttpRoute))
    assert isinstance(route, HttpRoute)
    return route


@given(http_documents.routes, http_documents.requests)
def test_the_evaluator_says_what_the_document_says(document: dict[str, Any], wire: WireRequest) -> None:
    ends = walk(graph_of(read(document)), as_request(wire)).ends
    rule = chosen(document, wire)
    if rule is None:
        assert ends == ((SLOTS, Status(404)),)
        return
    number = document["rules"].index(rule) + 1
    assert {end.rule for _, end in ends if isinstance(end, Leaf)} == {f"rule-{number}"}
    wanted = weights(rule)
    if len(ends) > 1:  # by chance
        assert {end.pool: slots for slots, end in ends if isinstance(end, Leaf)}.keys() == wanted.keys()
        assert all(abs(slots / SLOTS - wanted[end.pool]) < 0.001 for slots, end in ends if isinstance(end, Leaf))
    elif wanted:
        assert all(end.pool in wanted for _, end in ends if isinstance(end, Leaf))


@given(http_documents.routes, http_documents.requests)
def test_the_entries_do_what_the_evaluator_says(document: dict[str, Any], wire: WireRequest) -> None:
    graph = graph_of(read(document))
    compiled = compile_graph(graph)
    outcome = Machine(compiled.entries).run(compiled.root, wire)
    walked = walk(graph, as_request(wire), wire.chance)
    ((_, end),) = walked.ends
    if isinstance(end, Status):
        assert (outcome.node, outcome.path) == (f"!{end.code}", walked.path)
        return
    owner = end.redirect or end.rewrite
    assert outcome.section == (section(end.pool, end.retry) if end.pool else "")
    assert outcome.path == rewritten(owner.path if owner else None, walked.path, end.segments)
    assert node_of(graph, outcome.node) is end
    assert outcome.what.get("host", "") == (owner.host if owner else "")
    headers = {("set", name): value for change in end.header_changes for name, value in change.set}
    headers |= {("del", name): "1" for change in end.header_changes for name in change.remove}
    assert headers == {
        (what.split(".")[1], what.split(".", 2)[2]): value
        for what, value in outcome.what.items()
        if what.startswith("request.")
    }


@given(http_documents.elb_graphs(), http_documents.requests)
def test_elbs_graph_is_walked_as_elb_walks_it(document: dict[str, Any], wire: WireRequest) -> None:
    route = parse_route("routes/a.example", "a.example", {"gateways": ["web"], "graph": document})
    assert isinstance(route, HttpRoute), route
    graph = graph_of(route)
    compiled = compile_graph(graph)
    outcome = Machine(compiled.entries).run(compiled.root, wire)
    way = walk(graph, as_request(wire))
    ((_, end),) = way.ends
    rule = end.rule if isinstance(end, Leaf) else str(end.code)
    assert (rule, way.path) == elb_says(document, wire)
    assert outcome.path == way.path
    assert outcome.node == f"!{rule}" or node_of(graph, outcome.node) is end


@given(http_documents.routes, http_documents.requests)
def test_the_words_of_why_are_those_of_the_document(document: dict[str, Any], wire: WireRequest) -> None:
    route, request = read(document), as_request(wire)
    for rule, as_written in zip(route.rules, document["rules"], strict=True):
        met = any(meets(match, wire) for match in as_written.get("matches", [{}]))
        assert met == any(not unmet(match, request) for match in rule.matches)
    site = Site("shop.example", route, graph_of(route))
    found = explain_request(site, request, Target("https", 443))
    rule_of_document = chosen(document, wire)
    number = document["rules"].index(rule_of_document) + 1 if rule_of_document else 0
    assert found.rule == (f"rule-{number}" if number else "")
    others = {f"rule-{place + 1}" for place in range(len(document["rules"]))} - {found.rule}
    assert {passed.rule for passed in found.passed} == others and all(passed.why for passed in found.passed)
    assert round(sum(end.share for end in found.ends), 9) == 1


@given(st.integers(10_000, 20_000), st.integers(10_000, 20_000), st.integers(10_000, 19_999))
def test_the_beginnings_of_numbers_cover_a_range_and_nothing_else(one: int, other: int, number: int) -> None:
    low, end = min(one, other), max(one, other)
    covered = [digits for digits in beginnings(low, end) if str(number).startswith(digits)]
    assert len(covered) == (low <= number < end)


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=16).filter(any))
def test_every_weight_has_its_share_of_chance(weights_of_pools: list[int]) -> None:
    slots = slots_of(weights_of_pools)
    assert sum(slots) == SLOTS and all(
        (slot > 0) == (weight > 0) for slot, weight in zip(slots, weights_of_pools, strict=True)
    )
    total = sum(weights_of_pools)
    assert all(abs(slot / SLOTS - weight / total) < 0.002 for slot, weight in zip(slots, weights_of_pools, strict=True))
