"""Many services in one request, each by itself: what is wrong with one stops no other.

They are tried together, some at a time, since that costs one validation and one commit; only where that fails, one by
one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any

from aiohttp import web

from anycastlb.core.catalog.edit import ServiceTarget, grouped, read_documents
from anycastlb.core.catalog.keys import NAME
from anycastlb.core.fields import shown
from anycastlb.core.model import Edit, Problem, Tree
from anycastlb.serving.api.handlers import commit
from anycastlb.serving.api.http.bodies import body, unconditional
from anycastlb.serving.api.http.context import answer, built, context
from anycastlb.serving.api.http.errors import ApiError, InvalidDocument

TOGETHER = 32
"""Services that are tried at once."""
Results = dict[str, dict[str, Any]]
"""The result of each service, by its name."""


async def read_services(request: web.Request) -> web.Response:
    """Every service that can be read; /v1/problems has the others."""
    tree = await commit.load(context(request))
    return await built(partial(_services, tree))


def _services(tree: Tree) -> dict[str, Any]:
    documents = {name: stored.seen() for name, stored in grouped(tree).items() if stored.entry}
    return {name: seen.document for name, seen in documents.items() if not seen.problems}


async def read_gateways(request: web.Request) -> web.Response:
    return await built(partial(read_documents, await commit.load(context(request)), "gateways"))


async def read_routes(request: web.Request) -> web.Response:
    return await built(partial(read_documents, await commit.load(context(request)), "routes"))


async def put_services(request: web.Request) -> web.Response:
    unconditional(request)
    documents = await body(request, dict)
    return await _each(request, {name: _put(name, document) for name, document in documents.items()})


async def delete_services(request: web.Request) -> web.Response:
    unconditional(request)
    names = await body(request, list)
    if strange := [name for name in names if not isinstance(name, str)]:
        raise ApiError(400, "not a name", "body", f"a list of names, not {shown(strange[0])}", 'send ["web", ...]')
    return await _each(request, {name: ServiceTarget(name).delete for name in names})


def _put(name: str, document: Any) -> commit.Make:
    def make(tree: Tree) -> Sequence[Edit]:
        if not NAME.fullmatch(name):
            expected = "expected a name of letters, digits and . _ : [ ] -, at most 128 characters"
            raise InvalidDocument([Problem(name[:200], "", expected)])
        return ServiceTarget(name).put(tree, document)

    return make


async def _each(request: web.Request, makes: Mapping[str, commit.Make]) -> web.Response:
    tree: Tree | None = await commit.load(context(request))
    results = Results()
    for batch in _batches(makes):
        tree = await _together(request, tree, batch, results)
    ordered = {name: results[name] for name in makes}
    failed = any(result["status"] >= 400 for result in ordered.values())
    return answer({"results": ordered}, 207 if failed else 200)


def _batches(makes: Mapping[str, commit.Make]) -> Iterator[dict[str, commit.Make]]:
    rest = iter(makes.items())
    while batch := dict(islice(rest, TOGETHER)):
        yield batch


async def _together(
    request: web.Request, tree: Tree | None, makes: Mapping[str, commit.Make], results: Results
) -> Tree | None:
    """All of them, or else one by one. Returns the tree for the next ones; None if it must be read anew."""
    made: dict[str, Sequence[Edit]] = {}

    def make_all(before: Tree) -> list[Edit]:
        made.clear()
        made.update({name: make(before) for name, make in makes.items()})
        return [edit for edits in made.values() for edit in edits]

    try:
        validated = await commit.write(request, make_all, tree)
        results |= {name: _done(validated.before, name, edits) for name, edits in made.items()}
        return None if validated.edits else validated.before
    except ApiError as error:
        if len(makes) == 1 or error.status == 503:  # a store that is down is asked once
            results |= {name: {"status": error.status, **error.view()} for name in makes}
            return tree
    for name, make in makes.items():
        tree = await _together(request, tree, {name: make}, results)
    return tree


def _done(before: Tree, name: str, edits: Sequence[Edit]) -> dict[str, Any]:
    fresh = f"services/{name}" not in before.entries and any(edit.value is not None for edit in edits)
    return {"status": 201 if fresh else 200, "changed": bool(edits)}
