"""What an operation of the API is, and the OpenAPI 3.1 description of all of them.

Pure but for the handlers it carries. Documents are described by the types that parse them on this very node.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from aiohttp import web

from anycastlb import __version__
from anycastlb.core.catalog.check import CheckTypes
from anycastlb.serving.api import schemas
from anycastlb.serving.api.schemas import Schema, ref

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ERRORS = {
    400: "What was sent is no JSON, or not of the right shape",
    401: "No credentials, or unknown ones",
    403: "Not with these rights",
    404: "No such object",
    409: "A lost race: somebody else changed it meanwhile, read it again; or nothing to confirm",
    412: "If-Match or If-None-Match does not hold",
    413: "The body is too large",
    415: "The body is not said to be JSON",
    422: "A document with problems; nothing was written",
    429: "Too many requests",
    503: "The catalog's store did not answer",
}
ALWAYS = (400, 401, 403, 429)
"""Answers that any request may meet: of the parser and of the guard."""
MEANINGS = {
    "service": "The service's name",
    "backend": "The backend's name",
    "gateway": "The gateway's name",
    "route": "The route's name",
    "node": "The node's name",
    "vip": "The address",
    "object": "VIP, SERVICE or SERVICE/BACKEND",
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One method on one path."""

    method: str
    path: str
    """As aiohttp takes it: ``/v1/why/{object:.+}``."""
    handler: Handler
    summary: str
    answers: Mapping[int, str]
    """Status -> the name of the answer's schema."""
    errors: tuple[int, ...] = ()
    """Beside ``ALWAYS``."""
    body: str = ""
    """The name of the body's schema; empty = no body."""
    optional: bool = False
    """The body may be left out."""
    query: Mapping[str, Schema] = field(default_factory=dict)
    tagged: bool = False
    """It answers a document with its ``ETag``."""
    conditions: tuple[str, ...] = ()
    """The conditional headers it heeds."""
    examples: Mapping[str, Any] = field(default_factory=dict)
    media: tuple[str, ...] = ("application/json",)
    """Content types of the answer."""

    @property
    def place(self) -> str:
        """The path as OpenAPI has it."""
        return re.sub(r":[^{}]*\}", "}", self.path)


def operation_routes(operations: Iterable[Operation]) -> list[web.RouteDef]:
    added = []
    for one in operations:
        add = web.get if one.method == "GET" else partial(web.route, one.method)  # get answers HEAD too
        added.append(add(one.path, one.handler))
    return added


def describe(operations: Iterable[Operation], check_types: CheckTypes) -> dict[str, Any]:
    """The whole description. ``check_types``: those of this node."""
    paths: dict[str, dict[str, Any]] = {}
    for one in operations:
        paths.setdefault(one.place, {})[one.method.lower()] = _operation(one)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "anycastlb",
            "version": __version__,
            "description": "Every node serves the same API; a write on any node is the cluster's.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas.components(check_types),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def _operation(one: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": one.handler.__name__ if one.handler.__name__ not in SHARED else _named(one),
        "summary": one.summary,
        "parameters": _parameters(one),
        "responses": _responses(one),
    }
    if one.body:
        media: dict[str, Any] = {"schema": ref(one.body)}
        if one.examples:
            media["examples"] = {name: {"value": value} for name, value in one.examples.items()}
        described["requestBody"] = {"required": not one.optional, "content": {"application/json": media}}
    return described


SHARED = frozenset({"read", "put", "patch", "delete"})
"""Handlers of more than one path."""


def _named(one: Operation) -> str:
    """``put_backend``."""
    last = re.findall(r"\{(\w+)\}$", one.place) or [one.place.rsplit("/", 1)[1]]
    return f"{one.handler.__name__}_{last[0]}"


def _parameters(one: Operation) -> list[dict[str, Any]]:
    names = re.findall(r"\{(\w+)\}", one.place)
    inside = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": MEANINGS[name],
            "schema": {"type": "string", "minLength": 1},
        }
        for name in names
    ]
    asked = [{"name": name, "in": "query", "schema": schema} for name, schema in one.query.items()]
    heeded = [{"name": name, "in": "header", "schema": {"type": "string"}} for name in one.conditions]
    return [*inside, *asked, *heeded]


def _responses(one: Operation) -> dict[str, Any]:
    headers = {"ETag": {"description": "A hash of what is stored", "schema": {"type": "string"}}}
    responses: dict[str, Any] = {}
    for status, name in one.answers.items():
        schema = ref(name) if name else {"type": "string"}
        responses[str(status)] = {
            "description": one.summary if status < 400 else ERRORS[status],
            "content": {media: {"schema": schema} for media in one.media},
            **({"headers": headers} if one.tagged and status < 300 else {}),
        }
    body = (413, 415) if one.body else (413,) if one.method != "GET" else ()
    for status in sorted({*ALWAYS, *one.errors, *body} - set(one.answers)):
        content = {"application/json": {"schema": ref("Error")}}
        responses[str(status)] = {"description": ERRORS[status], "content": content}
    return responses
