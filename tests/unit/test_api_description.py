"""The description of the API is true: every route is in it, and a listening node answers as it says.

schemathesis makes the requests: well-formed and malformed ones, from the description and its examples. By default to
an API over the catalog in memory; ``ANYCASTLB_TEST_API`` names a running node instead, for fewer of them. Of requests
that differ only in one value of one field the first is made; ``ANYCASTLB_TEST_DEEP=1`` makes every one.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from aiohttp import web
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation.meta import CoveragePhaseData
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from anycastlb.adapters.checks import TYPES, parameters
from anycastlb.serving.api.openapi import describe
from anycastlb.serving.api.operations import OPERATIONS
from anycastlb.settings import parse
from tests.support import scene
from tests.support.serving import Served
from tests.support.waiting import PATIENCE, eventually

pytest_plugins = ("schemathesis.pytest.plugin",)
DESCRIPTION = describe(OPERATIONS, parameters(TYPES))


def malformed_is_refused(context: Any, response: Any, case: schemathesis.Case) -> bool | None:
    """One that is too large or whose condition fails is refused for that; where each document has a result of its
    own, or problems are the answer, they are told there. A patch may remove any field, also one that never was."""
    if case.method == "PATCH" and isinstance(case.body, dict) and None in case.body.values():
        return None
    if response.status_code in (207, 412, 413) or (case.path == "/v1/plan" and response.json().get("problems")):
        return None
    return negative_data_rejection(context, response, case)


def nothing_breaks(context: Any, response: Any, case: schemathesis.Case) -> bool | None:
    """``/readyz`` of a node in trouble is 503."""
    return (
        None if (case.path, response.status_code) == ("/readyz", 503) else not_a_server_error(context, response, case)
    )


CHECKS = [
    nothing_breaks,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    malformed_is_refused,
    unsupported_method,
]
ANYWHERE = '[node]\nvip_ranges = ["0.0.0.0/2", "128.0.0.0/1", "::/0"]\nfwmark_ranges = ["1-65535"]'
RUNNING = os.environ.get("ANYCASTLB_TEST_API", "")
DEEP = bool(os.environ.get("ANYCASTLB_TEST_DEEP"))
"""Send every request that schemathesis can think of: some 14,000, which takes minutes."""
SAME_DOCUMENTS = (
    "PATCH /v1/defaults",
    "PATCH /v1/services/{service}",
    "PUT /v1/services",
    "POST /v1/import",
    "POST /v1/plan",
)
"""Their bodies are made of the documents that ``PUT /v1/services/{service}`` takes: those are covered field by field
there, and by examples and chance here."""
CONFIGURATION = {
    "operations": [{"include-name": list(SAME_DOCUMENTS), "phases": {"coverage": {"enabled": DEEP}}}],
}
FEW = {name: TYPES[name] for name in (("none", "http") if DEEP else ("none", "tcp"))}
"""Generating from the schemas of all check types takes minutes."""
schema = schemathesis.openapi.from_dict(
    describe(OPERATIONS, parameters(FEW)), config=schemathesis.Config.from_dict(CONFIGURATION)
)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Where an API listens: in a thread of its own, unless there is one."""
    if RUNNING:
        yield RUNNING
        return
    served, stop = Served(scene.trouble(), settings=parse(ANYWHERE), held=True), threading.Event()
    served.store.put("services/web", '{"vip": "192.0.2.10", "port": 80, "backends": {"web1": {"address": "10.1.0.1"}}}')
    served.store.put("services/web/backends/web2", '{"address": "10.1.0.2"}')
    served.store.put("services/broken", "{")

    async def run() -> None:
        api = served.api()
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(api.run())
            await eventually(lambda: api.address is not None)
            assert api.address is not None
            served.port = api.address[1]
            while not stop.is_set():
                await asyncio.sleep(0.05)
            running.cancel()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    while not served.port:
        stop.wait(0.01)
    yield served.url
    stop.set()
    thread.join()


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    """One connection for all requests."""
    with requests.Session() as opened:
        yield opened


@pytest.fixture(scope="module")
def sent() -> set[tuple[str, ...]]:
    """The kinds of requests that were made already."""
    return set()


@schema.parametrize()
@settings(
    max_examples=20 if DEEP else 3 if RUNNING else 5,
    derandomize=True,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_a_node_answers_as_it_says(
    case: schemathesis.Case, url: str, session: requests.Session, sent: set[tuple[str, ...]]
) -> None:
    if isinstance(found := case.meta and case.meta.phase.data, CoveragePhaseData):
        kind = _kind(case, found)
        if not DEEP and kind in sent:
            return
        sent.add(kind)
        if found.parameter_location is ParameterLocation.BODY and not RUNNING:
            case.headers.pop("If-Match", None)  # a condition that fails would hide what the node says to the body
            case.headers.pop("If-None-Match", None)
    case.validate_response(case.call(base_url=url, session=session, timeout=PATIENCE), checks=CHECKS)


def _kind(case: schemathesis.Case, found: CoveragePhaseData) -> tuple[str, ...]:
    """What tells one request of the coverage phase from the others: what is good or bad about it, and in which field
    of the document."""
    field = re.search(r"'(\w+)'|^(\w+)(?= ->|:)", found.description)
    assert case.meta is not None
    return (case.operation.label, case.meta.generation.mode.value, found.scenario.value, field[0] if field else "")


def test_every_route_is_described_and_nothing_else() -> None:
    """But GORB's paths, which it describes itself, and the files of the page."""
    app = Served(scene.calm()).api().application()
    routes = {
        (route.method, resource.canonical)
        for resource in app.router.resources()
        for route in resource
        if route.method != "HEAD" and isinstance(resource, (web.PlainResource, web.DynamicResource))
    }
    described = {(method.upper(), path) for path, item in DESCRIPTION["paths"].items() for method in item}
    ours = {path for path in routes if path[1] != "/" and not path[1].startswith(("/web/", "/service", "/__erulb__/"))}
    assert {(method, path.removesuffix(":.+}")) for method, path in ours} == described


def test_every_operation_has_a_name_of_its_own() -> None:
    names = [operation["operationId"] for item in DESCRIPTION["paths"].values() for operation in item.values()]
    assert len(set(names)) == len(names)


def test_every_reference_leads_somewhere() -> None:
    from json import dumps
    from re import findall

    found = set(findall(r'"#/components/schemas/([^"]+)"', dumps(DESCRIPTION)))
    assert found <= DESCRIPTION["components"]["schemas"].keys()
    assert found >= {f"Check_{name}" for name in TYPES}
