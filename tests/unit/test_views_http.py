"""What operators read of gateways, routes and pools: status, plan and why, also of one request, as golden files."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from anycastlb.cli.render import exit_code, http_tables, style, tables, why
from anycastlb.core.model import Change, Failure, Reason, Snapshot
from anycastlb.serving.views.changes import plan_view
from anycastlb.serving.views.status import status_view
from anycastlb.serving.views.status_text import StatusTexts
from anycastlb.serving.views.why import explain, near
from anycastlb.serving.views.why_url import explain_url, looked_up
from tests.support import http_scene, scene
from tests.support.golden import drawn, golden
from tests.support.http_tree import DOCUMENTS, GATEWAY, changed
from tests.support.serving import Served, go, serving

URL = "https://shop.example/blog/1"
AGENT = [("user-agent", "HTTPie/1")]


def view(snapshot: Snapshot) -> dict[str, Any]:
    return status_view(snapshot, scene.NOW, scene.SOURCE)


def explained(snapshot: Snapshot, name: str) -> str:
    found = explain(snapshot, scene.NOW, name)
    assert found is not None
    return style.plain(why.why_lines(found, 100))


def asked(snapshot: Snapshot, url: str = URL, answer: bool = True) -> dict[str, Any]:
    looked = looked_up(snapshot.inputs.catalog, url, "GET", AGENT, None)
    return explain_url(snapshot, scene.NOW, looked, {question.key: answer for question in looked.questions})


def test_status_shows_gateways_routes_and_pools() -> None:
    one_down = http_scene.snapshot({"10.1.0.2"})
    golden("status-http", drawn(one_down, 100))
    assert set(exit_code.troubles(view(one_down))) == {"blog/b2 is down"}
    golden("list-http", style.plain(tables.listed(view(one_down))))
    assert [row["backend"] for row in tables.backends(view(one_down), "blog")] == ["b1", "b2"]


def test_a_backend_that_fails_requests_is_shown_with_its_numbers() -> None:
    failing = http_scene.failing()
    golden("why-http-passive", explained(failing, "blog/b1"))
    assert "out: 3 of 9 requests failed within 5 s" in drawn(failing, 100)
    (pool,) = [one for one in view(failing)["http"]["pools"] if one["pool"] == "blog"]
    shown = pool["backends"][0]
    assert (shown["up"], shown["reason_code"], shown["server"]["state"]) == (False, "passive_failures", "maint")
    assert pool["serves"] and pool["reason"] == "1/2 backends up"
    assert set(exit_code.troubles(view(failing))) == {"blog/b1 is down"}


def test_a_haproxy_that_is_away_is_said_once() -> None:
    away = http_scene.away()
    text = drawn(away, 100)
    golden("status-http-away", text)
    assert text.count("FAILED") == 1
    troubles = set(exit_code.troubles(view(away)))
    assert {"HAProxy does not do what is wanted", "192.0.2.10 is withdrawn"} <= troubles
    plan = style.plain(why.changes(plan_view(away, scene.NOW), 100))
    golden("plan-http", re.sub(r"\b[0-9a-f]{8,16}\b", "DIGEST", plan))


def test_a_node_without_http_says_so_and_is_well() -> None:
    off = http_scene.snapshot(http=False)
    assert "1 gateway · 1 route · 2 pools · this node serves no gateways" in drawn(off, 120)
    assert list(exit_code.troubles(view(off))) == []
    assert view(scene.calm())["http"] is None


def test_what_haproxy_refuses_alone_is_said_where_it_is() -> None:
    whole = http_scene.snapshot()
    refused = Reason("haproxy_refused", "re0: HAProxy refused it: bad regex")
    actual = replace(whole.actual, http_sites={}, http_servers={}, http_certificates={})
    desired = whole.decision.desired
    failures = tuple(
        Failure(Change(table, key, None, row), refused)
        for table in ("http_sites", "http_servers", "http_certificates")
        for key, row in desired.rows(table).items()  # type: ignore[arg-type]
    )
    told = replace(whole, actual=actual, failures=failures)
    tier = view(told)["http"]
    assert tier["haproxy"]["ok"]
    assert tier["routes"][0]["refused"] == refused.text and not tier["routes"][0]["current"]
    assert tier["gateways"][0]["certificates"][0]["refused"] == refused.text
    assert tier["pools"][0]["backends"][0]["refused_code"] == "haproxy_refused"
    text = drawn(told, 200)
    assert f"certificate shop: HAProxy refused it: {refused}" in text
    assert f"HAProxy refused it: {refused}; HTTP 200 3 ms" in text
    assert {"certificate shop is not served", "blog/b1 is down"} <= set(exit_code.troubles(view(told)))


def test_the_text_of_the_picture_is_the_picture() -> None:
    texts = StatusTexts()
    for snapshot in (http_scene.snapshot({"10.1.0.1"}), http_scene.away(), http_scene.snapshot(http=False)):
        text, _ = texts.status(snapshot, scene.NOW, scene.SOURCE)
        assert json.loads(b"".join(text)) == view(snapshot)


@pytest.mark.parametrize("name", ["192.0.2.10", "gateways/web", "routes/shop", "blog", "blog/b2"])
def test_why(name: str) -> None:
    golden("why-http-" + name.replace("/", "-"), explained(http_scene.snapshot({"10.1.0.2"}), name))


def test_why_of_what_is_not_served() -> None:
    away = http_scene.away()
    assert explained(away, "gateways/web").startswith("✗ gateways/web  1/1 routes can be served")
    assert "✗ haproxy  HAProxy  HAProxy is not running" in explained(away, "routes/shop")
    off = http_scene.snapshot(http=False)
    assert explained(off, "blog").startswith("✗ blog  this node serves no gateways: node.toml has no [http]")
    assert explained(off, "blog/b1").startswith("✗ blog/b1  this node serves no gateways")
    assert explain(away, scene.NOW, "blog/nobody") is None and explain(away, scene.NOW, "routes/nobody") is None
    assert near(away, "gateways/wep")[0] == "gateways/web" and "blog/b1" in near(away, "b1")


def test_why_of_a_document_that_is_quarantined() -> None:
    whole = http_scene.snapshot()
    catalog = http_scene.read({**DOCUMENTS, "gateways/web": changed(GATEWAY, "port", to="x")}, whole.inputs.catalog)
    broken = replace(whole, inputs=replace(whole.inputs, catalog=catalog))
    assert "✗ problem  gateways/web  port: expected a whole number" in explained(broken, "gateways/web")


def test_why_of_a_request() -> None:
    golden("why-request", style.plain(why.why_lines(asked(http_scene.snapshot({"10.1.0.2"})), 100)))


def test_why_of_requests_that_end_elsewhere() -> None:
    whole = http_scene.snapshot()
    dead = asked(http_scene.snapshot({"10.1.0.1", "10.1.0.2"}))
    assert not dead["ok"] and [one["ok"] for one in dead["chain"] if one["what"] == "pool"] == [False, True]
    other = asked(whole, answer=False)
    assert not other["ok"] and other["chain"][-1]["text"] == "HAProxy itself says that it does not match"
    assert asked(whole, "https://nobody.example/")["answer"] == "answered with 404"
    assert asked(whole, "http://shop.example/")["chain"][0]["text"] == "no gateway speaks http on port 80"
    away = asked(http_scene.away())
    assert not away["ok"] and away["chain"][0]["text"].startswith("nobody announces it: HAProxy is not running")


async def test_the_api_explains_a_request_and_asks_haproxy() -> None:
    questions: list[Any] = []

    async def ask(asked: Any) -> dict[str, bool]:
        questions.extend(asked)
        return {question.key: False for question in asked}

    path = "/v1/why?url=https%3A%2F%2Fshop.example%2Fblog%2F1&header=user-agent:%20HTTPie/1"
    async with serving(http_scene.snapshot(), ask_haproxy=ask) as served:
        found = (await go(served, "GET", path)).view
        assert (found["object"], found["ok"]) == (f"GET {URL}", False)
        assert found["chain"][-1] == {
            "what": "haproxy", "ok": False, "object": "(?i)httpie",
            "text": "HAProxy itself says that it does not match", "links": [],
        }  # fmt: skip
        assert [question.pattern for question in questions] == ["(?i)httpie"]
        assert (await go(served, "GET", path.replace("HTTPie", "curl"))).view["answer"] == "goes to web"
        for query in ("", "?url=shop.example", "?url=https://a/&method=get", "?url=https://a/&header=x",
                      "?url=https://a/&source=x"):  # fmt: skip
            refused = await go(served, "GET", f"/v1/why{query}")
            assert refused.status == 400 and refused.error["what"] == "that is no request"


async def test_checks_and_plans_know_pools() -> None:
    whole = http_scene.snapshot()
    store = Served(whole).store
    for key, document in DOCUMENTS.items():
        store.put(key, json.dumps(document))
    async with serving(whole, store=store) as served:
        checks = (await go(served, "GET", "/v1/checks?service=blog")).view["checks"]
        assert [(one["backend"], one["vip"], one["up"]) for one in checks] == [("b1", "", True), ("b2", "", True)]
        more = {"services/blog/backends/b9": {"address": "10.1.0.9"}}
        plan = (await go(served, "POST", "/v1/plan", {"catalog": more})).view
        assert plan["assumed_up"] == ["blog/b9"]
        assert {change["object"].partition("/")[2] for change in plan["changes"]} == {"b9"}
        refused = await go(served, "PUT", "/v1/gateways/web", changed(GATEWAY, "tls", "certificates", to=["other"]))
        assert refused.view["problems"][0]["path"] == "tls.certificates.0"


def test_lists_of_documents_say_what_is_announced() -> None:
    text = style.plain(http_tables.gateways({"web": GATEWAY}, view(http_scene.snapshot())))
    assert text.endswith(" shop,default announced\n")
