"""GORB's REST API on its own paths, over the same documents as ``/v1``: a user of GORB changes the address and goes on.

This is a thin translation: ``core.importers.gorb`` knows GORB's documents, ``commit`` writes. The status codes and
error texts are GORB's, a success has no body, and answers are indented by tabs. Two things differ on purpose: backends
belong to their service (GORB's ids are global, and the service in the path is ignored), and a broken service is refused
before it is stored.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from functools import wraps
from ipaddress import ip_address
from typing import Any

from aiohttp import web

from anycastlb.core.catalog.edit import BackendTarget, ServiceTarget, Target, read_catalog
from anycastlb.core.catalog.keys import NAME
from anycastlb.core.importers import gorb
from anycastlb.core.model import Catalog, Service, Tree
from anycastlb.serving.api.handlers import commit
from anycastlb.serving.api.http.answers import HEADERS
from anycastlb.serving.api.http.bodies import decode
from anycastlb.serving.api.http.context import context
from anycastlb.serving.api.http.errors import ApiError, InvalidDocument, problem_views
from anycastlb.serving.views.index import Index, Seat

Handler = Callable[[web.Request], Awaitable[web.Response]]
FIXED = ("vip", "port", "protocol")
SERVICE, BACKEND = "/service/{service}", "/service/{service}/{backend}"


def routes() -> list[web.RouteDef]:
    return [
        web.get("/service", list_services),
        web.get(SERVICE, read_service),
        web.put(SERVICE, put_service),
        web.patch(SERVICE, patch_service),
        web.delete(SERVICE, delete_service),
        web.get(BACKEND, read_backend),
        web.put(BACKEND, put_backend),
        web.patch(BACKEND, patch_backend),
        web.delete(BACKEND, delete_backend),
    ]


def translated(handler: Handler) -> Handler:
    """The handler with every error in GORB's shape."""

    @wraps(handler)
    async def wrapped(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except gorb.GorbRefusal as exc:
            return _error(400, str(exc))
        except ApiError as error:
            return _error(*_gorb_answer(error))

    return wrapped


def _gorb_answer(error: ApiError) -> tuple[int, str]:
    """An error of ours as GORB's status and text."""
    if error.status == 404:
        return 404, gorb.ABSENT
    if isinstance(error, InvalidDocument):
        if any(problem.path.startswith("scheduler") for problem in error.problems):
            return 500, gorb.KERNEL  # GORB leaves it to the kernel to refuse a scheduler
        return 400, "; ".join(": ".join(filter(None, view.values())) for view in problem_views(error.problems[:5]))
    return (400 if error.status == 415 else error.status), str(error)


def _error(status: int, text: str) -> web.Response:
    return _indented({"error": text}, status)


def _indented(view: Any, status: int = 200) -> web.Response:
    text = json.dumps(view, indent="\t")
    return web.Response(text=text, status=status, content_type="application/json", headers=HEADERS)


def _done() -> web.Response:
    return web.Response(headers=HEADERS)


# ---------------------------------------------------------------- writing


@translated
async def put_service(request: web.Request) -> web.Response:
    place, options = _service(request), await _options(request)
    document = gorb.service(options, await _addresses(options))
    await _create(request, place, document)
    return _done()


@translated
async def patch_service(request: web.Request) -> web.Response:
    """sky-uk's: makes it, or changes its scheduler, flags and persistence."""
    place, options = _service(request), await _options(request)
    document = gorb.service(options, await _addresses(options))

    def make(tree: Tree) -> Any:
        seen = place.seen(tree)
        if seen is None:
            return place.put(tree, document)
        if any(_plain(seen.document.get(name)) != _plain(document[name]) for name in FIXED):
            raise gorb.GorbRefusal(gorb.FIXED.format(place.name))
        changed = {name: document.get(name) for name in ("scheduler", "scheduler_flags", "persistence")}
        return place.patch(tree, changed)

    await commit.write(request, make)
    return _done()


@translated
async def put_backend(request: web.Request) -> web.Response:
    place, options = _backend(request), await _options(request)
    service = _found(await _catalog(request), request.match_info["service"])
    family = service.vips[0].version
    await _create(request, place, gorb.backend(options, await _addresses(options, family), family))
    return _done()


@translated
async def patch_backend(request: web.Request) -> web.Response:
    place, options = _backend(request), await _options(request)
    await commit.write(request, lambda tree: place.patch(tree, gorb.weight(options)))
    return _done()


@translated
async def delete_service(request: web.Request) -> web.Response:
    return await _delete(request, _service(request))


@translated
async def delete_backend(request: web.Request) -> web.Response:
    return await _delete(request, _backend(request))


async def _delete(request: web.Request, place: Target) -> web.Response:
    await request.read()
    await commit.write(request, place.delete)
    return _done()


async def _create(request: web.Request, place: Target, document: dict[str, Any]) -> None:
    def make(tree: Tree) -> Any:
        if place.seen(tree) is not None:
            raise ApiError(409, gorb.EXISTS)
        return place.put(tree, document)

    await commit.write(request, make)


def _service(request: web.Request) -> ServiceTarget:
    return ServiceTarget(_named(request.match_info["service"]))


def _backend(request: web.Request) -> BackendTarget:
    service, backend = request.match_info["service"], request.match_info["backend"]
    return BackendTarget(_named(service), _named(backend), discovered=False)


def _named(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ApiError(404, gorb.ABSENT)
    return name


async def _options(request: web.Request) -> dict[str, Any]:
    """The body, whatever its Content-Type: GORB does not look at that."""
    try:
        options = decode(await request.read())
    except ApiError as error:
        expected = error.view()["error"]["expected"].removeprefix("expected ")
        raise ApiError(400, f"{error}: expected {expected}") from None
    if not isinstance(options, dict):
        raise ApiError(400, "the body is no JSON object")
    return options


async def _addresses(options: dict[str, Any], family: int = 4) -> dict[str, str]:
    """What the names in the options resolve to; one that does not is left out.

    Of several answers it is the first of this family, or the first of all. GORB prefers IPv4 as well.
    """
    loop = asyncio.get_running_loop()
    resolved: dict[str, str] = {}
    for name in gorb.names(options):
        try:
            async with asyncio.timeout(5):
                answers = await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            continue
        found = [str(address[0]) for *_, address in answers]
        if found:
            resolved[name] = next((address for address in found if ip_address(address).version == family), found[0])
    return resolved


def _plain(value: Any) -> str:
    """As stored by us or by hand: a list of one address is that address, a number may be text."""
    return str(value[0] if isinstance(value, list) and value else value or "tcp")


# ---------------------------------------------------------------- reading


@translated
async def list_services(request: web.Request) -> web.Response:
    return _indented(sorted(service.name for service in (await _catalog(request)).services))


@translated
async def read_service(request: web.Request) -> web.Response:
    service = _found(await _catalog(request), request.match_info["service"])
    seats = _seats(request, service)
    healths = [_health(seats.get(backend.name)) for backend in service.backends]
    view = {
        "options": gorb.service_options(service),
        "health": sum(healths) / len(healths) if healths else 1.0,
        "backends": [backend.name for backend in service.backends] or None,
    }
    return _indented(view)


@translated
async def read_backend(request: web.Request) -> web.Response:
    service = _found(await _catalog(request), request.match_info["service"])
    backend = next((b for b in service.backends if b.name == request.match_info["backend"]), None)
    if backend is None:
        raise ApiError(404, gorb.ABSENT)
    seat = _seats(request, service).get(backend.name)
    verdict = seat.verdict if seat else None
    up = bool(verdict and verdict.up)
    age = context(request).clock() - seat.state.since if seat and seat.state and up else 0.0
    checked = seat is not None and seat.state is not None and seat.state.up is not None
    weight = verdict.weight if verdict and checked else backend.weight
    metrics = {"status": 0 if up else 1, "health": _health(seat), "uptime": round(max(0.0, age))}
    return _indented({"options": gorb.backend_options(service, backend, weight), "metrics": metrics})


async def _catalog(request: web.Request) -> Catalog:
    """The catalog as it is stored now: a caller who has just written must find it."""
    at = context(request)
    tree = await commit.load(at)
    return await asyncio.to_thread(read_catalog, tree, commit.rules(at), at.snapshot().inputs.catalog)


def _found(catalog: Catalog, name: str) -> Service:
    for service in catalog.services:
        if service.name == name:
            return service
    raise ApiError(404, gorb.ABSENT)


def _seats(request: web.Request, service: Service) -> dict[str, Seat]:
    """What the node knows of each backend on the first VIP."""
    at = context(request)
    index = Index(at.snapshot(), at.clock())
    return {seat.backend.name: seat for seat in index.seats(service, service.vips[0])}


def _health(seat: Seat | None) -> float:
    """The share of good results among the last hundred; 1 where nothing was checked yet, as in GORB for no pulse."""
    if seat is None or seat.state is None or not seat.state.record[1]:
        return 1.0
    good, of = seat.state.record
    return good / of
