"""Gateways, routes and pools in the catalog: their values, what is quarantined, what is kept, who keeps a claim."""

from __future__ import annotations

import json
from ipaddress import ip_address
from typing import Any

import pytest

from anycastlb.adapters.checks import PARAMS
from anycastlb.core.catalog.decode import MalformedDocument
from anycastlb.core.catalog.edit.bulk import export_documents, imported
from anycastlb.core.catalog.edit.documents import DocumentTarget
from anycastlb.core.catalog.edit.targets import TargetMissing
from anycastlb.core.catalog.edit.validate import Rules, applied, validate
from anycastlb.core.catalog.fingerprint import fingerprint
from anycastlb.core.catalog.memory import CatalogMemory
from anycastlb.core.catalog.parse import parse_catalog
from anycastlb.core.catalog.shrink import admit, without_loss
from anycastlb.core.model import (
    BackendRef,
    Catalog,
    Match,
    Passive,
    PathMatch,
    PathRewrite,
    Retry,
    Rewrite,
    Route,
    Rule,
    Share,
    Tls,
    Tree,
    ValueMatch,
)
from tests.support.bad_http import BAD
from tests.support.http_tree import DOCUMENTS, ELB, GATEWAY, RANGES, ROUTE, changed, read, texts, tree


def good() -> Catalog:
    found = read(DOCUMENTS)
    assert not found.problems, texts(found.problems)
    return found


def test_a_gateway_as_it_is_documented() -> None:
    (gateway,) = good().gateways
    assert gateway.vips == (ip_address("192.0.2.10"), ip_address("2001:db8:2::10")) and gateway.port == 443
    assert gateway.tls == Tls(("shop", "default"), "1.2", ("h2", "http/1.1"), strict_sni=True)
    assert (gateway.spread, gateway.limits.maxconn, gateway.limits.request_timeout) == ("mh", 20000, 10.0)
    assert gateway.when == gateway.announce.when == "any"
    assert gateway.announce.route == Route(communities=("65001:100",))


def test_a_route_as_it_is_documented() -> None:
    (route,) = good().routes
    assert (route.gateways, route.hostnames) == (("web",), ("shop.example", "*.shop.example"))
    agent = ValueMatch("user-agent", "(?i)httpie", regex=True)
    assert route.rules == (
        Rule(
            name="blog-canary",
            matches=(Match(PathMatch("prefix", "/blog"), headers=(agent,)),),
            filters=(Rewrite(path=PathRewrite("prefix", "")),),
            refs=(BackendRef("blog", 90), BackendRef("blog-canary", 10)),
            retry=Retry(2, ("conn-failure", "empty-response", "500", "504")),
            timeout=30.0,
        ),
        Rule("rule-2", refs=(BackendRef("web"),)),
    )
    assert route.pools() == {"blog", "blog-canary", "web"}


def test_a_service_without_a_vip_is_a_pool_and_no_service() -> None:
    found = good()
    assert [service.name for service in found.services] == ["web"]
    blog, canary = found.pools
    assert (blog.vips, blog.balancing.algorithm, blog.balancing.cookie) == ((), "leastconn", "SRV")
    assert [(one.name, one.port, one.passive) for one in blog.backends] == [
        ("b1", 80, Passive(3, 5.0)),
        ("b2", 8080, None),
    ]
    assert [one.check.params.path for one in blog.backends] == ["/health"] * 2
    assert canary.balancing.algorithm == "roundrobin" and canary.backends[0].check.type == "tcp"


def test_the_plain_form_of_a_backend_is_that_of_elbs_upstreams() -> None:
    key = "services/blog/backends/10.1.0.9:8089"
    found = read({**DOCUMENTS, key: b"weight=10 max_fails=2 fail_timeout=7s"})
    (backend,) = (one for one in found.pools[0].backends if one.name == "10.1.0.9:8089")
    assert (backend.port, backend.weight, backend.passive) == (8089, 10, Passive(2, 7.0))


def test_defaults_of_ipvs_and_bgp_say_nothing_about_pools() -> None:
    defaults = {"scheduler": "wrr", "forward": "dr", "announce": {"min_backends": 2}, "drain": "7s"}
    found = read({"defaults": defaults, **DOCUMENTS})
    assert not found.problems and found.pools[0].drain == 7.0


@pytest.mark.parametrize(("key", "document"), [one[::2] for one in BAD], ids=[f"{key} {name}" for key, name, _ in BAD])
def test_a_bad_document_is_quarantined_alone_and_its_last_good_version_stays(key: str, document: Any) -> None:
    before = good()
    found = read({**DOCUMENTS, key: document}, before, 2)
    assert found.problems and {problem.key for problem in found.problems} == {key}
    assert all("expected" in problem.expected or "unknown field" in problem.expected for problem in found.problems)
    assert all(len(str(problem)) < 600 for problem in found.problems)
    for kind in ("gateways", "routes", "pools", "services"):
        for now, then in zip(getattr(found, kind), getattr(before, kind), strict=True):
            assert now is then or (kind in ("pools", "services") and now == then)
    assert found.good == before.good
    again = read({**DOCUMENTS, key: document}, found, 3)
    assert (again.gateways, again.routes, again.pools, again.problems) == (
        found.gateways, found.routes, found.pools, found.problems
    )  # fmt: skip
    fresh = read({**DOCUMENTS, key: document})
    assert key not in fresh.good and {problem.key for problem in fresh.problems} >= {key}
    others = {name for name in fresh.good if name not in ("routes/shop", key)}
    assert others == DOCUMENTS.keys() - {"routes/shop", key}, "at most the route that refers to it goes with it"


def test_a_problem_says_where_and_what_was_expected() -> None:
    found = read({**DOCUMENTS, "routes/shop": changed(ROUTE, "rules", 1, "backendRefs", 0, "name", to="nobody")})
    expected = "expected the name of a service, with or without a VIP; there is none called nobody"
    assert texts(found.problems) == [f"routes/shop: rules.1.backendRefs.0.name: {expected}"]
    graph = {"gateways": ["web"], "graph": changed(ELB, "rules", "r1", "args", "succ", to="r1")}
    found = read({**DOCUMENTS, "routes/old.example": graph})
    expected = "expected no rule that leads back to itself: r1 -> r1"
    assert texts(found.problems) == [f"routes/old.example: graph.rules.r1: {expected}"]
    only_bad = {"matches": [{"method": "get"}], "backendRefs": [{"name": "web"}]}
    found = read({**DOCUMENTS, "routes/shop": changed(ROUTE, "rules", to=[only_bad])})
    assert [problem.path for problem in found.problems] == ["rules.0.matches.0.method"], "and not that there is none"


def test_a_route_stays_when_what_it_refers_to_is_deleted() -> None:
    before = good()
    without = {key: value for key, value in DOCUMENTS.items() if key not in ("services/blog", "gateways/web")}
    found = read(without, before, 2)
    assert found.routes == before.routes and not found.gateways
    assert [problem.path for problem in found.problems] == ["gateways.0", "rules.0.backendRefs.0.name"]
    assert read(DOCUMENTS, found, 3).problems == ()


def test_a_vip_and_port_belongs_to_one_gateway_or_service() -> None:
    other = {**GATEWAY, "vip": "192.0.2.10"}
    service = {"vip": "192.0.2.10", "port": 443, "backends": {"a": {"address": "10.0.0.1"}}}
    older = read({"services/l4": service, **DOCUMENTS})
    assert not older.gateways, "the older document gets it"
    expected = "expected a VIP, port and protocol of its own; tcp 192.0.2.10:443 belongs to service l4"
    assert f"gateways/web: vip: {expected}" in texts(older.problems)
    younger = read({**DOCUMENTS, "services/l4": service, "gateways/other": other})
    assert [gateway.name for gateway in younger.gateways] == ["web"]
    assert [service.name for service in younger.services] == ["web"]
    assert [(problem.key, problem.path) for problem in younger.problems] == [
        ("services/l4", "vip"),
        ("gateways/other", "vip"),
    ]
    assert younger.problems[0].expected.endswith("belongs to gateway web")
    held = read({"gateways/other": other, **DOCUMENTS}, good(), 2)
    assert [gateway.name for gateway in held.gateways] == ["web"], "who holds it keeps it, whoever is older"


def test_a_service_on_every_port_leaves_none_to_a_gateway() -> None:
    every = {
        "vip": "192.0.2.10",
        "port": 0,
        "persistence": {"timeout": "5m"},
        "backends": {"a": {"address": "10.0.0.1"}},
        "check": {"type": "none"},
    }
    assert not read({"services/l4": every, **DOCUMENTS}).gateways, "the older document gets it"
    younger = read({**DOCUMENTS, "services/l4": every, "gateways/plain": {**GATEWAY, "port": 8443}})
    assert [gateway.name for gateway in younger.gateways] == ["plain", "web"], "gateways share a VIP"
    assert [(problem.key, problem.path) for problem in younger.problems] == [("services/l4", "vip")]
    assert younger.problems[0].expected.endswith("belongs to gateway web")


def test_the_shrink_guard_keeps_gateways_with_their_routes_and_pools() -> None:
    before = good()
    emptied = read({"services/l4": {"vip": "192.0.2.99", "port": 80}}, before, 2)
    held = admit(before, emptied, Share(percent=50), 60, None, 0)
    assert held is not None and set(before.gateways[0].vips) <= set(held.lost)
    kept = parse_catalog(
        without_loss(tree({"services/l4": {"vip": "192.0.2.99", "port": 80}}, 2), before, held.lost),
        before, RANGES, (), PARAMS,
    )  # fmt: skip
    assert (kept.gateways, kept.routes, kept.pools) == (before.gateways, before.routes, before.pools)
    assert "l4" in {service.name for service in kept.services}, "what is new comes into force"


def test_a_service_that_moves_onto_a_gateway_keeps_its_last_good_version() -> None:
    before = good()
    moved = {"vip": "192.0.2.10", "port": 443, "backends": {"w1": {"address": "10.1.0.4"}}}
    found = read({**DOCUMENTS, "services/web": moved}, before, 2)
    assert found.services == before.services and found.gateways == before.gateways
    assert [problem.key for problem in found.problems] == ["services/web"]


def test_a_hostname_of_a_gateway_belongs_to_the_older_route() -> None:
    second = {"gateways": ["web"], "hostnames": ["other.example", "SHOP.example."], "rules": ROUTE["rules"]}
    found = read({**DOCUMENTS, "routes/a": second})
    assert [route.name for route in found.routes] == ["shop"]
    expected = "expected hostnames of its own; web|shop.example belongs to route shop"
    assert texts(found.problems) == [f"routes/a: hostnames: {expected}"]
    alone = read({**DOCUMENTS, "routes/a": {**second, "hostnames": ["other.example"]}})
    taken = read({**DOCUMENTS, "routes/a": second}, alone, 2)
    assert [route.hostnames for route in taken.routes] == [("other.example",), ("shop.example", "*.shop.example")]


def test_a_service_with_a_vip_does_not_become_a_pool_by_a_slip() -> None:
    before = good()
    slipped = {"port": 80, "backends": {"w1": {"address": "10.1.0.4"}}}
    found = read({**DOCUMENTS, "services/web": slipped}, before, 2)
    assert found.services == before.services
    assert [(problem.key, problem.path) for problem in found.problems] == [("services/web", "vip")]
    meant = read({key: value for key, value in DOCUMENTS.items() if key != "services/web"}, before, 2)
    assert [pool.name for pool in read({**DOCUMENTS, "services/web": slipped}, meant, 3).pools] == [
        "blog",
        "blog-canary",
        "web",
    ]


def test_hostnames_are_as_haproxy_compares_them() -> None:
    names = ["Shop.Example.", "*.SHOP.example", "*", "192.0.2.7", "2001:DB8::1", "[2001:db8::2]"]
    (route,) = read({**DOCUMENTS, "routes/shop": {**ROUTE, "hostnames": names}}).routes
    assert route.hostnames == (
        "shop.example", "*.shop.example", "*", "192.0.2.7", "[2001:db8::1]", "[2001:db8::2]",
    )  # fmt: skip


def test_elbs_document_is_for_the_domain_it_is_named_by() -> None:
    found = read({**DOCUMENTS, "routes/old.example": {"gateways": ["web"], "graph": ELB}})
    assert not found.problems and found.routes[0].hostnames == ("old.example",)
    unnamed = read({**DOCUMENTS, "routes/Not:a:host": {"gateways": ["web"], "graph": ELB}})
    assert [problem.path for problem in unnamed.problems] == ["hostnames"]


def test_what_is_unchanged_is_the_same_object_and_a_memory_changes_nothing() -> None:
    memory, one = CatalogMemory(), tree(DOCUMENTS)
    first = parse_catalog(one, Catalog(), RANGES, (), PARAMS, memory=memory)
    second = parse_catalog(Tree(dict(one.entries), 2), first, RANGES, (), PARAMS, memory=memory)
    for kind in ("gateways", "routes", "pools", "services"):
        assert all(now is then for now, then in zip(getattr(second, kind), getattr(first, kind), strict=True))
    assert fingerprint(second) == fingerprint(first) != fingerprint(Catalog())
    restarted = parse_catalog(Tree(first.good), Catalog(), RANGES, (), PARAMS)
    assert (restarted.gateways, restarted.routes, restarted.pools) == (first.gateways, first.routes, first.pools)


def test_an_export_can_be_imported_and_is_the_same_catalog() -> None:
    before = tree({**DOCUMENTS, "routes/old.example": {"gateways": ["web"], "graph": ELB}})
    exported, problems = export_documents(before)
    assert not problems and exported.keys() == before.entries.keys()
    after = applied(Tree(), imported(Tree(), json.loads(json.dumps(exported)), replace=True))
    there, here = (parse_catalog(one, Catalog(), RANGES, (), PARAMS) for one in (after, before))
    assert (there.gateways, there.routes, there.pools) == (here.gateways, here.routes, here.pools)
    assert imported(before, exported, replace=True) == ()
    gone = imported(before, {"services/web": exported["services/web"]}, replace=True)
    assert {edit.key for edit in gone if edit.value is None} == exported.keys() - {"services/web"}


def test_a_gateway_or_route_is_put_patched_and_deleted() -> None:
    before, target = tree(DOCUMENTS), DocumentTarget("routes", "shop")
    assert target.put(before, ROUTE) == ()
    (edit,) = target.patch(before, {"critical": True, "hostnames": None})
    assert edit.key == "routes/shop" and json.loads(edit.value or b"") == {
        **{name: value for name, value in ROUTE.items() if name != "hostnames"},
        "critical": True,
    }
    assert [(one.key, one.value) for one in target.delete(before)] == [("routes/shop", None)]
    new = DocumentTarget("gateways", "new")
    assert new.seen(before) is None and [one.expects for one in new.put(before, GATEWAY)] == [""]
    for refused in (new.delete, lambda given: new.patch(given, {})):
        with pytest.raises(TargetMissing, match="there is no gateway 'new'"):
            refused(before)
    broken = tree({"routes/shop": b"{"})
    with pytest.raises(MalformedDocument):
        target.patch(broken, {})
    assert [one.key for one in target.put(broken, ROUTE)] == ["routes/shop"]


def test_what_a_node_has_is_judged_anew_at_each_reading() -> None:
    """The certificate of an unchanged gateway may be gone, and so may the pool of an unchanged route."""
    before = good()
    found = parse_catalog(tree(DOCUMENTS, 2), before, RANGES, ((100, 199),), PARAMS, certificates=frozenset({"shop"}))
    assert [(problem.key, problem.path) for problem in found.problems] == [("gateways/web", "tls.certificates.1")]
    assert found.gateways == before.gateways, "the last good version stays"


def test_an_edit_is_stopped_by_what_it_would_break() -> None:
    before, rules = tree(DOCUMENTS), Rules(RANGES, (), PARAMS)
    in_force = parse_catalog(before, Catalog(), RANGES, (), PARAMS)
    judged = validate(before, imported(before, {"services/blog": None}, replace=False), rules, in_force)
    assert [(problem.key, problem.path) for problem in judged.problems] == [
        ("routes/shop", "rules.0.backendRefs.0.name")
    ]
    fine = {"routes/shop": changed(ROUTE, "rules", 0, "backendRefs", 0, "weight", to=50)}
    judged = validate(before, imported(before, fine, replace=False), rules, in_force)
    assert not judged.problems and judged.catalog.routes[0].rules[0].refs[0].weight == 50
