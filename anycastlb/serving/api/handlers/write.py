"""The documents of the catalog over HTTP: one service, backend, gateway or route, or the defaults, at a time.

The answer is what is stored, read for this very request. Nothing is decided here: ``core.catalog.edit`` says what a
write means, and whether it may be made.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from anycastlb.core.catalog.edit import (
    BackendTarget,
    DefaultsTarget,
    DocumentTarget,
    KnownDocument,
    ServiceTarget,
    Target,
)
from anycastlb.core.catalog.keys import NAME
from anycastlb.core.model import Edit, Problem, Tree
from anycastlb.serving.api.handlers import commit
from anycastlb.serving.api.http.bodies import body, condition, nothing
from anycastlb.serving.api.http.context import built, context
from anycastlb.serving.api.http.errors import ApiError, InvalidDocument

NAMES = "a name of letters, digits and . _ : [ ] -, at most 128 characters"


# ---------------------------------------------------------------- one document


async def read(request: web.Request) -> web.Response:
    """The document as stored, with its tag."""
    place = _place(request)
    seen = (await asyncio.to_thread(place.seen, await commit.load(context(request)))) or _absent(place)
    if seen.problems:
        raise InvalidDocument(seen.problems, "what is stored cannot be read: PUT it whole, or DELETE it")
    return await built(lambda: seen.document, headers={"ETag": seen.tag})


async def put(request: web.Request) -> web.Response:
    place, document = _place(request), await body(request, dict)
    return await _write(request, place, lambda tree: place.put(tree, document))


async def patch(request: web.Request) -> web.Response:
    place, change = _place(request), await body(request, dict)
    return await _write(request, place, lambda tree: place.patch(tree, change))


async def delete(request: web.Request) -> web.Response:
    await request.read()
    place = _place(request)
    return await _write(request, place, place.delete)


async def drain_backend(request: web.Request) -> web.Response:
    await nothing(request)
    place = _place(request)
    return await _write(request, place, lambda tree: place.patch(tree, {"drain": True}))


async def undrain_backend(request: web.Request) -> web.Response:
    await nothing(request)
    place = _place(request)
    return await _write(request, place, lambda tree: place.patch(tree, {"drain": None}))


async def _write(request: web.Request, place: Target, make: commit.Make) -> web.Response:
    """One write to one place; 201 if a PUT made something new."""
    fresh: list[bool] = []

    def under_condition(tree: Tree) -> tuple[Edit, ...]:
        seen = place.seen(tree)
        if seen is None and request.method != "PUT":
            return tuple(make(tree))  # a missing object is a better answer than a failed condition
        condition(request, seen.tag if _exists(place, tree, seen) and seen else None)
        fresh.append(request.method == "PUT" and not _exists(place, tree, seen))
        return tuple(make(tree))

    validated = await commit.write(request, under_condition)
    changed, left = bool(validated.edits), None
    if request.method != "DELETE":
        left = await asyncio.to_thread(place.seen, validated.after)
    view = {"changed": changed, "document": left.document if left else None}
    return await built(
        lambda: view, 201 if changed and fresh[-1:] == [True] else 200, {"ETag": left.tag} if left else {}
    )


def _exists(place: Target, tree: Tree, seen: KnownDocument | None) -> bool:
    return "defaults" in tree.entries if isinstance(place, DefaultsTarget) else seen is not None


def _place(request: web.Request) -> Target:
    """What the path names. Raises ``ApiError``."""
    given = request.match_info
    for name in given.values():
        if not NAME.fullmatch(name):
            raise _unnameable(request, name)
    if "gateway" in given:
        return DocumentTarget("gateways", given["gateway"])
    if "route" in given:
        return DocumentTarget("routes", given["route"])
    service, backend = given.get("service"), given.get("backend")
    if service is None:
        return DefaultsTarget()
    if backend is None:
        return ServiceTarget(service)
    return BackendTarget(service, backend, _discovered(request, service, backend))


def _unnameable(request: web.Request, name: str) -> ApiError:
    """422 for what would make it, else 404: nothing has such a name."""
    if request.method == "PUT":
        return InvalidDocument([Problem(name[:200], "", f"expected {NAMES}")])
    return ApiError(404, "nothing can have that name", name[:200], NAMES, "check the path")


def _absent(place: Target) -> KnownDocument:
    raise commit.missing(place.missing())


def _discovered(request: web.Request, service: str, backend: str) -> bool:
    catalog = context(request).snapshot().inputs.catalog
    return any(
        instance.name == backend
        for wanted, names in catalog.discovers.items()
        if service in names
        for instance in catalog.instances.get(wanted, ())
    )
