"""ELB's own document of a domain to an ``ElbGraph``, or every problem in it.

It is read as ELB reads it, but for what ELB gets wrong: ``{"init": "r1", "rules": {"r1": {"type": "ua", "args":
{"pattern": "httpie", "succ": "r2", "fail": "r3"}}, ...}}``. A rule without the edge that is needed answers 403, as in
ELB; an edge to a rule that is not there, which is an error in ELB while a request waits, is a problem here. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from anycastlb.core.catalog.http.route_schema import MAX_RULES
from anycastlb.core.catalog.http.texts import ChangeableName, HeaderValue, Regex
from anycastlb.core.fields import Document, problems, shown
from anycastlb.core.http import patterns
from anycastlb.core.model import ElbGraph, ElbRule, Problem

RuleName = Annotated[str, Field(pattern=r"^[!-~]{1,128}$")]


class UaArgs(Document):
    pattern: Regex
    succ: RuleName = ""
    fail: RuleName = ""


class PathArgs(UaArgs):
    pattern: Annotated[str, Field(min_length=1, max_length=1024)]
    regex: bool = False
    rewrite: bool = False


class GraphDocument(Document):
    init: RuleName
    rules: Annotated[dict[RuleName, dict[str, Any]], Field(min_length=1, max_length=MAX_RULES)]


HEADERS: TypeAdapter[dict[str, str]] = TypeAdapter(dict[ChangeableName, HeaderValue])


def parse_graph(key: str, document: Mapping[str, Any]) -> ElbGraph | tuple[Problem, ...]:
    """The paths of problems begin with ``graph``."""
    try:
        parsed = GraphDocument.model_validate(document)
    except ValidationError as exc:
        return _inside(problems(exc, key), "graph")
    wrong: list[Problem] = []
    rules: list[ElbRule] = []
    for name, rule in parsed.rules.items():
        read = _rule(key, name, rule)
        if isinstance(read, ElbRule):
            rules.append(read)
        else:
            wrong += _inside(read, f"graph.rules.{name}")
    wrong += [Problem(key, path, expected) for path, expected in _loose_edges(parsed.init, parsed.rules, rules)]
    return tuple(wrong) or ElbGraph(parsed.init, tuple(rules))


def _rule(key: str, name: str, document: Mapping[str, Any]) -> ElbRule | tuple[Problem, ...]:
    kind, args = document.get("type"), document.get("args")
    strange = [field for field in document if field not in ("type", "args")]
    wrong = [Problem(key, field, "unknown field; expected type and args") for field in strange]
    if kind not in ("ua", "path", "backend"):
        wrong.append(Problem(key, "type", f'expected "ua", "path" or "backend", not {shown(kind)}'))
    if not isinstance(args, dict):
        wrong.append(Problem(key, "args", f"expected an object, not {shown(args)}"))
    if wrong or not isinstance(args, dict):
        return tuple(wrong)
    if kind == "backend":
        return _backend(key, name, args)
    try:
        if kind == "ua":
            return ElbRule(name, "ua", **dict(UaArgs.model_validate(args)))
        return _path(key, ElbRule(name, "path", **dict(PathArgs.model_validate(args))))
    except ValidationError as exc:
        return _inside(problems(exc, key), "args")


def _path(key: str, rule: ElbRule) -> ElbRule | tuple[Problem, ...]:
    if rule.regex:
        try:
            patterns.pattern(rule.pattern)
        except ValueError as exc:
            return (Problem(key, "args.pattern", f"expected {exc}"),)
    elif not re.fullmatch(r"/[!->@-~]*", rule.pattern):
        expected = 'expected the beginning of a path, such as "/blog/", or "regex": true'
        return (Problem(key, "args.pattern", f"{expected}, not {shown(rule.pattern)}"),)
    elif rule.rewrite:
        return (Problem(key, "args.rewrite", 'expected "regex": true beside it: only what a group finds can be kept'),)
    return rule


def _backend(key: str, name: str, args: Mapping[str, Any]) -> ElbRule | tuple[Problem, ...]:
    pool = args.get("servername")
    if not isinstance(pool, str) or not pool:
        return (Problem(key, "args.servername", f"expected the name of a pool, not {shown(pool)}"),)
    try:
        headers = HEADERS.validate_python({name: value for name, value in args.items() if name != "servername"})
    except ValidationError as exc:
        return _inside(problems(exc, key), "args")
    return ElbRule(name, "backend", pool=pool, headers=tuple(sorted(headers.items())))


def _loose_edges(init: str, names: Mapping[str, Any], rules: list[ElbRule]) -> Iterator[tuple[str, str]]:
    if init not in names:
        yield "graph.init", f"expected the name of one of the rules, not {shown(init)}"
    for rule in rules:
        for edge, to in (("succ", rule.succ), ("fail", rule.fail)):
            if to and to not in names:
                yield f"graph.rules.{rule.name}.args.{edge}", f"expected the name of one of the rules, not {shown(to)}"


def _inside(found: tuple[Problem, ...], path: str) -> tuple[Problem, ...]:
    return tuple(Problem(one.key, f"{path}.{one.path}" if one.path else path, one.expected) for one in found)
