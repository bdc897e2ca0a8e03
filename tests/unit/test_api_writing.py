"""Writing through the API over real HTTP, into the catalog in memory: every row of the tables in docs/API.md."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest

from anycastlb.adapters.sources.memory import MemorySource
from anycastlb.core.catalog.parse import parse_catalog
from anycastlb.core.model import Catalog, ConsulInstances, DriverError, Edit, Instance, Snapshot, Tree
from anycastlb.serving.api.operations import OPERATIONS
from tests.support import hostile, scene
from tests.support.serving import Served, go, serving

WEB = {"vip": "192.0.2.10", "port": 80, "backends": {"web1": {"address": "10.1.0.1"}}}
DNS = {"vip": "192.0.2.11", "port": 53, "protocol": "udp", "backends": {"d1": {"address": "10.2.0.1"}}}


def keys(served: Served) -> dict[str, Any]:
    return {key: json.loads(entry.value) for key, entry in served.store._entries.items()}


def store(**documents: Any) -> MemorySource:
    return MemorySource(**{key.replace("__", "/"): json.dumps(document) for key, document in documents.items()})


def told(served: Served) -> list[tuple[str, str, str]]:
    events = [record.event for record in served.journal.records() if record.event.kind == "write"]
    return [(event.subject, event.before, event.after) for event in events]


async def test_a_service_from_beginning_to_end() -> None:
    path = "/v1/services/web"
    async with serving(Snapshot()) as served:
        assert (await go(served, "GET", path)).status == 404
        made = await go(served, "PUT", path, WEB)
        assert (made.status, made.view) == (201, {"changed": True, "document": WEB})
        again = await go(served, "PUT", path, WEB)
        assert (again.status, again.view["changed"], again.tag) == (200, False, made.tag)
        patched = await go(served, "PATCH", path, {"scheduler": "wrr", "backends": {"web1": {"weight": 7}}})
        assert patched.status == 200 and patched.tag != made.tag
        seen = await go(served, "GET", path)
        assert seen.view == patched.view["document"] == keys(served)["services/web"]
        assert seen.tag == patched.tag
        assert seen.view["backends"] == {"web1": {"address": "10.1.0.1", "weight": 7}}
        reset = await go(served, "PATCH", path, {"scheduler": None, "backends": {"web1": {"weight": None}}})
        assert reset.view["document"] == WEB
        assert (await go(served, "GET", "/v1/services")).view == {"web": WEB}
        gone = await go(served, "DELETE", path)
        assert (gone.status, gone.view) == (200, {"changed": True, "document": None})
        assert keys(served) == {}
        assert (await go(served, "DELETE", path)).status == 404
    assert [subject for subject, _, _ in told(served)] == ["services/web"] * 4
    assert json.loads(told(served)[0][2]) == WEB and told(served)[-1][2] == ""
    reasons = [record.event.reason for record in served.journal.records() if record.event.kind == "write"]
    assert reasons[0] == "PUT /v1/services/web"


async def test_backends_wherever_they_are_stored() -> None:
    base = "/v1/services/web/backends/"
    async with serving(Snapshot(), store=store(services__web=WEB)) as served:
        made = await go(served, "PUT", base + "web2", {"address": "10.1.0.2"})
        assert made.status == 201
        assert keys(served)["services/web/backends/web2"] == {"address": "10.1.0.2"}
        assert (await go(served, "PATCH", base + "web1", {"weight": 3})).status == 200
        assert keys(served)["services/web"]["backends"]["web1"]["weight"] == 3
        assert (await go(served, "GET", base + "web2")).view == {"address": "10.1.0.2"}
        drained = await go(served, "POST", base + "web2/drain")
        assert drained.view == {"changed": True, "document": {"address": "10.1.0.2", "drain": True}}
        assert (await go(served, "POST", base + "web2/drain")).view["changed"] is False
        back = await go(served, "POST", base + "web2/undrain")
        assert (back.view["document"], back.tag) == ({"address": "10.1.0.2"}, made.tag)
        assert (await go(served, "DELETE", base + "web2")).status == 200
        assert (await go(served, "DELETE", base + "web1")).status == 200
        assert keys(served) == {"services/web": {**WEB, "backends": {}}}
        for method, path, document in (
            ("GET", "web9", None), ("PATCH", "web9", {}), ("DELETE", "web9", None), ("POST", "web9/drain", None),
        ):  # fmt: skip
            assert (await go(served, method, base + path, document)).status == 404
        assert (await go(served, "PUT", "/v1/services/no/backends/b", {"address": "10.0.0.1"})).status == 404


async def test_a_discovered_backend_is_told_apart() -> None:
    wanted, instance = ConsulInstances("web"), Instance("i1", scene.WEB.backends[0].address)
    calm = scene.calm()
    catalog = replace(calm.inputs.catalog, discovers={wanted: ("web",)}, instances={wanted: (instance,)})
    snapshot = replace(calm, inputs=replace(calm.inputs, catalog=catalog))
    document = {"vip": "192.0.2.10", "port": 80, "backends_from": {"consul": {"service": "web"}}}
    async with serving(snapshot, store=store(services__web=document)) as served:
        for method in ("GET", "DELETE"):
            answer = await go(served, method, "/v1/services/web/backends/i1")
            assert answer.status == 404 and "discovered" in answer.error["what"]
        assert (await go(served, "POST", "/v1/services/web/backends/i1/drain")).status == 200
        assert keys(served)["services/web/backends/i1"] == {"drain": True}


async def test_defaults() -> None:
    async with serving(Snapshot(), store=store(services__web=WEB)) as served:
        assert (await go(served, "GET", "/v1/defaults")).view == {}
        assert (await go(served, "PUT", "/v1/defaults", {"forward": "dr"})).status == 201
        patched = await go(served, "PATCH", "/v1/defaults", {"check": {"interval": "1s"}})
        assert (await go(served, "GET", "/v1/defaults")).view == patched.view["document"]
        refused = await go(served, "PATCH", "/v1/defaults", {"prot": 1})
        assert refused.status == 422
        assert {problem["key"] for problem in refused.view["problems"]} == {"services/web", "defaults"}
        assert (await go(served, "DELETE", "/v1/defaults")).view == {"changed": True, "document": None}
        assert (await go(served, "DELETE", "/v1/defaults")).view["changed"] is False


async def test_conditions() -> None:
    path = "/v1/services/web"
    async with serving(Snapshot()) as served:
        assert (await go(served, "PUT", path, WEB, If_Match='"x"')).status == 412
        made = await go(served, "PUT", path, WEB, If_None_Match="*")
        assert made.status == 201 and made.tag
        there = await go(served, "PUT", path, WEB, If_None_Match="*")
        assert there.status == 412 and "If-None-Match" in there.error["what"]
        for wrong in ('"other"', f"W/{made.tag}", "nonsense"):
            assert (await go(served, "PATCH", path, {"port": 81}, If_Match=wrong)).status == 412
            assert (await go(served, "DELETE", path, If_Match=wrong)).status == 412
        assert (await go(served, "PATCH", path, {"port": 81}, If_Match=f'"a", {made.tag}')).status == 200
        assert (await go(served, "PATCH", path, {"port": 82}, If_Match=made.tag)).status == 412
        assert keys(served)["services/web"]["port"] == 81
        assert (await go(served, "DELETE", path, If_Match="*")).status == 200
        assert (await go(served, "PUT", "/v1/services", {}, If_Match="*")).status == 400


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", {}, 400),
        (b"", {"Content-Type": "application/json"}, 400),
        (b"\xff\xfe", {}, 400),
        (b'{"port": 1, "port": 2}', {}, 400),
        (b'{"port": NaN}', {}, 400),
        (b'{"port": 1e999}', {}, 400),
        (b'{"vip": "\\ud800"}', {}, 400),
        (b"[" * 20_000, {}, 400),
        (b'{"check":' * 100 + b"1" + b"}" * 100, {}, 400),
        (b"[]", {}, 400),
        (b'"text"', {}, 400),
        (b"{}", {"Content-Type": "text/plain"}, 415),
        (b"{}", {"Content-Type": "application/json; charset=latin-1"}, 415),
        (b"{}", {}, 422),
        (b'{"vip": "10.0.0.1", "port": 80}', {}, 422),
        (b'{"vip": "192.0.2.1", "port": ' + b"9" * 4000 + b"}", {}, 400),
    ],
)
async def test_bad_bodies_write_nothing(body: bytes, headers: dict[str, str], status: int) -> None:
    async with serving(Snapshot()) as served:
        answer = await go(served, "PUT", "/v1/services/web", body, **headers)
        assert answer.status == status and answer.error
        assert bool(answer.view.get("problems")) == (status == 422)
        assert keys(served) == {} and told(served) == []


@pytest.mark.parametrize("name", ["a%2Fb", "web%2Fbackends%2Fx", "%20", "a" * 200, "-", "%00", "..%2Fdefaults"])
async def test_names_that_nothing_can_have(name: str) -> None:
    async with serving(Snapshot(), store=store(services__web=WEB)) as served:
        for method, document in (("GET", None), ("PUT", WEB), ("PATCH", {}), ("DELETE", None)):
            assert (await go(served, method, f"/v1/services/{name}", document)).status in (404, 422)
        assert (await go(served, "POST", f"/v1/nodes/{name}/drain")).status == 404
        assert keys(served) == {"services/web": WEB}


async def test_many_services_each_by_itself() -> None:
    async with serving(Snapshot(), store=store(services__web=WEB)) as served:
        bad = {**DNS, "port": "many"}
        answer = await go(served, "PUT", "/v1/services", {"web": WEB, "dns": DNS, "bad": bad, "5": 5, "a b": WEB})
        assert answer.status == 207
        results = answer.view["results"]
        assert {name: result["status"] for name, result in results.items()} == {
            "web": 200, "dns": 201, "bad": 422, "5": 422, "a b": 422,
        }  # fmt: skip
        assert (results["web"]["changed"], results["dns"]["changed"]) == (False, True)
        assert results["bad"]["problems"][0]["path"] == "port" and results["bad"]["error"]["mend"]
        assert (await go(served, "PUT", "/v1/services", {"dns": DNS})).status == 200
        gone = await go(served, "DELETE", "/v1/services", ["dns", "nope", "dns"])
        assert (gone.status, gone.view["results"]["dns"]) == (207, {"status": 200, "changed": True})
        assert gone.view["results"]["nope"]["status"] == 404
        assert (await go(served, "DELETE", "/v1/services", [1])).status == 400
        assert keys(served) == {"services/web": WEB}


async def test_a_thousand_services_at_once() -> None:
    many = {f"s{n}": {**WEB, "vip": f"192.0.2.{n % 200 + 1}", "port": n + 1} for n in range(300)}
    many["s7"]["port"] = 0
    async with serving(Snapshot()) as served:
        answer = await go(served, "PUT", "/v1/services", many)
        statuses = [result["status"] for result in answer.view["results"].values()]
        assert (answer.status, statuses.count(201), statuses.count(422), len(keys(served))) == (207, 299, 1, 299)


async def test_a_document_that_no_store_takes_is_too_large() -> None:
    async with serving(Snapshot()) as served:
        backends = {f"b{n}": {"address": f"10.1.0.{n}", "check": {"send": "x" * 60_000}} for n in range(1, 7)}
        refused = await go(served, "PUT", "/v1/services/web", {**WEB, "backends": backends})
        assert refused.status == 413 and "keys of their own" in refused.error["mend"]
        assert keys(served) == {}


@pytest.mark.parametrize("name", ["980 levels", "half a surrogate", "one number", "one field twice", "too large"])
async def test_a_hostile_document_can_be_read_replaced_and_deleted(name: str) -> None:
    path, key = "/v1/services/web/backends/b", "services/web/backends/b"
    for last in ("PUT", "DELETE"):
        stored = store(services__web=WEB, services__dns=DNS)
        stored.put(key, hostile.JSON[name])
        async with serving(Snapshot(), store=stored) as served:
            assert (await go(served, "GET", path)).status == 422
            assert (await go(served, "GET", "/v1/services")).status == 200
            assert (await go(served, "GET", "/v1/export")).status == 200
            assert (await go(served, "PATCH", "/v1/services/dns", {"port": 54})).status == 200
            assert (await go(served, last, path, {"address": "10.1.0.2"} if last == "PUT" else None)).status == 200
            assert (key in served.store._entries) == (last == "PUT")


async def test_nodes_are_drained() -> None:
    async with serving(Snapshot(), store=store(services__web=WEB)) as served:
        first = (await go(served, "POST", "/v1/nodes/lb1/drain", {})).view
        assert first["changed"] and set(first["document"]) == {"by", "since"}
        why = await go(served, "POST", "/v1/nodes/lb1/drain", {"reason": "new kernel"})
        assert why.view["document"]["since"] == first["document"]["since"], "it is the same drain"
        assert why.view["document"]["reason"] == "new kernel" and "127.0.0.1" in why.view["document"]["by"]
        assert (await go(served, "POST", "/v1/nodes/lb1/drain", {})).view["changed"] is False
        assert keys(served)["drain/lb1"]["reason"] == "new kernel"
        assert "drain/lb1" not in (await go(served, "GET", "/v1/export")).view["catalog"]
        assert (await go(served, "POST", "/v1/nodes/lb1/undrain")).view == {"changed": True, "document": None}
        assert (await go(served, "POST", "/v1/nodes/lb1/undrain")).view["changed"] is False
        assert (await go(served, "POST", "/v1/nodes/lb1/drain", {"why": "x"})).status == 400
        for deadline in ("2d", "86401s", "1" * 20_000):
            refused = await go(served, "POST", "/v1/nodes/lb1/drain", {"deadline": deadline})
            assert refused.status == 400 and refused.error["where"] == "deadline"
        assert (await go(served, "POST", "/v1/nodes/lb1/drain", {"deadline": "1d"})).status == 200


class Racing(MemorySource):
    """Somebody else writes the same key between what a request reads and what it writes."""

    async def commit(self, edits: Sequence[Edit], judged: Tree | None = None) -> None:
        if any(edit.key == "services/web" for edit in edits):
            self.put("services/web", json.dumps({**WEB, "port": 8000 + self._index}))
        await super().commit(edits, judged)


async def test_a_lost_race_is_told_and_nothing_is_lost() -> None:
    racing = Racing()
    racing.put("services/web", json.dumps(WEB))
    async with serving(Snapshot(), store=racing) as served:
        for method, path, document in (
            ("PUT", "/v1/services/web", {**WEB, "port": 81}),
            ("PATCH", "/v1/services/web", {"port": 81}),
            ("DELETE", "/v1/services/web", None),
            ("POST", "/v1/import", {"catalog": {"services/web": {**WEB, "port": 81}}}),
        ):
            lost = await go(served, method, path, document)
            assert lost.status == 409 and "read it again" in lost.error["mend"]
        bulk = await go(served, "PUT", "/v1/services", {"web": WEB, "dns": DNS})
        assert {name: result["status"] for name, result in bulk.view["results"].items()} == {"web": 409, "dns": 201}
        assert keys(served)["services/web"]["port"] >= 8000
    assert [subject for subject, _, _ in told(served)] == ["services/dns"]


async def test_a_store_that_is_down() -> None:
    async with serving(Snapshot(), store=store(services__web=WEB)) as served:
        served.store.fail("no leader")
        for method, path, document in (
            ("GET", "/v1/services", None), ("GET", "/v1/services/web", None), ("PUT", "/v1/services/web", WEB),
            ("DELETE", "/v1/services/web", None), ("PUT", "/v1/services", {"web": WEB}), ("GET", "/v1/export", None),
            ("POST", "/v1/import", {"catalog": {}}), ("POST", "/v1/plan", {"catalog": {}}),
            ("POST", "/v1/nodes/lb1/drain", None), ("GET", "/v1/defaults", None),
        ):  # fmt: skip
            down = await go(served, method, path, document)
            assert down.status == 503 and "no leader" in down.error["what"] and "nothing" in down.error["mend"]
        assert told(served) == []


async def test_a_broken_document_can_be_mended() -> None:
    broken = MemorySource(**{"services/web": "{", "services/dns": json.dumps({**DNS, "port": "x"})})
    async with serving(Snapshot(), store=broken) as served:
        unread = await go(served, "GET", "/v1/services/web")
        assert unread.status == 422 and "PUT it whole" in unread.error["mend"]
        assert (await go(served, "PATCH", "/v1/services/web", {"port": 1})).status == 422
        assert list((await go(served, "GET", "/v1/services")).view) == ["dns"]
        assert [problem["key"] for problem in (await go(served, "GET", "/v1/export")).view["problems"]] == [
            "services/web"
        ]
        assert (await go(served, "PUT", "/v1/services/web", WEB)).status == 200
        assert (await go(served, "PATCH", "/v1/services/dns", {"port": 53})).status == 200


async def test_export_and_import() -> None:
    async with serving(
        Snapshot(), store=store(services__web=WEB, services__web__backends__w2={"address": "10.1.0.2"})
    ) as one:
        dump = (await go(one, "GET", "/v1/export")).view
        assert dump["problems"] == [] and set(dump["catalog"]) == {"services/web", "services/web/backends/w2"}
        body = {"catalog": dump["catalog"]}
        assert (await go(one, "POST", "/v1/import?mode=replace", body)).view["changed"] is False
        async with serving(Snapshot(), store=store(services__dns=DNS, drain__lb1={})) as other:
            merged = await go(other, "POST", "/v1/import", body)
            assert merged.status == 200 and [edit["verb"] for edit in merged.view["edits"]] == ["create", "create"]
            replaced = await go(other, "POST", "/v1/import?mode=replace", body)
            assert [(e["key"], e["verb"], e["after"]) for e in replaced.view["edits"]] == [
                ("services/dns", "delete", None)
            ]
            assert keys(other) == {**keys(one), "drain/lb1": {}}
            refused = await go(other, "POST", "/v1/import", {"catalog": {"services/a": WEB, "drain/x": {}}})
            assert refused.status == 422 and refused.view["problems"][0]["key"] == "drain/x"
            assert (await go(other, "POST", "/v1/import", {"catalog": {"services/new": WEB}})).status == 422
            assert (await go(other, "POST", "/v1/import?mode=both", body)).status == 400
            assert (await go(other, "POST", "/v1/import", dump)).status == 400, "only the catalog is taken"
            assert keys(other) == {**keys(one), "drain/lb1": {}}


def shop() -> MemorySource:
    return store(services__shop=scene.SHOP)


async def counted() -> dict[Any, Any]:
    actual = scene.subtle().actual
    return {key: SimpleNamespace(active=3, inactive=4) for key in actual.destinations}


async def test_a_plan_says_what_this_node_would_do_and_how_many_flows_would_move() -> None:
    patch = {"backends": {**scene.SHOP["backends"], "s1": {"address": "10.4.0.1", "drain": True}}}
    document = {**scene.SHOP, **patch}
    new = {"vip": "192.0.2.30", "port": 80, "backends": {"n1": {"address": "10.5.0.1"}}}
    async with serving(scene.subtle(), store=shop(), statistics=counted) as served:
        body = {"catalog": {"services/shop": document, "services/new": new}}
        plan = await go(served, "POST", "/v1/plan", body)
        assert plan.status == 200 and plan.view["problems"] == []
        assert [(edit["key"], edit["verb"]) for edit in plan.view["edits"]] == [
            ("services/shop", "update"),
            ("services/new", "create"),
        ]
        changes = {change["object"]: change for change in plan.view["changes"]}
        taken = changes["destination tcp 192.0.2.20:80 -> 10.4.0.1:80"]
        assert (taken["flows"], bool(taken["why"])) == (7, True)
        assert changes["destination tcp 192.0.2.30:80 -> 10.5.0.1:80"]["flows"] is None
        assert changes["route 192.0.2.30"]["verb"] == "create"
        assert plan.view["assumed_up"] == ["new/n1"]
        assert [(move["service"], 0 < move["share"] <= 1) for move in plan.view["moves"]] == [("shop", True)]
        gone = await go(served, "POST", "/v1/plan", {"catalog": {"services/shop": None}})
        route = next(change for change in gone.view["changes"] if change["object"] == "route 192.0.2.20")
        lost = sum(key.service.address == scene.SHOP4 for key in scene.subtle().actual.destinations)
        assert (route["verb"], route["flows"], gone.view["edits"][0]["after"]) == ("delete", 7 * lost, None)
        assert "confirm" in gone.view["held"]
        bad = await go(served, "POST", "/v1/plan", {"catalog": {"services/shop": {**document, "prot": 1}}})
        assert (bad.status, bad.view["changes"], bad.view["problems"][0]["path"]) == (200, [], "prot")
        assert keys(served) == {"services/shop": scene.SHOP} and told(served) == []


async def test_a_plan_without_the_kernels_counters() -> None:
    async def silent() -> dict[Any, Any]:
        raise DriverError("no netlink")

    async with serving(scene.subtle(), store=shop(), statistics=silent) as served:
        plan = await go(served, "POST", "/v1/plan?mode=replace", {"catalog": {}})
        assert plan.view["changes"] and all(change["flows"] is None for change in plan.view["changes"])


@pytest.mark.parametrize("path", ["/v1/vips", "/v1/verdicts", "/v1/checks", "/v1/problems"])
async def test_lists_before_the_first_cycle(path: str) -> None:
    async with serving(Snapshot()) as served:
        answer = await go(served, "GET", path)
    assert (answer.status, answer.view) == (200, {path.rsplit("/", 1)[1]: []})


async def test_parts_of_the_picture() -> None:
    async with serving(scene.trouble()) as served:
        status = (await go(served, "GET", "/v1/status")).view
        assert (await go(served, "GET", "/v1/vips")).view["vips"] == status["vips"]
        assert (await go(served, "GET", "/v1/vips/192.0.2.10")).view == status["vips"][0]
        assert (await go(served, "GET", "/v1/vips/2001:DB8:ffff::10")).view["vip"] == "2001:db8:ffff::10"
        for nothing in ("192.0.2.99", "web", "x" * 500):
            assert (await go(served, "GET", f"/v1/vips/{nothing}")).status == 404
        verdicts = (await go(served, "GET", "/v1/verdicts")).view["verdicts"]
        dns = next(verdict for verdict in verdicts if verdict["vip"] == "192.0.2.11")
        assert (dns["open"], dns["reason"], dns["since_seconds"]) == (False, "1/4 backends up, needs 2", 12)
        assert dns["services"][0]["needed"] == 2
        assert (await go(served, "GET", "/v1/problems")).view["problems"] == status["problems"]


async def test_checks_with_their_evidence() -> None:
    async with serving(scene.subtle()) as served:
        every = (await go(served, "GET", "/v1/checks")).view["checks"]
        assert [check["backend"] for check in every] == [*scene.SHOP["backends"]]
        (one,) = (await go(served, "GET", "/v1/checks?service=shop&backend=s1")).view["checks"]
        assert one["up"] is True and one["results"][0]["detail"] == "HTTP 200"
        assert [failure["detail"] for failure in one["failures"]] == ["HTTP 503"], "it outlived the successes"
        assert (await go(served, "GET", "/v1/checks?service=no")).view == {"checks": []}


async def test_writers_at_once_lose_nothing() -> None:
    async with serving(Snapshot(), store=store(services__web=WEB)) as served:
        names = [f"w{n}" for n in range(4)]
        base = "/v1/services/web/backends/"
        found = await asyncio.gather(
            *(go(served, "PUT", base + name, {"address": f"10.1.1.{n}"}) for n, name in enumerate(names))
        )
        assert {answer.status for answer in found} == {201}
        assert len((await go(served, "GET", "/v1/services/web")).view["backends"]) == 5


@pytest.mark.parametrize(
    ("check", "path"),
    [
        ({"type": "http", "port": {}}, "check.port"),
        ({"type": "http", "expct": 200}, "check.expct"),
        ({"type": "smoke"}, "check.type"),
        ({"interval": "often"}, "check.interval"),
    ],
)
async def test_a_bad_check_in_the_defaults_is_refused_though_no_service_has_it(check: Any, path: str) -> None:
    async with serving(Snapshot()) as served:
        refused = await go(served, "PUT", "/v1/defaults", {"check": check})
        assert (refused.status, refused.view["problems"][0]["path"]) == (422, path)
        for fine in ({"path": "/health"}, {"type": "http", "path": "/health"}, {"interval": "1s"}):
            assert (await go(served, "PUT", "/v1/defaults", {"check": fine})).status in (200, 201)


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[Tree]:
    """The trees that were parsed to validate a write."""
    seen: list[Tree] = []

    def recorded(tree: Tree, *given: Any, **named: Any) -> Catalog:
        seen.append(tree)
        return parse_catalog(tree, *given, **named)

    monkeypatch.setattr(import_module("anycastlb.core.catalog.edit.validate"), "parse_catalog", recorded)
    return seen


@pytest.mark.parametrize(
    ("method", "path", "document"),
    [
        ("PATCH", "/v1/services/web", {"scheduler": "wrr"}),
        ("PUT", "/v1/services/web", {**WEB, "port": 81}),
        ("PUT", "/v1/services/web/backends/web2", {"address": "10.1.0.2"}),
        ("PUT", "/v1/defaults", {"scheduler": "wrr"}),
        ("DELETE", "/v1/services/web", None),
        ("PUT", "/v1/services", {"web": {**WEB, "port": 81}, "dns": DNS}),
        ("DELETE", "/v1/services", ["web"]),
        ("POST", "/v1/plan", {"catalog": {"services/dns": DNS}}),
        ("POST", "/v1/import?mode=replace", {"catalog": {"services/dns": DNS}}),
        ("PUT", "/v1/services/web", {**WEB, "prot": 1}),
    ],
)
async def test_a_write_parses_the_catalog_once(parsed: list[Tree], method: str, path: str, document: Any) -> None:
    async with serving(Snapshot(), store=store(services__web=WEB)) as served:
        answer = await go(served, method, path, document)
        assert answer.status in (200, 201, 422)
        assert len(parsed) == 1


async def test_a_drain_parses_no_catalog_and_an_old_problem_costs_one_parse_more(parsed: list[Tree]) -> None:
    async with serving(Snapshot(), store=store(services__web=WEB, services__dns={**DNS, "prot": 1})) as served:
        assert (await go(served, "POST", "/v1/nodes/lb1/drain", {})).status == 200
        assert not parsed
        assert (await go(served, "PATCH", "/v1/services/web", {"scheduler": "wrr"})).status == 200
        assert len(parsed) == 2


async def test_no_condition_is_passed_over_and_nothing_is_written_under_one_that_does_not_hold() -> None:
    names = {"service": "web", "backend": "web1", "node": "lb1", "gateway": "edge", "route": "shop"}
    documents = store(services__web=WEB, defaults={"forward": "dr"}, drain__lb1={}, drain__lb2={})
    async with serving(Snapshot(), store=documents) as served:
        served.held, before, tried = True, keys(served), 0
        for operation in OPERATIONS:
            if operation.method == "GET" or operation.path == "/v1/plan":
                continue  # they write nothing
            path = operation.path.format(**names)
            sent = next(iter(operation.examples.values()), None)
            answered = await go(served, operation.method, path, sent, If_Match='"0"')
            assert answered.status in (400, 404, 412), (operation.method, path, answered)
            tried += 1
        assert tried > 20 and keys(served) == before and served.held


async def test_a_drain_of_a_backend_has_no_deadline_and_says_so() -> None:
    async with serving(Snapshot(), store=store(services__web=WEB)) as served:
        for verb in ("drain", "undrain"):
            answered = await go(served, "POST", f"/v1/services/web/backends/web1/{verb}", {"deadline": "5m"})
            assert (answered.status, answered.view["error"]["where"]) == (400, "body")
        assert keys(served)["services/web"] == WEB
        assert (await go(served, "POST", "/v1/nodes/lb1/undrain", {"force": True})).status == 400
        assert (await go(served, "POST", "/v1/services/web/backends/web1/drain", {})).status == 200
