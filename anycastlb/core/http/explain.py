"""Why a request goes where it goes: the answer of ``why URL``, as values.

It walks the same graph as ``evaluate`` and says in words what was looked at; what did not win is told by its own rule.
``MapQuestion`` is what HAProxy itself can be asked about each regular expression on the way. Pure: nothing is decided
here, and nothing is known of health.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from anycastlb.core.http.entries import REGEX, pattern_name
from anycastlb.core.http.evaluate import Visit, Walk, walk
from anycastlb.core.http.graph import SLOTS, Leaf, Split, Status, Table, Test
from anycastlb.core.http.patterns import pattern
from anycastlb.core.http.precedence import RANK, Candidate, candidates, covers
from anycastlb.core.http.request import Request, Target
from anycastlb.core.http.rewrite import location, sent_path
from anycastlb.core.http.sites import Site
from anycastlb.core.model import HeaderChange, MapName, Match, PathMatch, ValueMatch

MAX_PASSED = 8
"""Rules that did not win and are told of."""


@dataclass(frozen=True, slots=True)
class MapQuestion:
    """``get map`` of HAProxy, and what it should answer."""

    map: MapName
    key: str
    pattern: str
    found: bool


@dataclass(frozen=True, slots=True)
class End:
    """Where the request may end."""

    share: float
    """Of all such requests: 1.0 unless chance divides them."""
    pool: str = ""
    status: int = 0
    """What HAProxy answers itself, instead of sending it to a pool."""
    changes: tuple[str, ...] = ()
    """What filters do to it, in words."""


@dataclass(frozen=True, slots=True)
class Passed:
    """A rule that did not win."""

    rule: str
    why: str


@dataclass(frozen=True, slots=True)
class Explanation:
    hostname: str
    route: str
    rule: str
    """Empty if no rule of the route is for the request."""
    tests: tuple[str, ...]
    """What was met on the way, in words."""
    ends: tuple[End, ...]
    passed: tuple[Passed, ...]
    questions: tuple[MapQuestion, ...]


def explain_request(site: Site, request: Request, target: Target) -> Explanation:
    way = walk(site.graph, request)
    rules = {end.rule for _, end in way.ends if isinstance(end, Leaf)}
    rule = next(iter(rules), "")
    return Explanation(
        hostname=site.hostname,
        route=site.route.name,
        rule=rule,
        tests=tuple(_tests(way.visits, bool(site.route.rules))) or ("any request",),
        ends=tuple(_end(slots / SLOTS, end, way, request, target) for slots, end in way.ends),
        passed=tuple(_passed(site, request, rule))[:MAX_PASSED],
        questions=tuple(_questions(way.visits)),
    )


def _tests(visits: tuple[Visit, ...], met_only: bool) -> Iterator[str]:
    """What was looked at. ``met_only``: what was not met is told by its rule (``_passed``)."""
    for visit in visits:
        node, word = visit.node, visit.word
        if isinstance(node, Table) and word is not None:
            fitting = node.fitting(word)
            if fitting is not None:
                text, whole = fitting
                prefix = text.rstrip("/") if met_only else text  # of whole segments, or as it is written
                yield f"path is {text}" if whole else f"path {word} begins with {prefix}"
            elif not met_only:
                yield f"path {word} begins with none of {', '.join(prefix for prefix, _ in node.prefixes)}"
        elif isinstance(node, Test):
            met = visit.to == node.yes
            if met or not met_only:
                yield _verdict(str(node.subject), word, node.value, node.regex, met)
        elif isinstance(node, Split) and visit.to is not None:
            yield f"the client's {node.subject} chooses between pools"


def _verdict(what: str, word: str | None, value: str, regex: bool, met: bool) -> str:
    if word is None:
        return f"there is no {what}"
    if regex:
        return f"{what} {'matches' if met else 'does not match'} {value}"
    return f"{what} is {value}" if met else f"{what} is {word} and not {value}"


def _end(share: float, end: Leaf | Status, way: Walk, request: Request, target: Target) -> End:
    if isinstance(end, Status):
        return End(share, status=end.code)
    if end.redirect is not None:
        where = location(end, end.redirect, request, target, way.path)
        return End(share, status=end.redirect.status, changes=(f"redirected to {where}",))
    path = sent_path(end, way.path)
    changes = [f"path becomes {path}"] if path != request.path else []
    changes += [f"host becomes {end.rewrite.host}"] if end.rewrite is not None and end.rewrite.host else []
    changes += [text for change in end.header_changes for text in _header_texts(change)]
    return End(share, end.pool, changes=tuple(changes))


def _header_texts(change: HeaderChange) -> Iterator[str]:
    of = "" if change.of == "request" else "answer's "
    yield from (f"{of}header {name} becomes {value}" for name, value in change.set)
    yield from (f"{of}header {name} gets {value} too" for name, value in change.add)
    yield from (f"{of}header {name} is removed" for name in change.remove)


def _passed(site: Site, request: Request, winner: str) -> Iterator[Passed]:
    """Every other rule, by the first of its matches in the order of precedence."""
    listed = candidates(site.route.rules)
    won = next((one for one in listed if one.rule.name == winner and not unmet(one.match, request)), None)
    told = {winner}
    for candidate in listed:
        if candidate.rule.name not in told:
            told.add(candidate.rule.name)
            yield Passed(candidate.rule.name, unmet(candidate.match, request) or _later(candidate, won))


def unmet(match: Match, request: Request) -> str:
    """The first condition of a match that a request does not meet, in words; empty if it meets all."""
    if text := _unmet_path(match.path, request.path):
        return text
    if match.method and request.method != match.method:
        return _verdict("method", request.method, match.method, False, False)
    asked = [("header", one, request.header(one.name)) for one in match.headers]
    asked += [("query", one, request.parameter(one.name)) for one in match.query]
    for kind, wanted, word in asked:
        if word is None or not _equals(wanted, word):
            return _verdict(f"{kind} {wanted.name}", word, wanted.value, wanted.regex, False)
    return ""


def _unmet_path(wanted: PathMatch, path: str) -> str:
    if wanted.kind == "prefix":
        return "" if covers(wanted.value, path) else f"path {path} is not below {wanted.value}"
    met = path == wanted.value if wanted.kind == "exact" else pattern(wanted.value).search(path) is not None
    return "" if met else _verdict("path", path, wanted.value, wanted.kind == "regex", False)


def _equals(wanted: ValueMatch, word: str) -> bool:
    return pattern(wanted.value).search(word) is not None if wanted.regex else word == wanted.value


def _later(candidate: Candidate, winner: Candidate | None) -> str:
    """Why a rule that is met comes after the one that won."""
    mine, theirs = candidate.match, (winner or candidate).match
    if mine.path.kind != theirs.path.kind:
        named = {"exact": "an exact path", "prefix": "a prefix"}
        return f"{named[theirs.path.kind]} won" if RANK[theirs.path.kind] < RANK[mine.path.kind] else "it stands later"
    if mine.path.kind == "prefix" and len(mine.path.value) < len(theirs.path.value):
        return "a longer prefix won"
    if bool(mine.method) < bool(theirs.method):
        return "a rule with the method won"
    if len(mine.headers) < len(theirs.headers):
        return "a rule with more headers won"
    return "a rule with more parameters won" if len(mine.query) < len(theirs.query) else "it stands later"


def _questions(visits: tuple[Visit, ...]) -> Iterator[MapQuestion]:
    for visit in visits:
        node = visit.node
        if isinstance(node, Test) and node.regex and visit.word is not None:
            named = pattern_name(pattern(node.value), node.rewrite)
            yield MapQuestion(REGEX[named.shard], f"{named.name}|={visit.word}", node.value, visit.to == node.yes)
