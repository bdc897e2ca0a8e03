"""Consul's list of instances: what is chosen, under which names, and what is no such list."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from anycastlb.adapters.discovery import DiscoveryAnswer
from anycastlb.adapters.discovery.consul import ConsulConnections, ConsulDiscovery, chosen
from anycastlb.core.model import ConsulInstances, SourceError
from anycastlb.settings import ConsulSettings
from tests.support.consul_server import Request, Server, answer, listening
from tests.support.waiting import PATIENCE, begun, eventually

WANTED = ConsulInstances("web")


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with listening() as server:
        yield server


def item(number: int, *statuses: str, id: str = "", node: str = "n1", **service: Any) -> dict[str, Any]:
    named = {"ID": id or f"web{number}", "Service": "web", "Address": f"10.1.0.{number}", "Port": 8080}
    more = {"Tags": None, "Weights": {"Passing": 1, "Warning": 1}, "CreateIndex": number}
    checks = [{"CheckID": f"c{place}", "Status": status} for place, status in enumerate(statuses or ("passing",))]
    return {"Node": {"Node": node, "Address": "10.9.9.9"}, "Service": named | more | service, "Checks": checks}


def names(answer: DiscoveryAnswer) -> list[str]:
    return [instance.name for instance in answer.instances]


class TestChosen:
    def test_oldest_first(self) -> None:
        answer = chosen(WANTED, [item(3, CreateIndex=9), item(1, CreateIndex=30), item(2, CreateIndex=20)], 7)
        assert names(answer) == ["web3", "web2", "web1"] and answer.index == 7
        assert not answer.unfit and not answer.problems

    @pytest.mark.parametrize(
        ("statuses", "passing", "any_health"),
        [
            ((), [1], [5]),
            (("passing", "passing"), [1], [5]),
            (("passing", "warning"), [], [2]),
            (("warning", "critical"), [], [2]),
            (("critical",), [], [2]),
            (("maintenance",), [], [2]),
            (("whatever comes next",), [], [2]),
        ],
    )
    def test_health(self, statuses: tuple[str, ...], passing: list[int], any_health: list[int]) -> None:
        one = item(1, Weights={"Passing": 5, "Warning": 2})
        one["Checks"] = [{"Status": status} for status in statuses]
        fit = chosen(WANTED, [one], 1)
        assert len(fit.instances) == len(passing) and len(fit.unfit) == 1 - len(passing)
        answer = chosen(ConsulInstances("web", passing=False), [one], 1)
        assert [instance.weight for instance in answer.instances] == any_health

    def test_a_tag_in_any_case(self) -> None:
        items = [item(1, Tags=["a", "V2"]), item(2, Tags=[]), item(3)]
        answer = chosen(ConsulInstances("web", tag="v2"), items, 1)
        assert names(answer) == ["web1"] and len(answer.unfit) == 2

    def test_no_weights_and_no_port(self) -> None:
        (answer,) = chosen(WANTED, [item(1, Weights=None, Port=0)], 1).instances
        assert (answer.weight, answer.port) == (None, None)

    def test_the_address_of_the_node_where_there_is_none(self) -> None:
        (answer,) = chosen(WANTED, [item(1, Address="")], 1).instances
        assert str(answer.address) == "10.9.9.9"

    def test_names(self) -> None:
        items = [
            item(1, id="web", node="n1"),
            item(2, id="same", node="n1"),
            item(3, id="same", node="n2"),
            item(4, id="a b/c"),
            item(5, id="a-b-c"),
            item(6, id="_nomad-task-1"),
            item(7, id="ü" * 300),
            item(8, id="x", node="n.1"),
            item(9, id="x.n", node="1"),
        ]
        found = names(chosen(WANTED, items, 1))
        assert found[:3] == ["web.n1", "same.n1", "same.n2"]
        assert found[3:6] == ["a-b-c.n1", "a-b-c.n1.5", "nomad-task-1"]
        assert found[6:] == ["instance", "x", "x.n"]
        assert len(set(found)) == len(found)

    def test_one_that_cannot_be_a_backend_stops_no_other(self) -> None:
        items = [item(1, Address="web1.example.org"), item(2), item(3, Address="0.0.0.0"), item(4, Address="fe80::1%1")]
        answer = chosen(WANTED, items, 1)
        assert names(answer) == ["web2"]
        assert [told[:29] for told in answer.problems] == [f"the instance 'web{n}' is left o" for n in (1, 3, 4)]

    @pytest.mark.parametrize(
        ("wanted", "items", "told"),
        [
            (WANTED, [], "Consul has none of 'web' (or this token may not see it)"),
            (WANTED, [item(1, "critical")], "none of the 1 of 'web' passes its checks in Consul"),
            (ConsulInstances("web", "v9"), [item(1), item(2)], "none of the 2 of 'web' has the tag 'v9'"),
        ],
    )
    def test_why_there_is_none(self, wanted: ConsulInstances, items: list[Any], told: str) -> None:
        assert chosen(wanted, items, 1).problems == (f"no instance: {told}",)


BAD: dict[str, Any] = {
    "null": None,
    "an object": {"a": 1},
    "a text": "web1",
    "numbers": [1, 2],
    "no service": [{"Node": {"Node": "n", "Address": "10.0.0.1"}, "Checks": []}],
    "no checks": [{key: value for key, value in item(1).items() if key != "Checks"}],
    "checks of text": [item(1) | {"Checks": ["passing"]}],
    "a port in words": [item(1, Port="http")],
    "an age in words": [item(1, CreateIndex="old")],
    "a weight in words": [item(1, Weights={"Passing": "heavy"})],
    "tags of numbers": [item(1, Tags=[7])],
    "no address at all": [item(1, Address=None) | {"Node": {"Node": "n"}}],
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_what_is_no_list_of_instances(bad: Any) -> None:
    with pytest.raises(SourceError, match="Consul answered a list that is not one of instances"):
        chosen(WANTED, bad, 1)


@asynccontextmanager
async def opened(server: Server, wanted: ConsulInstances = WANTED, **settings: Any) -> AsyncIterator[ConsulDiscovery]:
    discovery = ConsulDiscovery(wanted, ConsulConnections(ConsulSettings(address=server.address, **settings)))
    try:
        yield discovery
    finally:
        await discovery.close()


async def reading(discovery: ConsulDiscovery, after: DiscoveryAnswer | None) -> DiscoveryAnswer:
    async with asyncio.timeout(PATIENCE):
        return await discovery.read(after)


async def test_a_new_leader_that_knows_nothing_yet(server: Server) -> None:
    """hashicorp/consul#4103: status 200 and an empty list, unless it is asked to be consistent."""
    full, news = [item(1), item(2)], 5

    def script(request: Request) -> bytes | None:
        if request.waits:
            return answer("[]", news) if int(request.query["index"]) < news else None
        if "consistent" in request.query:
            return answer(json.dumps(full), news)
        return answer("[]", news)

    server.script = script
    async with opened(server) as discovery:
        before = await reading(discovery, None)
        assert names(before) == ["web1", "web2"]
        news = 9
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(reading(discovery, before))
            while not any(r.waits and r.query["index"] == "9" for r in server.requests):
                await asyncio.sleep(0.01)
            assert not waiting.done(), "nothing was lost, so nothing is told"
            full, news = [item(2)], 12
            server.script = lambda request: answer(json.dumps(full), news)
            waiting.cancel()
        assert names(await reading(discovery, before)) == ["web2"]


async def test_the_index_goes_backwards(server: Server) -> None:
    index = 100
    server.script = lambda request: answer(json.dumps([item(index)]), index)
    async with opened(server) as discovery:
        before = await reading(discovery, None)
        index = 7
        after = await reading(discovery, before)
        assert (names(after), after.index) == (["web7"], 7)
        index = 0
        assert (await reading(discovery, None)).index == 1, "with 0 a query would not wait"


async def test_what_is_asked(server: Server) -> None:
    server.script = lambda request: answer(json.dumps([item(1)]), 3) if not request.waits else None
    async with opened(server, ConsulInstances("web api", "v2", True, "dc2"), wait="7s") as discovery:
        before = await reading(discovery, None)
        async with begun(discovery.read(before)):
            await eventually(lambda: len(server.requests) == 2)
    first, second = server.requests
    assert first.path == second.path == "/v1/health/service/web%20api"
    assert first.query == {"dc": "dc2", "consistent": "1"}
    assert second.query == {"dc": "dc2", "index": "3", "wait": "7000ms"}


async def test_the_datacenter_of_the_settings(server: Server) -> None:
    server.script = lambda request: answer("[]", 3)
    async with opened(server, datacenter="dc1") as discovery:
        await reading(discovery, None)
    assert server.requests[0].query == {"dc": "dc1", "consistent": "1"}


REFUSED = {
    "no leader": (answer("No cluster leader", None, 500), "No cluster leader"),
    "no such datacenter": (answer("No path to datacenter", None, 500), "No path to datacenter"),
    "not allowed": (answer("Permission denied", None, 403), r'policy reads service "web" and node_prefix ""'),
    "hidden": (answer("[]", 1, X_Consul_Results_Filtered_By_ACLs="true"), "instances are hidden from this token"),
    "partly hidden": (
        answer(json.dumps([item(1)]), 1, X_Consul_Results_Filtered_By_ACLs="true"),
        r'instances are hidden from this token.*policy reads service "web" and node_prefix ""',
    ),
    "nonsense": (answer("{"), "not Consul's"),
    "not found": (answer("", 1, 404), "not one of instances"),
    "no index": (answer("[]", None), "not Consul's"),
    "cut short": (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[{HANG UP", "Consul at"),
}


@pytest.mark.parametrize(("bad", "told"), REFUSED.values(), ids=REFUSED.keys())
async def test_an_answer_that_is_none(server: Server, bad: bytes, told: str) -> None:
    async with opened(server) as discovery:
        server.script = lambda request: bad
        with pytest.raises(SourceError, match=told):
            await reading(discovery, None)
        server.script = lambda request: answer(json.dumps([item(1)]), 3)
        assert names(await reading(discovery, None)) == ["web1"]
