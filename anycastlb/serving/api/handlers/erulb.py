"""ELB's admin API on its own paths, over the same documents as ``/v1``: a user of ELB changes the address and goes on.

A thin translation: ``core.importers.erulb`` knows ELB's words, ``commit`` writes. Answers and codes are ELB's, with two
exceptions: each upstream or domain that could not be written is named, with 400, where ELB said OK; and ``dump`` does
nothing, since all that was written is in the catalog already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

from aiohttp import web

from anycastlb.core.catalog.edit import read_catalog, stored
from anycastlb.core.catalog.keys import NAME
from anycastlb.core.importers import erulb
from anycastlb.core.model import Edit, Tree
from anycastlb.serving.api.handlers import commit
from anycastlb.serving.api.http.bodies import decode
from anycastlb.serving.api.http.context import answer, context
from anycastlb.serving.api.http.errors import ApiError, InvalidDocument

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.Response]]
FOLDER = "/__erulb__"
OK: Mapping[str, Any] = {"msg": "OK"}


def routes() -> list[web.RouteDef]:
    handlers = {
        ("GET", "domain"): read_domains, ("PUT", "domain"): put_domains, ("DELETE", "domain"): delete_domains,
        ("GET", "upstream"): read_upstreams, ("PUT", "upstream"): put_upstreams,
        ("DELETE", "upstream"): delete_upstreams, ("PUT", "dump"): dump,
    }  # fmt: skip
    known = [web.route(method, f"{FOLDER}/{name}", handler) for (method, name), handler in handlers.items()]
    return [*known, *(web.route("*", f"{FOLDER}/{name}", forbidden) for name in ("domain", "upstream", "dump"))]


async def forbidden(request: web.Request) -> web.Response:
    """Every other method."""
    return web.Response(status=403)


async def read_domains(request: web.Request) -> web.Response:
    tree = await commit.load(context(request))
    return answer(await asyncio.to_thread(erulb.domains, tree))


async def put_domains(request: web.Request) -> web.Response:
    gateway = request.query.get("gateway", "")
    makes = {
        domain: partial(erulb.domain_edits, domain=domain, graph=graph, gateway=gateway)
        for domain, graph in (await _body(request, dict)).items()
    }
    return _said(await _each(request, makes))


async def delete_domains(request: web.Request) -> web.Response:
    makes = {name: partial(erulb.domain_deletion, domain=name) for name in await _names(request)}
    return _said(await _each(request, makes))


async def read_upstreams(request: web.Request) -> web.Response:
    at = context(request)
    tree = await commit.load(at)
    catalog = await asyncio.to_thread(read_catalog, tree, commit.rules(at), at.snapshot().inputs.catalog)
    return answer(erulb.upstreams(catalog))


async def put_upstreams(request: web.Request) -> web.Response:
    def make(tree: Tree, name: str, servers: Any) -> Sequence[Edit]:
        return erulb.upstream_edits(tree, name, servers, stored(tree, name) if NAME.fullmatch(name) else None)

    sent = await _body(request, dict)
    return _said(await _each(request, {name: partial(make, name=name, servers=one) for name, one in sent.items()}))


async def delete_upstreams(request: web.Request) -> web.Response:
    """Of each name, ``true`` or a status."""

    def make(tree: Tree, name: str) -> Sequence[Edit]:
        known = stored(tree, name) if NAME.fullmatch(name) else None
        if known is None or (known.own or {}).get("vip"):
            raise ApiError(404, "there is no such upstream", name, "an upstream", "GET shows every one")
        return erulb.upstream_deletion(tree, known)

    names = await _names(request)
    failed = await _each(request, {name: partial(make, name=name) for name in names})
    return answer({name: failed[name].status if name in failed else True for name in names})


async def dump(request: web.Request) -> web.Response:
    await request.read()
    return answer(OK)


async def _each(request: web.Request, makes: Mapping[str, commit.Make]) -> dict[str, ApiError]:
    """Write each by itself; those that could not be."""
    failed: dict[str, ApiError] = {}
    for name, make in makes.items():
        try:
            await commit.write(request, make)
        except erulb.ErulbRefusal as exc:
            failed[name] = ApiError(400, str(exc))
        except ApiError as error:
            failed[name] = error
    return failed


def _said(failed: Mapping[str, ApiError]) -> web.Response:
    if not failed:
        return answer(OK)
    return answer({"msg": f"{len(failed)} failed", "errors": {name: _text(each) for name, each in failed.items()}}, 400)


def _text(error: ApiError) -> str:
    """In one line."""
    problems = error.problems if isinstance(error, InvalidDocument) else ()
    return "; ".join([str(problem) for problem in problems]) or str(error)


async def _names(request: web.Request) -> list[str]:
    names = await _body(request, list)
    if not all(isinstance(name, str) for name in names):
        raise ApiError(400, "not a name", "body", "a list of names", 'send ["NAME", ...]')
    return list(dict.fromkeys(names))


async def _body(request: web.Request, kind: type) -> Any:
    """Raises ``ApiError`` 400, also for an empty one."""
    value = await asyncio.to_thread(decode, await request.read())
    if not isinstance(value, kind):
        raise ApiError(400, "the body has not the right shape", "body", "what ELB takes", "see docs/migration/elb.md")
    return value
