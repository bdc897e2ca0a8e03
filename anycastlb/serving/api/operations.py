"""Every operation of the API in one table: the routes are registered from it, and the description is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from aiohttp import web

from anycastlb.serving.api.handlers import bulk, drain, lists, plan, read, why_url, write
from anycastlb.serving.api.http import guard
from anycastlb.serving.api.http.context import context, shared
from anycastlb.serving.api.openapi import Operation, describe, operation_routes

SERVICE = "/v1/services/{service}"
BACKEND = SERVICE + "/backends/{backend}"
GATEWAY, ROUTE = "/v1/gateways/{gateway}", "/v1/routes/{route}"
WEB = {
    "vip": "192.0.2.10",
    "port": 80,
    "check": {"type": "http", "path": "/health", "interval": "2s"},
    "backends": {"web1": {"address": "10.1.0.1"}, "web2": {"address": "10.1.0.2", "port": 8080}},
    "announce": {"min_backends": "50%"},
}
MORE = {"port": 443, "drain": None, "backends": {"web1": {"weight": 50}, "web2": None}}
ADDRESS = {"address": "10.1.0.3", "weight": 50}
POOL = {
    "port": 8080,
    "balance": "leastconn",
    "check": {"type": "http", "path": "/health"},
    "backends": {"b1": {"address": "10.1.0.1"}, "b2": {"address": "10.1.0.2", "max_fails": 3}},
}
EDGE = {"vip": "192.0.2.12", "port": 443, "protocol": "https", "tls": {"certificates": ["shop"]}}
SHOP = {
    "gateways": ["edge"],
    "hostnames": ["shop.example"],
    "rules": [
        {"matches": [{"path": {"value": "/blog"}}], "backendRefs": [{"name": "blog", "weight": 90}, {"name": "next"}]},
        {"backendRefs": [{"name": "blog"}]},
    ],
}
DEFAULTS = {"forward": "dr", "check": {"interval": "1s", "timeout": "500ms"}}
CATALOG = {"catalog": {"defaults": DEFAULTS, "services/web": WEB, "services/web/backends/web3": ADDRESS}}
WORD = {"type": "string"}
URL = {"type": "string", "examples": ["https://shop.example/blog/1"]}
METHOD = {"type": "string", "pattern": "^[A-Z]{1,20}$", "default": "GET"}
AFTER = {"type": "string", "pattern": "^[0-9]{1,18}$", "default": "0"}
MODE = {"enum": ["merge", "replace"], "default": "merge"}
WRITTEN = {200: "Written"}
MADE = {200: "Written", 201: "Written"}
IF_MATCH = ("If-Match",)
IF_ANY = ("If-Match", "If-None-Match")
PUT, PATCH = (409, 412, 422, 503), (404, 409, 412, 422, 503)
METRICS = ("text/plain", "application/openmetrics-text")


async def description(request: web.Request) -> web.Response:
    """OpenAPI 3.1."""
    return await shared(request, partial(describe, OPERATIONS, context(request).check_types))


def _document(
    path: str, schema: str, what: str, examples: Mapping[str, Any], patches: Mapping[str, Any]
) -> tuple[Operation, ...]:
    """The operations on one document that stands by itself."""
    patch = "JSON merge patch (RFC 7396): null resets"
    return (
        Operation("GET", path, write.read, f"One {what}", {200: "Stored"}, (404, 422, 503), tagged=True),
        Operation(
            "PUT",
            path,
            write.put,
            "The whole document",
            MADE,
            PUT,
            schema,
            tagged=True,
            conditions=IF_ANY,
            examples=examples,
        ),
        Operation(
            "PATCH",
            path,
            write.patch,
            patch,
            WRITTEN,
            PATCH,
            schema,
            tagged=True,
            conditions=IF_MATCH,
            examples=patches,
        ),
        Operation("DELETE", path, write.delete, f"Remove a {what}", WRITTEN, PATCH, conditions=IF_MATCH),
    )


OPERATIONS: tuple[Operation, ...] = (
    # ------------------------------------------------------------ reading
    Operation("GET", "/healthz", read.healthz, "Is the node alive?", {200: "Health", 503: "Health"}),
    Operation("GET", "/readyz", read.readyz, "Is it in sync and able to serve?", {200: "Ready", 503: "Ready"}),
    Operation("GET", "/metrics", read.metrics, "Prometheus metrics", {200: ""}, media=METRICS),
    Operation("GET", "/v1/status", read.status, "The whole node", {200: "Status"}),
    Operation("GET", "/v1/vips", lists.vips, "Every VIP", {200: "Vips"}),
    Operation("GET", "/v1/vips/{vip}", lists.vip, "One VIP", {200: "Vip"}, (404,)),
    Operation("GET", "/v1/verdicts", lists.verdicts, "May each VIP be announced, and why?", {200: "Verdicts"}),
    Operation(
        "GET",
        "/v1/checks",
        lists.checks,
        "Every check with its evidence",
        {200: "Checks"},
        query={"service": WORD, "backend": WORD},
    ),
    Operation("GET", "/v1/problems", lists.problems, "What is wrong with documents", {200: "Problems"}),
    Operation("GET", "/v1/why/{object:.+}", read.why, "From evidence to route", {200: "Why"}, (404,)),
    Operation(
        "GET",
        "/v1/why",
        why_url.why_url,
        "Which route, rule and pool a request would meet",
        {200: "Why"},
        query={"url": URL, "method": METHOD, "header": {"type": "array", "items": WORD}, "source": WORD},
    ),
    Operation("GET", "/v1/plan", read.plan, "What is about to change", {200: "Plan"}),
    Operation("GET", "/v1/events", read.events, "The journal", {200: "Events"}, query={"after": AFTER}),
    Operation("GET", "/v1/nodes", lists.nodes, "Every node, this one first", {200: "Nodes"}),
    Operation("GET", "/v1/nodes/{node}", lists.node, "One node", {200: "Node"}, (404,)),
    Operation("GET", "/v1/stats", lists.stats, "The kernel's counters and rates", {200: "Stats"}),
    Operation(
        "GET",
        "/v1/history",
        lists.history,
        "The last ten minutes of rates and check results",
        {200: "History"},
        (404,),
        query={"service": WORD},
    ),
    Operation("GET", "/v1/whoami", guard.whoami, "Who asks, and what they may", {200: "Whoami"}),
    Operation("GET", "/v1/openapi.json", description, "This description", {200: "OpenApi"}),
    # ------------------------------------------------------------ services
    Operation("GET", "/v1/services", bulk.read_services, "Every service", {200: "StoredServices"}, (503,)),
    Operation(
        "PUT",
        "/v1/services",
        bulk.put_services,
        "Set every service named, each by itself",
        {200: "Results", 207: "Results"},
        (503,),
        "Services",
        examples={"web": {"web": WEB}},
    ),
    Operation(
        "DELETE",
        "/v1/services",
        bulk.delete_services,
        "Delete every service named, each by itself",
        {200: "Results", 207: "Results"},
        (503,),
        "Names",
        examples={"web": ["web"]},
    ),
    Operation("GET", SERVICE, write.read, "One service", {200: "Stored"}, (404, 422, 503), tagged=True),
    Operation(
        "PUT",
        SERVICE,
        write.put,
        "The whole document; without backends they stay as they are",
        MADE,
        PUT,
        "Service",
        tagged=True,
        conditions=IF_ANY,
        examples={"web": WEB, "blog": POOL},
    ),
    Operation(
        "PATCH",
        SERVICE,
        write.patch,
        "JSON merge patch (RFC 7396): null resets",
        WRITTEN,
        PATCH,
        "Service",
        tagged=True,
        conditions=IF_MATCH,
        examples={"more": MORE},
    ),
    Operation("DELETE", SERVICE, write.delete, "It and its backends", WRITTEN, PATCH, conditions=IF_MATCH),
    # ------------------------------------------------------------ backends
    Operation("GET", BACKEND, write.read, "One backend", {200: "Stored"}, (404, 422, 503), tagged=True),
    Operation(
        "PUT",
        BACKEND,
        write.put,
        "The whole document, wherever it is stored; a new one gets its own key",
        MADE,
        PATCH,
        "Backend",
        tagged=True,
        conditions=IF_ANY,
        examples={"web3": ADDRESS},
    ),
    Operation(
        "PATCH",
        BACKEND,
        write.patch,
        "JSON merge patch (RFC 7396): null resets",
        WRITTEN,
        PATCH,
        "Backend",
        tagged=True,
        conditions=IF_MATCH,
        examples={"weight": {"weight": 50}},
    ),
    Operation("DELETE", BACKEND, write.delete, "Remove a backend", WRITTEN, PATCH, conditions=IF_MATCH),
    Operation(
        "POST",
        BACKEND + "/drain",
        write.drain_backend,
        "No new flows for it",
        WRITTEN,
        PATCH,
        tagged=True,
        conditions=IF_MATCH,
    ),
    Operation(
        "POST",
        BACKEND + "/undrain",
        write.undrain_backend,
        "New flows again",
        WRITTEN,
        PATCH,
        tagged=True,
        conditions=IF_MATCH,
    ),
    # ------------------------------------------------------------ gateways and routes
    Operation("GET", "/v1/gateways", bulk.read_gateways, "Every gateway", {200: "StoredDocuments"}, (503,)),
    *_document(GATEWAY, "Gateway", "gateway", {"edge": EDGE}, {"maxconn": {"limits": {"maxconn": 5000}}}),
    Operation("GET", "/v1/routes", bulk.read_routes, "Every route", {200: "StoredDocuments"}, (503,)),
    *_document(ROUTE, "Route", "route", {"shop": SHOP}, {"hosts": {"hostnames": ["shop.example", "*.shop.example"]}}),
    # ------------------------------------------------------------ defaults and nodes
    Operation(
        "GET", "/v1/defaults", write.read, "Merged under every service", {200: "Stored"}, (422, 503), tagged=True
    ),
    Operation(
        "PUT",
        "/v1/defaults",
        write.put,
        "The whole document",
        MADE,
        PUT,
        "Service",
        tagged=True,
        conditions=IF_ANY,
        examples={"usual": DEFAULTS},
    ),
    Operation(
        "PATCH",
        "/v1/defaults",
        write.patch,
        "JSON merge patch (RFC 7396): null resets",
        WRITTEN,
        PUT,
        "Service",
        tagged=True,
        conditions=IF_MATCH,
        examples={"usual": DEFAULTS},
    ),
    Operation("DELETE", "/v1/defaults", write.delete, "No defaults", WRITTEN, PUT, conditions=IF_MATCH),
    Operation(
        "POST",
        "/v1/nodes/{node}/drain",
        drain.drain_node,
        "Take a node out of the routes, stage by stage; refused if that is one too many",
        WRITTEN,
        (404, 409, 503),
        "Drain",
        optional=True,
        examples={"reason": {"reason": "new kernel", "deadline": "5m", "force": False}},
    ),
    Operation("POST", "/v1/nodes/{node}/undrain", drain.undrain_node, "Announce again", WRITTEN, (404, 409, 503)),
    Operation("POST", "/v1/confirm", read.confirm, "Let a held catalog through", {200: "Confirmed"}, (409,)),
    # ------------------------------------------------------------ whole catalogs
    Operation("GET", "/v1/export", plan.export, "Every document by key", {200: "Export"}, (503,)),
    Operation(
        "POST",
        "/v1/import",
        plan.take,
        "Set every document named, all or nothing; replace deletes the others",
        {200: "Imported"},
        (409, 422, 503),
        "Catalog",
        query={"mode": MODE},
        examples={"web": CATALOG},
    ),
    Operation(
        "POST",
        "/v1/plan",
        plan.propose,
        "What an import of this would change on this node; nothing is written",
        {200: "Proposal"},
        (503,),
        "Catalog",
        query={"mode": MODE},
        examples={"web": CATALOG},
    ),
)


def routes() -> list[web.RouteDef]:
    return operation_routes(OPERATIONS)
