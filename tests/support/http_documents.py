"""Documents of routes and requests for them, few and colliding, for laws and fuzzing."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.support.http_machine import WireRequest

PATHS = ("/", "/blog", "/blog/", "/blog/a", "/blogs", "/blog//a", "/a/b/c", "/x%61", "/|=")
VALUES = ("yes", "no", "yes, no", "two words", "a?b", "yes?")
PATTERNS = ("^/blog", "blog$", "(?i)YES|^no", "^/(a|blog)/(.*)$", "o w", ".*", r"^/b|\Ax", "[[a-c]{2,}")
NAMES = ("x-canary", "user-agent")
PARAMETERS = ("page", "p.q")


def values(exact: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    """The type and value of a header or of a parameter."""
    return st.one_of(
        st.fixed_dictionaries({"value": exact}),
        st.fixed_dictionaries({"type": st.just("RegularExpression"), "value": st.sampled_from(PATTERNS)}),
    )


def named(names: tuple[str, ...], exact: st.SearchStrategy[str]) -> st.SearchStrategy[list[dict[str, Any]]]:
    one = st.builds(lambda name, value: {"name": name, **value}, st.sampled_from(names), values(exact))
    return st.lists(one, max_size=2)


paths = st.one_of(
    st.fixed_dictionaries({"type": st.sampled_from(["Exact", "PathPrefix"]), "value": st.sampled_from(PATHS)}),
    st.fixed_dictionaries({"type": st.just("RegularExpression"), "value": st.sampled_from(PATTERNS)}),
)
matches = st.fixed_dictionaries(
    {},
    optional={
        "path": paths,
        "method": st.sampled_from(["GET", "POST"]),
        "headers": named(NAMES, st.sampled_from(VALUES)),
        "queryParams": named(PARAMETERS, st.sampled_from(["1", "a?b", "a/b"])),
    },
)
modifiers = st.sampled_from([
    {"type": "ReplaceFullPath", "replaceFullPath": "/full"},
    {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"},
    {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/new/"},
    {"type": "ReplaceRegexMatch", "replaceRegexMatch": {"pattern": "^/([^/]*)/(.*)$", "substitution": r"/\2/\1"}},
    {"type": "ReplaceRegexMatch", "replaceRegexMatch": {"pattern": "(b)|(/a)", "substitution": r"/\2x"}},
])  # fmt: skip
rewrites = st.builds(
    lambda path: {"type": "URLRewrite", "urlRewrite": {"path": path, "hostname": "in.example"}}, modifiers
)
header_changes = st.just(
    {
        "type": "RequestHeaderModifier",
        "requestHeaderModifier": {"set": [{"name": "X-A", "value": "%[src] \\ \"'#"}], "remove": ["x-b"]},
    }
)
refs = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(["blog", "web", "10.0.0.1:80"])}, optional={"weight": st.integers(0, 9)}
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda ref: ref["name"],
)
sticky = st.sampled_from(["source", {"cookie": "uid"}])
forwards = st.fixed_dictionaries(
    {"backendRefs": refs},
    optional={
        "matches": st.lists(matches, min_size=1, max_size=3),
        "filters": st.one_of(rewrites.map(lambda one: [one]), st.tuples(header_changes, rewrites).map(list)),
        "sticky": sticky,
        "retry": st.just({"attempts": 1, "on": ["conn-failure", 503]}),
        "timeouts": st.just({"request": "1.5s"}),
    },
)
redirects = st.fixed_dictionaries(
    {
        "filters": modifiers.map(
            lambda path: [{"type": "RequestRedirect", "requestRedirect": {"path": path, "statusCode": 301}}]
        )
    },
    optional={"matches": st.lists(matches, min_size=1, max_size=2)},
)
rules = st.lists(st.one_of(forwards, forwards, redirects), min_size=1, max_size=5)
routes = st.fixed_dictionaries({"gateways": st.just(["web"]), "hostnames": st.just(["shop.example"]), "rules": rules})
"""Documents that are nearly always good: some have all weights 0, or replace a prefix where none matches."""

headers = st.lists(
    st.tuples(
        st.sampled_from([*NAMES, "cookie"]),
        st.sampled_from([*VALUES, "", "uid=a", "uid=b; uid=c", "nothing"]),
    ),
    max_size=4,
).map(tuple)
requests = st.builds(
    WireRequest,
    method=st.sampled_from(["GET", "POST", "get"]),
    path=st.one_of(st.sampled_from(PATHS), st.text("/ab|=.%", max_size=6).map(lambda text: f"/{text}")),
    query=st.sampled_from(["", "page=1", "page=2&page=1", "p.q=a?b;page", "xpage=1&p.q=a/b", "page"]),
    headers=headers,
    source=st.binary(min_size=4, max_size=4),
    chance=st.integers(0, 9999),
)


@st.composite
def elb_graphs(draw: st.DrawFn) -> dict[str, Any]:
    """ELB's graphs without cycles: every edge leads to a later rule, or is missing."""
    count = draw(st.integers(1, 6))
    rules: dict[str, Any] = {f"r{count}": {"type": "backend", "args": {"servername": "web"}}}
    for number in reversed(range(count)):
        kind = draw(st.sampled_from(["ua", "path", "regex", "backend"]))
        if kind == "backend":
            rules[f"r{number}"] = {"type": "backend", "args": {"servername": "blog", "expires": "30d"}}
            continue
        args: dict[str, Any] = {}
        for edge in draw(st.sampled_from([("succ", "fail"), ("succ", "fail"), ("succ",), ("fail",)])):
            args[edge] = f"r{draw(st.integers(number + 1, count))}"
        if kind == "path":
            args["pattern"] = draw(st.sampled_from(["/", "/blog", "/blog/", "/b", "/x%61"]))
        else:
            args["pattern"] = draw(st.sampled_from(PATTERNS))
        if kind == "regex":
            args |= {"regex": True, "rewrite": draw(st.booleans())}
        rules[f"r{number}"] = {"type": "ua" if kind == "ua" else "path", "args": args}
    return {"init": "r0", "rules": rules}
