"""Gateways, routes and pools through the API over real HTTP: written, read, refused, imported and exported."""

from __future__ import annotations

import json
from typing import Any

from anycastlb.adapters.sources.memory import MemorySource
from anycastlb.client import Client, Conflict
from anycastlb.core.importers.elb import convert
from anycastlb.core.model import Inputs, Snapshot
from tests.support.bad_http import BAD
from tests.support.elb_dump import DUMP
from tests.support.http_tree import DOCUMENTS, GATEWAY, POOL, ROUTE, read
from tests.support.serving import Served, go, serving

NODE_KNOWS = {"an unknown certificate"}
"""Which certificates there are is a matter of each node."""


def store(documents: dict[str, Any] = DOCUMENTS) -> MemorySource:
    return MemorySource(**{key: json.dumps(document) for key, document in documents.items()})


def keys(served: Served) -> dict[str, Any]:
    return {key: json.loads(entry.value) for key, entry in served.store._entries.items()}


async def test_a_gateway_and_a_route_from_beginning_to_end() -> None:
    pools = {key: document for key, document in DOCUMENTS.items() if key.startswith("services/")}
    async with serving(Snapshot(), store=store(pools)) as served:
        for kind, name, document in (("gateways", "web", GATEWAY), ("routes", "shop", ROUTE)):
            path = f"/v1/{kind}/{name}"
            assert (await go(served, "GET", path)).status == 404
            made = await go(served, "PUT", path, document, If_None_Match="*")
            assert (made.status, made.view) == (201, {"changed": True, "document": document})
            assert (await go(served, "PUT", path, document, If_None_Match="*")).status == 412
            again = await go(served, "PUT", path, document)
            assert (again.status, again.view["changed"], again.tag) == (200, False, made.tag)
            assert (await go(served, "GET", f"/v1/{kind}")).view == {name: document}
            seen = await go(served, "GET", path)
            assert (seen.view, seen.tag) == (document, made.tag)
        patched = await go(served, "PATCH", "/v1/gateways/web", {"limits": {"maxconn": 5}, "spread": None})
        assert patched.view["document"]["limits"] == {**GATEWAY["limits"], "maxconn": 5}
        assert "spread" not in keys(served)["gateways/web"]
        assert (await go(served, "PATCH", "/v1/gateways/web", {"drain": "1m"}, If_Match='"x"')).status == 412
        refused = await go(served, "DELETE", "/v1/gateways/web")
        assert refused.status == 422, "a route is still on it"
        assert [problem["key"] for problem in refused.view["problems"]] == ["routes/shop"]
        for path in ("/v1/routes/shop", "/v1/gateways/web"):
            assert (await go(served, "DELETE", path)).view == {"changed": True, "document": None}
            assert (await go(served, "DELETE", path)).status == 404
        assert keys(served) == pools
    subjects = [record.event.subject for record in served.journal.records() if record.event.kind == "write"]
    assert subjects == ["gateways/web", "routes/shop", "gateways/web", "routes/shop", "gateways/web"]


async def test_a_pool_is_a_service_without_a_vip() -> None:
    async with serving(Snapshot()) as served:
        assert (await go(served, "PUT", "/v1/services/blog", POOL)).status == 201
        backend = {"address": "10.1.0.9", "max_fails": 2}
        assert (await go(served, "PUT", "/v1/services/blog/backends/b9", backend)).status == 201
        assert (await go(served, "POST", "/v1/services/blog/backends/b1/drain")).status == 200
        assert list((await go(served, "GET", "/v1/services/blog")).view["backends"]) == ["b1", "b2", "b9"]
        refused = await go(served, "PATCH", "/v1/services/blog", {"scheduler": "rr"})
        assert (
            refused.status == 422 and "no scheduler in a service without vip" in refused.view["problems"][0]["expected"]
        )


async def test_names_that_nothing_can_have() -> None:
    async with serving(Snapshot()) as served:
        for path in ("/v1/gateways/-", "/v1/routes/a%20b"):
            assert (await go(served, "PUT", path, {})).status == 422
            assert (await go(served, "GET", path)).status == 404
        assert (await go(served, "PUT", "/v1/gateways/web", [])).status == 400


async def test_every_bad_document_is_refused_with_its_problem_and_nothing_is_written() -> None:
    async with serving(Snapshot(Inputs(catalog=read(DOCUMENTS))), store=store()) as served:
        for key, name, document in BAD:
            if name in NODE_KNOWS:
                continue
            answer = await go(served, "PUT", f"/v1/{key}", document)
            assert answer.status == (400 if isinstance(document, (bytes, list)) else 422), f"{key} {name}"
            if answer.status == 422:
                assert {problem["key"] for problem in answer.view["problems"]} == {key}, f"{key} {name}"
        assert keys(served) == DOCUMENTS


async def test_export_and_import_keep_every_document() -> None:
    elb, _ = convert(DUMP, "web")
    whole = {**DOCUMENTS, **elb}
    async with serving(Snapshot()) as served:
        assert (await go(served, "POST", "/v1/import", {"catalog": whole})).status == 200
        exported = (await go(served, "GET", "/v1/export")).view
        assert exported["problems"] == [] and exported["catalog"] == whole == keys(served)
        again = await go(served, "POST", "/v1/import?mode=replace", {"catalog": exported["catalog"]})
        assert (again.view["changed"], again.view["edits"]) == (False, [])
    async with serving(Snapshot()) as fresh:
        assert (await go(fresh, "POST", "/v1/import", {"catalog": exported["catalog"]})).status == 200
        assert keys(fresh) == keys(served)


async def test_the_client_writes_and_reads_them() -> None:
    async with serving(Snapshot(), store=store()) as served, Client(served.url) as lb:
        assert (await lb.gateways(), await lb.routes()) == ({"web": GATEWAY}, {"shop": ROUTE})
        route = await lb.route("shop")
        await lb.patch_gateway("web", {"drain": "1m"})
        await lb.patch_route("shop", {"critical": True})
        try:
            await lb.put_route("shop", route)
        except Conflict as exc:
            assert exc.status == 412
        else:
            raise AssertionError("a newer route was overwritten")
        await lb.put_gateway("more", {**GATEWAY, "port": 8443}, create=True)
        assert (await lb.gateway("more"))["port"] == 8443
        await lb.delete_route("shop")
        await lb.delete_gateway("more")
        assert set(keys(served)) == DOCUMENTS.keys() - {"routes/shop"}
