"""``why URL`` and ``simulate``: the chain of one request, and what a change would move."""

from __future__ import annotations

from typing import Any

from anycastlb.cli.render.why import why_lines
from anycastlb.core.catalog.http.route import parse_route
from anycastlb.core.http.explain import explain_request
from anycastlb.core.http.request import Request, request_of
from anycastlb.core.http.simulate import simulate
from anycastlb.core.http.sites import Site, Sites
from anycastlb.core.model import HttpRoute
from anycastlb.serving.views.links import link
from anycastlb.serving.views.why_request import no_site_view, request_view
from tests.support.http_tree import ELB, ROUTE, changed

URL = "https://shop.example/blog/1"
AGENT = [("user-agent", "HTTPie/1")]


def route(document: Any, name: str = "shop") -> HttpRoute:
    parsed = parse_route(f"routes/{name}", name, document)
    assert isinstance(parsed, HttpRoute), parsed
    return parsed


def site(document: Any, host: str = "shop.example") -> Site:
    found = Sites([route(document)]).find("web", host)
    assert found is not None
    return found


def why(document: Any, url: str = URL, **options: Any) -> list[str]:
    target, request = request_of(url, **options)
    found = explain_request(site(document, request.host), request, target)
    view = request_view(url, request, found, [], {}, {})
    return ["".join(text for text, _ in line).replace("\xa0", " ") for line in why_lines(view, 200)]


def test_the_chain_of_a_request() -> None:
    target, request = request_of(URL, headers=AGENT)
    found = explain_request(site(ROUTE), request, target)
    pools = {
        "blog": link("pool", True, "blog", "2/3 backends up", [link("backend", False, "b3", "10.1.0.3:80  HTTP 503")]),
        "blog-canary": link("pool", True, "blog-canary", "1/1 backends up"),
    }
    vips = [link("vip", True, "192.0.2.10", "announced by lb1, lb2; certificate shop (until 2027-01-03)")]
    asked = {question.key: True for question in found.questions}
    view = request_view(URL, request, found, vips, pools, asked)
    assert ["".join(text for text, _ in line) for line in why_lines(view, 200)] == [
        "✓ GET https://shop.example/blog/1  goes to blog (90 %) or blog-canary (10 %)",
        "",
        "✓ vip      192.0.2.10  announced by lb1, lb2; certificate shop (until 2027-01-03)",
        "✓ route    shop  hostname shop.example",
        "✓ rule     blog-canary  path /blog/1 begins with /blog; header user-agent matches (?i)httpie",
        "✓ filter   path becomes /1",
        "✓ pool     blog  2/3 backends up",
        "  ✗ backend  b3  10.1.0.3:80  HTTP 503",
        "✓ pool     blog-canary  1/1 backends up",
        "· passed   rule-2  a longer prefix won",
        "✓ haproxy  (?i)httpie  HAProxy itself says that it matches",
    ]


def test_a_dead_pool_or_another_answer_of_haproxy_shows() -> None:
    target, request = request_of(URL, headers=AGENT)
    found = explain_request(site(ROUTE), request, target)
    dead = {"blog": link("pool", False, "blog", "0/3 backends up")}
    assert not request_view(URL, request, found, [], dead, {})["ok"]
    assert not request_view(URL, request, found, [], {}, {found.questions[0].key: False})["ok"]
    assert request_view(URL, request, found, [], {}, {})["ok"]


def test_what_did_not_win_is_told_by_its_reason() -> None:
    rules = [
        {"name": "exact", "matches": [{"path": {"type": "Exact", "value": "/blog/2"}}]},
        {"name": "post", "matches": [{"path": {"value": "/blog"}, "method": "POST"}]},
        {"name": "header", "matches": [{"path": {"value": "/blog"}, "headers": [{"name": "X-A", "value": "1"}]}]},
        {"name": "page", "matches": [{"path": {"value": "/blog"}, "queryParams": [{"name": "page", "value": "1"}]}]},
        {"name": "won", "matches": [{"path": {"value": "/blog"}}]},
        {"name": "same", "matches": [{"path": {"value": "/blog"}}]},
        {"name": "regex", "matches": [{"path": {"type": "RegularExpression", "value": "^/b"}}]},
        {"name": "short"},
    ]
    document = {**ROUTE, "rules": [{**rule, "backendRefs": [{"name": "web"}]} for rule in rules]}
    assert why(document, URL + "?page=2", headers=[("X-A", "2")])[3:] == [
        "✓ rule     won  path /blog/1 begins with /blog",
        "· pool     web",
        "· passed   exact  path is /blog/1 and not /blog/2",
        "· passed   post  method is GET and not POST",
        "· passed   header  header x-a is 2 and not 1",
        "· passed   page  query page is 2 and not 1",
        "· passed   same  it stands later",
        "· passed   short  a longer prefix won",
        "· passed   regex  a prefix won",
    ]


def test_a_redirect_and_no_rule() -> None:
    redirect = {"type": "RequestRedirect", "requestRedirect": {"scheme": "https", "statusCode": 301}}
    document = {**ROUTE, "rules": [{"matches": [{"path": {"value": "/a"}}], "filters": [redirect]}]}
    assert why(document, "http://shop.example:8080/a?b")[0] == (
        "✓ GET http://shop.example:8080/a?b  answered with 301, redirected to https://shop.example/a?b"
    )
    assert why(document, "http://shop.example/b")[0] == "✗ GET http://shop.example/b  answered with 404"


def test_a_host_that_nobody_has() -> None:
    _, request = request_of("https://other.example/")
    view = no_site_view("https://other.example/", request, [])
    assert view["chain"][0]["text"] == "no route has the hostname other.example or a wildcard for it"


def test_the_way_through_elbs_graph() -> None:
    document = {"gateways": ["web"], "hostnames": ["shop.example"], "graph": ELB}
    assert why(document, "https://shop.example/other", headers=AGENT)[3] == (
        r"✓ rule     r3  header user-agent matches (?i)httpie(\S+)$; path does not match ^\/blog\/(\S+)$"
    )
    assert why(document)[3] == "✓ rule     r3  there is no header user-agent"


def test_a_simulation_tells_what_would_go_elsewhere_by_rule() -> None:
    asked = [
        Request("GET", "shop.example", path, headers=(("user-agent", "HTTPie"),)) for path in ("/blog/1", "/", "/x")
    ]
    before = [route(ROUTE)]
    assert simulate(before, [route(ROUTE)], "web", asked).moved == 0
    more = changed(ROUTE, "rules", 0, "backendRefs", 1, "weight", to=110)
    found = simulate(before, [route(more)], "web", asked * 10)
    assert (found.requests, round(found.moved, 2)) == (30, 4.5), "10 % become 55 %"
    assert [(one.before, one.after, one.example.path) for one in found.by_rule] == [
        ("shop/blog-canary", "shop/blog-canary", "/blog/1")
    ]
    gone = simulate(before, [], "web", asked)
    assert gone.moved == 3 and {one.after for one in gone.by_rule} == {"404"}
    rewritten = changed(ROUTE, "rules", 0, "filters", to=[])
    assert simulate(before, [route(rewritten)], "web", asked).moved == 1, "another path is another answer"


def test_a_client_that_sticks_moves_as_a_whole() -> None:
    sticky = changed(ROUTE, "rules", 0, "sticky", to={"cookie": "uid"})
    headers = (("user-agent", "HTTPie"), ("cookie", "uid=abc"))  # slot 8578 of 10,000
    asked = [Request("GET", "shop.example", "/blog", headers=headers)]
    for weights, moved in (((87, 13), 0), ((80, 20), 1)):
        after = changed(sticky, "rules", 0, "backendRefs", 0, "weight", to=weights[0])
        after = changed(after, "rules", 0, "backendRefs", 1, "weight", to=weights[1])
        assert simulate([route(sticky)], [route(after)], "web", asked).moved == moved
