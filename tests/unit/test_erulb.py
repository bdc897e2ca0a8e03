"""ELB's admin API over real HTTP, as ELB's own client calls it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from anycastlb.adapters.sources.memory import MemorySource
from anycastlb.core.model import Inputs, Snapshot
from tests.support.http_tree import DOCUMENTS, EXAMPLE, GATEWAY, read
from tests.support.serving import Served, go, serving

DOMAIN, UPSTREAM = "/__erulb__/domain", "/__erulb__/upstream"
EDGE = {"gateways/edge": {**GATEWAY, "tls": {"certificates": ["shop"]}}}


def store(documents: dict[str, Any]) -> MemorySource:
    return MemorySource(**{key: json.dumps(document) for key, document in documents.items()})


def keys(served: Served) -> dict[str, Any]:
    return {key: json.loads(entry.value) for key, entry in served.store._entries.items()}


async def test_what_elbs_sample_does() -> None:
    """Rules first, then the upstreams that they name, then a dump."""
    rules = {
        "init": "ua",
        "rules": {
            "ua": {"type": "ua", "args": {"pattern": "test$", "succ": "b1", "fail": "path"}},
            "path": {"type": "path", "args": {"pattern": "/path1", "succ": "b2", "fail": "b1"}},
            "b1": {"type": "backend", "args": {"servername": "up1"}},
            "b2": {"type": "backend", "args": {"servername": "up2"}},
        },
    }
    async with serving(Snapshot(), store=store(EDGE)) as served:
        put = await go(served, "PUT", DOMAIN, {"test.local": rules})
        assert (put.status, put.view) == (200, {"msg": "OK"})
        servers = {"up1": {"127.0.0.1:5000": ""}, "up2": {"127.0.0.1:5001": "weight=10 max_fails=2"}}
        assert (await go(served, "PUT", UPSTREAM, servers)).view == {"msg": "OK"}
        assert (await go(served, "PUT", "/__erulb__/dump")).view == {"msg": "OK"}
        assert (await go(served, "GET", DOMAIN)).view == {"test.local": rules}
        assert (await go(served, "GET", UPSTREAM)).view["up2"] == [
            {"addr": "127.0.0.1:5001", "name": "127.0.0.1:5001", "weight": 10, "max_fails": 2, "fail_timeout": 10}
        ]
        assert keys(served)["routes/test.local"] == {"gateways": "edge", "hostnames": ["test.local"], "graph": rules}
        again = {"up1": {"127.0.0.1:6000": ""}}
        assert (await go(served, "PUT", UPSTREAM, again)).status == 200
        backends = [key for key in keys(served) if key.startswith("services/up1/backends/")]
        assert backends == ["services/up1/backends/127.0.0.1:6000"], "exactly those"
        assert (await go(served, "DELETE", UPSTREAM, ["up1", "nobody"])).view == {"up1": 422, "nobody": 404}
        assert (await go(served, "DELETE", DOMAIN, ["test.local", "nobody.local"])).view == {"msg": "OK"}
        assert (await go(served, "DELETE", UPSTREAM, ["up1", "up2"])).view == {"up1": True, "up2": True}
        assert keys(served) == EDGE


async def test_each_failure_has_its_name_and_stops_no_other() -> None:
    async with serving(Snapshot(), store=store(EDGE)) as served:
        sent = {"good": {"10.1.0.1:80": ""}, "named": {"localhost:80": ""}, "a b": {}, "list": []}
        failed = await go(served, "PUT", UPSTREAM, sent)
        assert failed.status == 400 and failed.view["msg"] == "3 failed"
        assert set(failed.view["errors"]) == {"named", "a b", "list"}
        assert "localhost:80" in failed.view["errors"]["named"]
        assert "services/good/backends/10.1.0.1:80" in keys(served)
        cycle = {"init": "a", "rules": {"a": {"type": "ua", "args": {"pattern": "x", "succ": "a", "fail": "a"}}}}
        failed = await go(served, "PUT", DOMAIN, {"x.example": cycle, "y.example": EXAMPLE, "a b": EXAMPLE})
        assert failed.status == 400 and set(failed.view["errors"]) == {"x.example", "a b"}
        assert "a -> a" in failed.view["errors"]["x.example"]
        assert list((await go(served, "GET", DOMAIN)).view) == ["y.example"]


async def test_the_gateway_of_a_new_domain() -> None:
    rules = {"x.example": EXAMPLE}
    async with serving(Snapshot()) as served:
        failed = await go(served, "PUT", DOMAIN, rules)
        assert "there is no gateway yet" in failed.view["errors"]["x.example"]
    two = {**EDGE, "gateways/web": {**EDGE["gateways/edge"], "port": 8443}}
    async with serving(Snapshot(), store=store(two)) as served:
        assert "?gateway=NAME: edge, web" in (await go(served, "PUT", DOMAIN, rules)).view["errors"]["x.example"]
        assert (await go(served, "PUT", f"{DOMAIN}?gateway=web", rules)).status == 200
        assert (await go(served, "PUT", DOMAIN, rules)).status == 200, "a known domain keeps its gateway"
        assert keys(served)["routes/x.example"]["gateways"] == "web"


async def test_what_is_not_elbs_stays() -> None:
    async with serving(Snapshot(Inputs(catalog=read(DOCUMENTS))), store=store(DOCUMENTS)) as served:
        assert (await go(served, "GET", DOMAIN)).view == {}
        assert (await go(served, "DELETE", DOMAIN, ["shop"])).status == 200
        assert "has a VIP" in (await go(served, "PUT", UPSTREAM, {"web": {}})).view["errors"]["web"]
        assert (await go(served, "DELETE", UPSTREAM, ["web"])).view == {"web": 404}
        assert keys(served) == DOCUMENTS


@pytest.mark.parametrize("path", [DOMAIN, UPSTREAM, "/__erulb__/dump"])
async def test_codes(path: str) -> None:
    async with serving(Snapshot()) as served:
        assert (await go(served, "POST", path, {})).status == 403
        if path != "/__erulb__/dump":
            for method in ("PUT", "DELETE"):
                for body in (b"", b"{", b'"x"', b"[1]"):
                    assert (await go(served, method, path, body)).status == 400, (method, body)
