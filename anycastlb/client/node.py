"""``Client``: every call of the API as one method. Only this module knows the HTTP requests behind them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias, cast
from urllib.parse import quote

from anycastlb.client import stream
from anycastlb.client.errors import ClientError, Strange
from anycastlb.client.shapes import (
    BackendDocument,
    Document,
    Event,
    GatewayDocument,
    Mode,
    Proposal,
    Result,
    RouteDocument,
    ServiceDocument,
    View,
    Written,
)
from anycastlb.client.transport import SOCKET, URL_DEFAULT, Response, Transport, security, token_in

ServiceFields: TypeAlias = ServiceDocument | Mapping[str, Any]
GatewayFields: TypeAlias = GatewayDocument | Mapping[str, Any]
RouteFields: TypeAlias = RouteDocument | Mapping[str, Any]
BackendFields: TypeAlias = BackendDocument | Mapping[str, Any]
Catalog: TypeAlias = Mapping[str, Mapping[str, Any] | None]
"""Documents by key (``services/web``). ``None`` in a plan means that the document is deleted."""


class Client:
    """The API of one node, as a context: ``async with Client() as lb``.

    ``url`` is ``http://``, ``https://`` or ``unix:///path``. Without it, the client uses the default unix socket if it
    may, else the default port. ``token`` is a token, ``token_file`` the file that holds it. ``ca_file``, ``cert_file``
    and ``key_file`` are PEM files for TLS. ``timeout`` is the seconds for one request. The constructor and every method
    raise ``ClientError``.

    Writes go to the catalog, so they apply to the whole cluster. ``if_match`` takes an ETag and makes a write depend on
    it. A ``Document`` that was read with this client brings its own ETag.
    """

    def __init__(
        self,
        url: str = "",
        *,
        token: str = "",
        token_file: str | Path | None = None,
        ca_file: str | None = None,
        cert_file: str | None = None,
        key_file: str | None = None,
        timeout: float = 10.0,
    ) -> None:
        if not url:
            url = f"unix://{SOCKET}" if os.access(SOCKET, os.W_OK) else URL_DEFAULT
        secret = token_in(token_file) if token_file else token
        self._transport = Transport(url, secret, security(ca_file, cert_file, key_file), timeout)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._transport.close()

    @property
    def place(self) -> str:
        """The address and port of the node, or the path of its socket."""
        return self._transport.place

    # ------------------------------------------------------------ state

    async def status(self) -> View:
        """The whole node."""
        return await self._view("/v1/status")

    async def nodes(self) -> list[View]:
        """The status that every node of the cluster published, the asked node first."""
        return await self._list("/v1/nodes", "nodes")

    async def node(self, name: str) -> View:
        return await self._view(_path("nodes", name))

    async def vips(self) -> list[View]:
        return await self._list("/v1/vips", "vips")

    async def verdicts(self) -> list[View]:
        return await self._list("/v1/verdicts", "verdicts")

    async def checks(self, service: str = "", backend: str = "") -> list[View]:
        """The evidence of every check, or of those of a service or backend."""
        query = {name: value for name, value in (("service", service), ("backend", backend)) if value}
        return await self._list("/v1/checks", "checks", query)

    async def problems(self) -> list[View]:
        return await self._list("/v1/problems", "problems")

    async def stats(self) -> View:
        """The kernel's counters and rates."""
        return await self._view("/v1/stats")

    async def why(self, name: str) -> View:
        """Why a VIP, SERVICE or SERVICE/BACKEND is as it is, from its check results to its route."""
        return await self._view(_path("why", name))

    async def why_request(
        self, url: str, method: str = "GET", headers: Iterable[tuple[str, str]] = (), source: str = ""
    ) -> View:
        """Which route, rule and pool a request for the URL would meet. ``source``: the address of the client."""
        query = [("url", url), ("method", method), *(("header", f"{name}: {value}") for name, value in headers)]
        return _object(await self._transport.ask("GET", "/v1/why", [*query, *([("source", source)] if source else [])]))

    async def whoami(self) -> View:
        return await self._view("/v1/whoami")

    async def events(
        self, *, after: int = 0, follow: bool = False, lost: Callable[[Exception], None] | None = None
    ) -> AsyncIterator[Event]:
        """The events above the id ``after``, oldest first; with ``follow`` for ever, also over restarts of the node.

        ``lost`` is called with every failure to reach the node while following. Without it, the first one is raised.
        """
        if follow:
            async for event in stream.follow(self._transport, after, lost):
                yield event
            return
        for event in (await stream.once(self._transport, after))[0]:
            yield event

    # ------------------------------------------------------------ services

    async def services(self) -> dict[str, View]:
        """Every service document by name, with its backends."""
        return await self._view("/v1/services")

    async def service(self, name: str) -> Document:
        return await self._document(_path("services", name))

    async def put_service(
        self, name: str, document: ServiceFields, *, create: bool = False, if_match: str = ""
    ) -> Written:
        """Set a service. Without ``backends`` it keeps those it has. ``create``: ``Conflict`` if it exists."""
        return await self._put(_path("services", name), document, create, if_match)

    async def patch_service(self, name: str, fields: ServiceFields, *, if_match: str = "") -> Written:
        """Set some fields. None resets a field to its default, and removes a backend."""
        return await self._write("PATCH", _path("services", name), fields, if_match)

    async def delete_service(self, name: str, *, if_match: str = "") -> Written:
        """Remove a service with its backends."""
        return await self._write("DELETE", _path("services", name), None, if_match)

    async def put_services(self, documents: Mapping[str, ServiceFields]) -> dict[str, Result]:
        """Set many services, each by itself. The answer has the result of each."""
        return _results(await self._transport.ask("PUT", "/v1/services", body=dict(documents)))

    async def delete_services(self, names: Iterable[str]) -> dict[str, Result]:
        return _results(await self._transport.ask("DELETE", "/v1/services", body=list(names)))

    # ------------------------------------------------------------ backends

    async def backend(self, service: str, backend: str) -> Document:
        return await self._document(_path("services", service, "backends", backend))

    async def put_backend(
        self, service: str, backend: str, document: BackendFields, *, create: bool = False, if_match: str = ""
    ) -> Written:
        return await self._put(_path("services", service, "backends", backend), document, create, if_match)

    async def patch_backend(self, service: str, backend: str, fields: BackendFields, *, if_match: str = "") -> Written:
        return await self._write("PATCH", _path("services", service, "backends", backend), fields, if_match)

    async def delete_backend(self, service: str, backend: str, *, if_match: str = "") -> Written:
        return await self._write("DELETE", _path("services", service, "backends", backend), None, if_match)

    async def drain_backend(self, service: str, backend: str) -> Written:
        """Give the backend no new flows. It is removed when its connections have ended."""
        return await self._write("POST", _path("services", service, "backends", backend, "drain"), None, "")

    async def undrain_backend(self, service: str, backend: str) -> Written:
        return await self._write("POST", _path("services", service, "backends", backend, "undrain"), None, "")

    # ------------------------------------------------------------ gateways and routes

    async def gateways(self) -> dict[str, View]:
        """Every gateway document by name."""
        return await self._view("/v1/gateways")

    async def gateway(self, name: str) -> Document:
        return await self._document(_path("gateways", name))

    async def put_gateway(
        self, name: str, document: GatewayFields, *, create: bool = False, if_match: str = ""
    ) -> Written:
        """Set a gateway. ``create``: ``Conflict`` if it exists."""
        return await self._put(_path("gateways", name), document, create, if_match)

    async def patch_gateway(self, name: str, fields: GatewayFields, *, if_match: str = "") -> Written:
        """Set some fields. None resets a field to its default."""
        return await self._write("PATCH", _path("gateways", name), fields, if_match)

    async def delete_gateway(self, name: str, *, if_match: str = "") -> Written:
        return await self._write("DELETE", _path("gateways", name), None, if_match)

    async def routes(self) -> dict[str, View]:
        """Every route document by name."""
        return await self._view("/v1/routes")

    async def route(self, name: str) -> Document:
        return await self._document(_path("routes", name))

    async def put_route(self, name: str, document: RouteFields, *, create: bool = False, if_match: str = "") -> Written:
        """Set a route. ``create``: ``Conflict`` if it exists."""
        return await self._put(_path("routes", name), document, create, if_match)

    async def patch_route(self, name: str, fields: RouteFields, *, if_match: str = "") -> Written:
        """Set some fields. None resets a field to its default."""
        return await self._write("PATCH", _path("routes", name), fields, if_match)

    async def delete_route(self, name: str, *, if_match: str = "") -> Written:
        return await self._write("DELETE", _path("routes", name), None, if_match)

    # ------------------------------------------------------------ the rest of the catalog

    async def defaults(self) -> Document:
        """The defaults that are merged under every service document."""
        return await self._document("/v1/defaults")

    async def put_defaults(self, document: ServiceFields, *, if_match: str = "") -> Written:
        return await self._put("/v1/defaults", document, False, if_match)

    async def patch_defaults(self, fields: ServiceFields, *, if_match: str = "") -> Written:
        return await self._write("PATCH", "/v1/defaults", fields, if_match)

    async def delete_defaults(self, *, if_match: str = "") -> Written:
        return await self._write("DELETE", "/v1/defaults", None, if_match)

    async def drain_node(self, node: str, reason: str = "", *, deadline: str = "", force: bool = False) -> View:
        """Drain a node: it leaves the routes stage by stage, and still serves what arrives.

        Raises ``Conflict`` if that would be one drain too many, unless forced. ``deadline`` is a duration after the
        withdrawal.
        """
        fields: dict[str, Any] = {"reason": reason, "deadline": deadline, "force": force}
        body = {name: value for name, value in fields.items() if value} or None
        return _object(await self._transport.ask("POST", _path("nodes", node, "drain"), body=body))

    async def undrain_node(self, node: str) -> View:
        return _object(await self._transport.ask("POST", _path("nodes", node, "undrain")))

    async def confirm(self) -> View:
        """Accept a held catalog. Raises ``Conflict`` if none is held."""
        return _object(await self._transport.ask("POST", "/v1/confirm"))

    async def export(self) -> dict[str, View]:
        """Every document as stored, by key."""
        catalog = (await self._view("/v1/export")).get("catalog")
        if not isinstance(catalog, dict):
            raise Strange(f"{self.place} does not answer as anycastlb does: check --api")
        return catalog

    async def plan(self, proposed: Catalog | None = None, mode: Mode = "merge") -> View | Proposal:
        """What is about to change, or what ``proposed`` would change. Nothing is written."""
        if proposed is None:
            return await self._view("/v1/plan")
        body = {"catalog": dict(proposed)}
        return cast(Proposal, _object(await self._transport.ask("POST", "/v1/plan", {"mode": mode}, body)))

    async def import_(self, catalog: Catalog, mode: Mode = "merge") -> Proposal:
        """Write all these documents, or none. ``replace`` deletes every other document."""
        body = {"catalog": dict(catalog)}
        return cast(Proposal, _object(await self._transport.ask("POST", "/v1/import", {"mode": mode}, body)))

    # ------------------------------------------------------------ requests

    async def _view(self, path: str) -> View:
        return _object(await self._transport.ask("GET", path))

    async def _list(self, path: str, name: str, query: Mapping[str, str] | None = None) -> list[View]:
        items = _object(await self._transport.ask("GET", path, query or {})).get(name)
        if not isinstance(items, list):
            raise Strange(f"{self.place} does not answer as anycastlb does: check --api")
        return items

    async def _document(self, path: str) -> Document:
        answer = await self._transport.ask("GET", path)
        return Document(_object(answer), answer.etag)

    async def _put(self, path: str, document: Mapping[str, Any], create: bool, if_match: str) -> Written:
        etag = if_match or (document.etag if isinstance(document, Document) else "")
        return await self._write("PUT", path, document, etag, {"If-None-Match": "*"} if create else {})

    async def _write(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        etag: str,
        headers: Mapping[str, str] | None = None,
    ) -> Written:
        head = {**(headers or {}), **({"If-Match": etag} if etag else {})}
        answer = await self._transport.ask(method, path, body=None if body is None else dict(body), headers=head)
        view = _object(answer)
        return {
            "changed": bool(view.get("changed")),
            "document": Document(view.get("document") or {}, answer.etag),
        }


def _path(*parts: str) -> str:
    """``/v1/services/web``, with each part as one segment. Raises ``ClientError``."""
    if not all(parts) or any(part in (".", "..") for part in parts):
        raise ClientError(f"{'/'.join(parts)!r} names nothing: expected a name that is not empty")
    return "/v1/" + "/".join(quote(part, safe=":[]") for part in parts)


def _object(answer: Response) -> View:
    if not isinstance(answer.body, dict):
        raise Strange(f"the node answered {answer.status} without an object: is it anycastlb? check --api")
    return answer.body


def _results(answer: Response) -> dict[str, Result]:
    return cast(dict[str, Result], _object(answer).get("results", {}))
