"""The document of a route to an ``HttpRoute``, or every problem in it.

What a route is about besides (which gateways and pools there are, whether another route has its hostname) is the
business of ``reading``. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from anycastlb.core.catalog.http.elb_graph import parse_graph
from anycastlb.core.catalog.http.filter_schema import (
    FilterDocument,
    HeaderDocument,
    HeaderModifierDocument,
    PathModifierDocument,
)
from anycastlb.core.catalog.http.route_schema import (
    MAX_MATCHES,
    MAX_PATTERNS,
    MAX_SEGMENTS,
    HeaderMatchDocument,
    MatchDocument,
    QueryMatchDocument,
    RouteDocument,
    RuleDocument,
)
from anycastlb.core.fields import problems
from anycastlb.core.http.graph import DeepGraph
from anycastlb.core.http.routes import graph_of
from anycastlb.core.model import (
    BackendRef,
    Filter,
    HeaderChange,
    HttpRoute,
    Match,
    PathMatch,
    PathRewrite,
    Problem,
    Redirect,
    Retry,
    Rewrite,
    Rule,
    Sticky,
    ValueMatch,
)

PATHS = {"Exact": "exact", "PathPrefix": "prefix", "RegularExpression": "regex"}


def parse_route(key: str, name: str, document: Mapping[str, Any]) -> HttpRoute | tuple[Problem, ...]:
    if (count := _patterns(document)) > MAX_PATTERNS:
        return (Problem(key, "", f"expected at most {MAX_PATTERNS} regular expressions in one route, not {count}"),)
    try:
        parsed = RouteDocument.model_validate(document)
    except ValidationError as exc:
        return problems(exc, key)
    graph = parse_graph(key, parsed.graph) if parsed.graph is not None else None
    wrong = [Problem(key, path, expected) for path, expected in _contradictions(parsed)]
    if isinstance(graph, tuple):
        return (*wrong, *graph)
    if wrong:
        return tuple(wrong)
    hostnames = parsed.hostnames
    if hostnames is None:  # ELB's key is its domain
        try:
            hostnames = RouteDocument.model_validate({"gateways": ["-"], "hostnames": [name]}).hostnames
        except ValidationError:
            return (Problem(key, "hostnames", "missing; expected host names, as the route's own name is none"),)
    route = HttpRoute(
        name=name,
        gateways=tuple(dict.fromkeys(parsed.gateways)),
        hostnames=tuple(dict.fromkeys(hostnames or ())),
        rules=tuple(_rule(place, rule) for place, rule in enumerate(parsed.rules or (), 1)),
        graph=graph,
        critical=parsed.critical,
    )
    try:
        graph_of(route)
    except DeepGraph as exc:
        return (Problem(key, exc.path, exc.expected),)
    return route


def _patterns(value: Any) -> int:
    """How many regular expressions a raw document asks for. Its depth is bounded."""
    if isinstance(value, dict):
        own = value.get("type") == "RegularExpression" or "pattern" in value
        return own + sum(map(_patterns, value.values()))
    return sum(map(_patterns, value)) if isinstance(value, list) else 0


def _contradictions(parsed: RouteDocument) -> Iterator[tuple[str, str]]:
    """Each field that does not go together with another one, and what is expected of it."""
    if (parsed.rules is None) == (parsed.graph is None):
        yield "rules", "expected exactly one of rules and graph"
    if parsed.hostnames is None and parsed.graph is None:
        yield "hostnames", 'missing; expected host names, or "*" for all that no other route has'
    if (matches := sum(len(rule.matches) for rule in parsed.rules or ())) > MAX_MATCHES:
        yield "rules", f"expected at most {MAX_MATCHES} matches in one route, not {matches}"
    names: set[str] = set()
    for place, rule in enumerate(parsed.rules or ()):
        at = f"rules.{place}"
        if (name := _name(place + 1, rule)) in names:
            yield f"{at}.name", f"expected a name of its own; an earlier rule is called {name} too"
        names.add(name)
        for path, expected in _of_rule(rule):
            yield f"{at}.{path}", expected


def _of_rule(rule: RuleDocument) -> Iterator[tuple[str, str]]:
    kinds = [one.type for one in rule.filters]
    for place, kind in enumerate(kinds):
        if kind in kinds[:place]:
            yield f"filters.{place}", f"expected one filter of a type; there are two of {kind}"
        if kind == "URLRewrite" and "RequestRedirect" in kinds:
            yield (
                f"filters.{place}",
                "expected no rewrite beside a redirect, which has a path of its own",
            )
        if (change := _path_change(rule.filters[place])) is not None and change.type == "ReplacePrefixMatch":
            yield from _prefixes(rule)
    if "RequestRedirect" in kinds:
        if rule.backendRefs:
            yield "backendRefs", "expected none beside a redirect, which is the answer"
        if "RequestHeaderModifier" in kinds:
            yield "filters", "expected no request headers beside a redirect: there is no request"
    elif not rule.backendRefs:
        yield "backendRefs", "missing; expected a pool, or a filter of type RequestRedirect"
    elif not any(ref.weight for ref in rule.backendRefs):
        yield "backendRefs", "expected a weight above 0 of at least one pool"
    pools = [ref.name for ref in rule.backendRefs]
    for place, pool in enumerate(pools):
        if pool in pools[:place]:
            yield f"backendRefs.{place}.name", f"expected each pool once, not {pool} twice"


def _prefixes(rule: RuleDocument) -> Iterator[tuple[str, str]]:
    """What keeps the prefixes of a rule from being replaced."""
    for place, match in enumerate(rule.matches):
        at = f"matches.{place}.path"
        if match.path.type != "PathPrefix":
            yield f"{at}.type", "expected PathPrefix, as a filter replaces the prefix that matched"
        elif match.path.value.strip("/").count("/") >= MAX_SEGMENTS:
            yield f"{at}.value", f"expected at most {MAX_SEGMENTS} segments, as a filter replaces them"


def _path_change(document: FilterDocument) -> PathModifierDocument | None:
    owner = document.urlRewrite or document.requestRedirect
    return owner.path if owner else None


def _name(place: int, rule: RuleDocument) -> str:
    return rule.name or f"rule-{place}"


def _rule(place: int, rule: RuleDocument) -> Rule:
    return Rule(
        name=_name(place, rule),
        matches=tuple(dict.fromkeys(map(_match, rule.matches))),
        filters=tuple(map(_filter, rule.filters)),
        refs=tuple(BackendRef(ref.name, ref.weight) for ref in rule.backendRefs),
        retry=Retry(rule.retry.attempts, tuple(dict.fromkeys(rule.retry.on))),
        timeout=rule.timeouts.request,
        sticky=_sticky(rule),
    )


def _sticky(rule: RuleDocument) -> Sticky:
    if rule.sticky is None:
        return Sticky()
    return Sticky("source") if rule.sticky == "source" else Sticky("cookie", rule.sticky.cookie)


def _match(match: MatchDocument) -> Match:
    kind, value = PATHS[match.path.type], match.path.value
    if kind == "prefix":
        value = value.rstrip("/") or "/"
    return Match(
        path=PathMatch(kind, value),  # type: ignore[arg-type]
        method=match.method or "",
        headers=_values(match.headers),
        query=_values(match.queryParams),
    )


def _values(matches: tuple[HeaderMatchDocument, ...] | tuple[QueryMatchDocument, ...]) -> tuple[ValueMatch, ...]:
    return tuple(ValueMatch(one.name, one.value, one.type == "RegularExpression") for one in matches)


def _filter(document: FilterDocument) -> Filter:
    if (rewrite := document.urlRewrite) is not None:
        return Rewrite(rewrite.hostname or "", _path(rewrite.path))
    if (redirect := document.requestRedirect) is not None:
        return Redirect(
            scheme=redirect.scheme or "",
            host=redirect.hostname or "",
            port=redirect.port,
            path=_path(redirect.path),
            status=redirect.statusCode,  # type: ignore[arg-type]
        )
    if document.requestHeaderModifier is not None:
        return _header_change("request", document.requestHeaderModifier)
    assert document.responseHeaderModifier is not None, "the document has the filter that its type names"
    return _header_change("response", document.responseHeaderModifier)


def _header_change(of: str, change: HeaderModifierDocument) -> HeaderChange:
    return HeaderChange(of, _pairs(change.set), _pairs(change.add), change.remove)  # type: ignore[arg-type]


def _pairs(headers: tuple[HeaderDocument, ...]) -> tuple[tuple[str, str], ...]:
    return tuple((header.name, header.value) for header in headers)


def _path(change: PathModifierDocument | None) -> PathRewrite | None:
    if change is None:
        return None
    if change.replaceFullPath is not None:
        return PathRewrite("full", change.replaceFullPath)
    if change.replacePrefixMatch is not None:
        return PathRewrite("prefix", change.replacePrefixMatch.rstrip("/"))
    assert change.replaceRegexMatch is not None, "the document has the change that its type names"
    return PathRewrite("regex", change.replaceRegexMatch.substitution, change.replaceRegexMatch.pattern)
