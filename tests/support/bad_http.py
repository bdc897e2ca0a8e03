"""Documents of the HTTP tier with one fault each: what the catalog quarantines, and ``validate`` and the API refuse."""

from __future__ import annotations

from typing import Any

from tests.support.http_tree import ELB, GATEWAY, POOL, ROUTE, changed

ROUTES: dict[str, Any] = {
    "an unknown field": changed(ROUTE, "rules", 0, "weight", to=1),
    "an unknown field of a match": changed(ROUTE, "rules", 0, "matches", 0, "host", to="x"),
    "no gateway": changed(ROUTE, "gateways", to=[]),
    "an unknown gateway": changed(ROUTE, "gateways", to=["web", "other"]),
    "an unknown pool": changed(ROUTE, "rules", 1, "backendRefs", 0, "name", to="nobody"),
    "no pool": changed(ROUTE, "rules", 1, "backendRefs", to=[]),
    "a pool twice": changed(ROUTE, "rules", 1, "backendRefs", to=[{"name": "web"}, {"name": "web"}]),
    "all weights 0": changed(ROUTE, "rules", 0, "backendRefs", to=[{"name": "web", "weight": 0}]),
    "a negative weight": changed(ROUTE, "rules", 0, "backendRefs", 0, "weight", to=-1),
    "no hostnames": {name: value for name, value in ROUTE.items() if name != "hostnames"},
    "a hostname with a port": changed(ROUTE, "hostnames", to=["shop.example:443"]),
    "a hostname with a space": changed(ROUTE, "hostnames", to=["shop example"]),
    "a hostname with a bar": changed(ROUTE, "hostnames", to=["web|x"]),
    "a hostname with a wildcard inside": changed(ROUTE, "hostnames", to=["a.*.example"]),
    "a hostname of an umlaut": changed(ROUTE, "hostnames", to=["bücher.example"]),
    "a bad IPv6 address for a hostname": changed(ROUTE, "hostnames", to=["[2001:db8::zz]"]),
    "neither rules nor graph": {"gateways": ["web"], "hostnames": ["x.example"]},
    "rules and a graph": {**ROUTE, "graph": ELB},
    "no rule": changed(ROUTE, "rules", to=[]),
    "65 rules": changed(ROUTE, "rules", to=[{"backendRefs": [{"name": "web"}]}] * 65),
    "two rules of one name": changed(ROUTE, "rules", 1, "name", to="blog-canary"),
    "a rule that takes the name of another's place": changed(ROUTE, "rules", 0, "name", to="rule-2"),
    "a name with a line break": changed(ROUTE, "rules", 0, "name", to="a\nb"),
    "a path without a slash": changed(ROUTE, "rules", 0, "matches", 0, "path", "value", to="blog"),
    "a path with a space": changed(ROUTE, "rules", 0, "matches", 0, "path", "value", to="/a b"),
    "a path with a query": changed(ROUTE, "rules", 0, "matches", 0, "path", "value", to="/a?b"),
    "a path with a line break": changed(ROUTE, "rules", 0, "matches", 0, "path", "value", to="/a\r\nb"),
    "a path with NUL": changed(ROUTE, "rules", 0, "matches", 0, "path", "value", to="/a\0b"),
    "a path of another type": changed(ROUTE, "rules", 0, "matches", 0, "path", "type", to="Suffix"),
    "a bad pattern": changed(ROUTE, "rules", 0, "matches", 0, "headers", 0, "value", to="(?=x)y"),
    "a pattern with a back-reference": changed(ROUTE, "rules", 0, "matches", 0, "headers", 0, "value", to=r"(a)\1"),
    "a pattern that takes too much memory": changed(
        ROUTE, "rules", 0, "matches", 0, "headers", 0, "value", to="((a{100}){100}){100}"
    ),
    "a header name that is no token": changed(ROUTE, "rules", 0, "matches", 0, "headers", 0, "name", to="user agent"),
    "a header name with an underscore": changed(ROUTE, "rules", 0, "matches", 0, "headers", 0, "name", to="x_a"),
    "a header name that ends a sample": changed(ROUTE, "rules", 0, "matches", 0, "headers", 0, "name", to="a),map(x"),
    "a header value with a line break": changed(ROUTE, "rules", 0, "matches", 0, "headers", 0, "value", to="a\r\nb: c"),
    "no value of a header": changed(ROUTE, "rules", 0, "matches", 0, "headers", 0, "value", to=""),
    "a method in small letters": changed(ROUTE, "rules", 0, "matches", 0, "method", to="get"),
    "a parameter with two values": changed(
        ROUTE, "rules", 0, "matches", 0, "queryParams", to=[{"name": "a", "value": "b&c=d"}]
    ),
    "a parameter name of brackets": changed(
        ROUTE, "rules", 0, "matches", 0, "queryParams", to=[{"name": "a[]", "value": "b"}]
    ),
    "an unknown filter": changed(ROUTE, "rules", 0, "filters", 0, "type", to="RequestMirror"),
    "a filter without its field": changed(ROUTE, "rules", 0, "filters", to=[{"type": "URLRewrite"}]),
    "a filter with the field of another": changed(ROUTE, "rules", 0, "filters", 0, "requestRedirect", to={}),
    "a filter twice": changed(ROUTE, "rules", 0, "filters", to=[*ROUTE["rules"][0]["filters"]] * 2),
    "a prefix replaced where none matches": changed(ROUTE, "rules", 0, "matches", 0, "path", "type", to="Exact"),
    "a replaced prefix of nine segments": changed(
        ROUTE, "rules", 0, "matches", 0, "path", "value", to="/1/2/3/4/5/6/7/8/9"
    ),
    "a redirect with a pool": changed(
        ROUTE, "rules", 1, "filters", to=[{"type": "RequestRedirect", "requestRedirect": {"scheme": "https"}}]
    ),
    "a redirect of another status": changed(
        ROUTE, "rules", 1, to={"filters": [{"type": "RequestRedirect", "requestRedirect": {"statusCode": 200}}]}
    ),
    "a redirect to a host with a port": changed(
        ROUTE, "rules", 1, to={"filters": [{"type": "RequestRedirect", "requestRedirect": {"hostname": "a.example:1"}}]}
    ),
    "a header that tells requests apart": changed(
        ROUTE, "rules", 1, "filters",
        to=[{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "Host", "value": "x"}]}}],
    ),
    "a header that is set with a line break": changed(
        ROUTE, "rules", 1, "filters",
        to=[{"type": "RequestHeaderModifier", "requestHeaderModifier": {"add": [{"name": "a", "value": "b\nc: d"}]}}],
    ),
    "a header that is set and removed": changed(
        ROUTE, "rules", 1, "filters",
        to=[{"type": "ResponseHeaderModifier",
             "responseHeaderModifier": {"set": [{"name": "A", "value": "b"}], "remove": ["a"]}}],
    ),
    "a template with a group that is not there": changed(
        ROUTE, "rules", 0, "filters", 0, "urlRewrite", "path",
        to={"type": "ReplaceRegexMatch", "replaceRegexMatch": {"pattern": "^/(a)", "substitution": r"/\2"}},
    ),
    "a template that makes another host of it": changed(
        ROUTE, "rules", 0, "filters", 0, "urlRewrite", "path",
        to={"type": "ReplaceRegexMatch", "replaceRegexMatch": {"pattern": "^/(a)", "substitution": "evil"}},
    ),
    "an unknown reason to retry": changed(ROUTE, "rules", 0, "retry", "on", to=["all-retryable-errors"]),
    "eleven attempts": changed(ROUTE, "rules", 0, "retry", "attempts", to=11),
    "a time-out without a unit": changed(ROUTE, "rules", 0, "timeouts", "request", to=30),
    "sticky by nothing": changed(ROUTE, "rules", 0, "sticky", to="header"),
    "seventeen headers in a row": changed(
        ROUTE, "rules",
        to=[{"matches": [{"headers": [{"name": "x-a", "value": f"v{one}"}]}], "backendRefs": [{"name": "web"}]}
            for one in range(17)],
    ),
    "65 regular expressions": changed(
        ROUTE, "rules", 1, "matches",
        to=[{"headers": [{"name": "a", "type": "RegularExpression", "value": f"{n}"}] * 8} for n in range(9)],
    ),
    "257 matches": changed(
        ROUTE, "rules",
        to=[{"matches": [{"path": {"value": f"/{rule}/{n}"}} for n in range(16)], "backendRefs": [{"name": "web"}]}
            for rule in range(17)],
    ),
    "a list": [],
    "no JSON": b"{",
    "a field twice": b'{"gateways": ["web"], "gateways": ["other"]}',
}  # fmt: skip
GRAPHS: dict[str, Any] = {
    "no init": {"rules": ELB["rules"]},
    "an init that is no rule": changed(ELB, "init", to="x"),
    "an edge to nowhere": changed(ELB, "rules", "r1", "args", "fail", to="r9"),
    "a rule that leads to itself": changed(ELB, "rules", "r1", "args", "succ", to="r1"),
    "a longer cycle": changed(ELB, "rules", "r4", "args", "fail", to="r1"),
    "an unknown type": changed(ELB, "rules", "r1", "type", to="cookie"),
    "an object for a server name": changed(ELB, "rules", "r2", "args", "servername", to={"up1": ""}),
    "an unknown server name": changed(ELB, "rules", "r2", "args", "servername", to="127.0.0.1:8088"),
    "no arguments": changed(ELB, "rules", "r2", to={"type": "backend"}),
    "an unknown argument": changed(ELB, "rules", "r1", "args", "path", to="/"),
    "an argument that is no header": changed(ELB, "rules", "r2", "args", "a b", to="c"),
    "a prefix without a slash": changed(ELB, "rules", "r4", "args", to={"pattern": "blog", "succ": "r2"}),
    "a rewrite without a pattern": changed(
        ELB, "rules", "r4", "args", to={"pattern": "/blog", "rewrite": True, "succ": "r2"}
    ),
    "a bad pattern": changed(ELB, "rules", "r4", "args", "pattern", to="(?=x)"),
    "seventeen rules in a row": {
        "init": "p0",
        "rules": {
            **{f"p{n}": {"type": "path", "args": {"pattern": f"/{n}", "succ": "end", "fail": f"p{n + 1}"}}
               for n in range(17)},
            "p17": {"type": "backend", "args": {"servername": "web"}},
            "end": {"type": "backend", "args": {"servername": "web"}},
        },
    },
}  # fmt: skip
GATEWAYS: dict[str, Any] = {
    "an unknown field": {**GATEWAY, "scheduler": "mh"},
    "no vip": {name: value for name, value in GATEWAY.items() if name != "vip"},
    "a vip outside": {**GATEWAY, "vip": "198.51.100.1"},
    "port 0": {**GATEWAY, "port": 0},
    "no protocol": {name: value for name, value in GATEWAY.items() if name != "protocol"},
    "https without certificates": {name: value for name, value in GATEWAY.items() if name != "tls"},
    "http with certificates": {**GATEWAY, "protocol": "http"},
    "an unknown certificate": changed(GATEWAY, "tls", "certificates", to=["shop", "other"]),
    "a certificate in another folder": changed(GATEWAY, "tls", "certificates", to=["../node"]),
    "an old version of TLS": changed(GATEWAY, "tls", "min_version", to="1.0"),
    "another protocol in TLS": changed(GATEWAY, "tls", "alpn", to=["h3"]),
    "another spread": {**GATEWAY, "spread": "rr"},
    "no connections": changed(GATEWAY, "limits", "maxconn", to=0),
    "a threshold of backends": changed(GATEWAY, "announce", "min_backends", to=1),
    "a bad community": changed(GATEWAY, "announce", "communities", to=["65001"]),
    "the VIP and port of a service": {**GATEWAY, "vip": "192.0.2.20", "port": 80},
}
POOLS: dict[str, Any] = {
    "nothing": {},
    "a scheduler": {**POOL, "scheduler": "rr"},
    "a forward of a backend": changed(POOL, "backends", "b1", "forward", to="dr"),
    "an unknown balance": {**POOL, "balance": "url_param a"},
    "a balance that injects": {**POOL, "balance": "roundrobin\n  server x 1.2.3.4"},
    "persistence of IPVS": {**POOL, "persistence": {"timeout": "5m"}},
    "a cookie that injects": {**POOL, "persistence": {"cookie": "a insert\n"}},
    "no port at all": {name: value for name, value in POOL.items() if name != "port"},
    "a check through IPVS": changed(POOL, "check", "via", to="forward"),
    "a fail_timeout of 0": {**POOL, "fail_timeout": "0s"},
}
BAD: list[tuple[str, str, Any]] = [
    *(("routes/shop", name, document) for name, document in ROUTES.items()),
    *(("routes/shop", name, {"gateways": ["web"], "hostnames": ["shop.example"], "graph": document})
      for name, document in GRAPHS.items()),
    *(("gateways/web", name, document) for name, document in GATEWAYS.items()),
    *(("services/blog", name, document) for name, document in POOLS.items()),
]  # fmt: skip
"""Key, what is wrong, document (bytes stand as they are)."""
