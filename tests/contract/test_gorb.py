"""GORB's users: every call of both READMEs (kobolog/gorb, sky-uk/gorb) and every error they document, over HTTP.

By default against an API over the catalog in memory; ``ANYCASTLB_TEST_API`` names a running node instead, whose catalog
is emptied.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from anycastlb.core.model import Snapshot
from tests.support.serving import serving

SERVICE = {"host": "192.0.2.30", "port": 12345, "protocol": "tcp", "method": "rr"}
BACKEND: dict[str, Any] = {
    "host": "10.0.0.1",
    "port": 12346,
    "method": "nat",
    "weight": 50,
    "pulse": {
        "type": "http",
        "args": {"method": "GET", "path": "/health", "expect": 200, "port": 54321, "host": "10.0.0.9"},
        "interval": "5s",
    },
}


class Gorb:
    """What a client of GORB does."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url, self.session = url, session

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, str]:
        data = body if isinstance(body, str) else None if body is None else json.dumps(body)
        async with self.session.request(method, f"{self.url}{path}", data=data) as answer:
            return answer.status, await answer.text()

    async def get(self, path: str) -> Any:
        status, text = await self.ask("GET", path)
        assert status == 200
        return json.loads(text)

    async def stored(self, key: str) -> Any:
        return (await self.get("/v1/export"))["catalog"][key]

    async def refused(self, method: str, path: str, body: Any = None) -> tuple[int, str]:
        status, text = await self.ask(method, path, body)
        return status, json.loads(text)["error"]


@pytest.fixture
async def gorb() -> AsyncIterator[Gorb]:
    async with aiohttp.ClientSession() as session:
        if url := os.environ.get("ANYCASTLB_TEST_API"):
            found = Gorb(url, session)
            for name in await found.get("/service"):
                await found.ask("DELETE", f"/service/{name}")
            yield found
        else:
            async with serving(Snapshot()) as served:
                yield Gorb(served.url, session)


async def test_a_service_from_put_to_delete(gorb: Gorb) -> None:
    assert await gorb.ask("PUT", "/service/0", SERVICE) == (200, "")
    assert (await gorb.get("/service")).count("0") == 1
    view = await gorb.get("/service/0")
    assert view["backends"] is None
    assert view["health"] == 1.0
    assert view["options"] | {"flags": "", "persistent": False} == view["options"]
    assert {name: view["options"][name] for name in SERVICE} == SERVICE
    assert await gorb.ask("DELETE", "/service/0") == (200, "")
    assert await gorb.get("/service") == []


async def test_what_is_not_given_is_as_in_gorb(gorb: Gorb) -> None:
    assert (await gorb.ask("PUT", "/service/0", {"host": "192.0.2.30", "port": 80}))[0] == 200
    assert (await gorb.ask("PUT", "/service/0/0", {"host": "10.0.0.1", "port": 80}))[0] == 200
    assert (await gorb.get("/service/0"))["options"]["method"] == "wrr"
    options = (await gorb.get("/service/0/0"))["options"]
    assert (options["method"], options["vsid"]) == ("nat", "0")
    assert options["weight"] in (100, 0), "the one in force: nobody answers there, which a running node soon knows"
    assert options["pulse"] == {"type": "tcp", "interval": "60s"}
    check = (await gorb.stored("services/0/backends/0"))["check"]
    assert check == {"type": "tcp", "interval": "60s", "timeout": "5s", "rise": 1, "fall": 1}


async def test_a_backend_from_put_to_delete(gorb: Gorb) -> None:
    await gorb.ask("PUT", "/service/0", SERVICE)
    assert await gorb.ask("PUT", "/service/0/1", BACKEND) == (200, "")
    view = await gorb.get("/service/0/1")
    assert view["options"]["host"] == "10.0.0.1"
    assert view["options"]["weight"] in (50, 0)
    assert view["options"]["pulse"]["args"] == {
        "method": "GET",
        "path": "/health",
        "host": "10.0.0.9",
        "port": 54321,
        "expect": "200",
    }
    assert set(view["metrics"]) == {"status", "health", "uptime"}
    assert (await gorb.get("/service/0"))["backends"] == ["1"]
    assert await gorb.ask("PATCH", "/service/0/1", {"weight": 25}) == (200, "")
    assert (await gorb.stored("services/0/backends/1"))["weight"] == 25
    assert await gorb.ask("PATCH", "/service/0/1", {}) == (200, "")
    assert (await gorb.stored("services/0/backends/1"))["weight"] == 0, "no weight is weight 0 in GORB: a drain"
    assert await gorb.ask("DELETE", "/service/0/1") == (200, "")
    assert (await gorb.get("/service/0"))["backends"] is None


@pytest.mark.parametrize("expect", [200, "200"])
async def test_numbers_in_arguments_may_be_text(gorb: Gorb, expect: Any) -> None:
    await gorb.ask("PUT", "/service/0", SERVICE)
    args = {"method": "GET", "path": "/", "expect": expect, "port": "8080"}
    body = BACKEND | {"pulse": {"type": "http", "args": args, "interval": "1m"}}
    assert await gorb.ask("PUT", "/service/0/1", body) == (200, "")
    told = (await gorb.get("/service/0/1"))["options"]["pulse"]["args"]
    assert (told["expect"], told["port"]) == ("200", 8080)


async def test_persistent_and_flags_do_what_they_promise(gorb: Gorb) -> None:
    body = SERVICE | {"method": "sh", "flags": "sh-fallback|sh-port", "persistent": True}
    assert await gorb.ask("PUT", "/service/0", body) == (200, "")
    options = (await gorb.get("/service/0"))["options"]
    assert (options["flags"], options["persistent"]) == ("sh-fallback|sh-port", True)
    assert (await gorb.stored("services/0"))["persistence"] == {}
    assert await gorb.ask("PUT", "/service/1", SERVICE | {"port": 81, "flags": "flag-1|flag-3"}) == (200, "")
    assert (await gorb.get("/service/1"))["options"]["flags"] == "flag-1|flag-3"


async def test_sky_uk_patches_a_service_or_makes_it(gorb: Gorb) -> None:
    assert await gorb.ask("PATCH", "/service/0", SERVICE) == (200, "")
    await gorb.ask("PUT", "/service/0/1", BACKEND)
    assert await gorb.ask("PATCH", "/service/0", SERVICE | {"method": "sh", "flags": "sh-port"}) == (200, "")
    view = await gorb.get("/service/0")
    assert (view["options"]["method"], view["options"]["flags"], view["backends"]) == ("sh", "sh-port", ["1"])
    for changed in ({"host": "192.0.2.31"}, {"port": 1}, {"protocol": "udp"}):
        told = "unable to update virtual service [0] due to host/port/protocol changing"
        assert await gorb.refused("PATCH", "/service/0", SERVICE | changed) == (400, told)


@pytest.mark.parametrize("method", ["nat", "dr", "tunnel", "ipip"])
async def test_every_forwarding_method(gorb: Gorb, method: str) -> None:
    await gorb.ask("PUT", "/service/0", SERVICE)
    port = BACKEND["port"] if method == "nat" else SERVICE["port"]
    assert await gorb.ask("PUT", "/service/0/1", BACKEND | {"method": method, "port": port}) == (200, "")
    expected = "tunnel" if method == "ipip" else method
    assert (await gorb.get("/service/0/1"))["options"]["method"] == expected


@pytest.mark.parametrize(
    ("interval", "seconds"), [("5s", 5), ("5sec", 5), ("5 seconds", 5), ("1m", 60), ("2min", 120), ("1h", 3600)]
)
async def test_every_form_of_interval(gorb: Gorb, interval: str, seconds: int) -> None:
    await gorb.ask("PUT", "/service/0", SERVICE)
    body = BACKEND | {"pulse": {"type": "tcp", "interval": interval}}
    assert await gorb.ask("PUT", "/service/0/1", body) == (200, "")
    assert (await gorb.get("/service/0/1"))["options"]["pulse"]["interval"] == f"{seconds}s"


async def test_names_are_resolved_once(gorb: Gorb) -> None:
    await gorb.ask("PUT", "/service/0", SERVICE)
    assert await gorb.ask("PUT", "/service/0/1", {"host": "localhost", "port": 80}) == (200, "")
    assert (await gorb.get("/service/0/1"))["options"]["host"] == "127.0.0.1"


PULSE = {"pulse": {"type": "tcp", "interval": "5s"}}


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("/service/1", {"host": "192.0.2.31"}, "endpoint information is missing"),
        ("/service/1", {"port": 80}, "endpoint information is missing"),
        ("/service/1", SERVICE | {"protocol": "icmp"}, "specified protocol is unknown"),
        ("/service/1", SERVICE | {"flags": "sh-port|nonsense"}, "specified flag is unknown"),
        ("/service/0/1", {"host": "10.0.0.1"}, "endpoint information is missing"),
        ("/service/0/1", BACKEND | {"method": "carrier-pigeon"}, "specified forwarding method is unknown"),
        ("/service/0/1", BACKEND | {"pulse": {"type": "smoke"}}, "specified pulse type is unknown"),
        ("/service/0/1", BACKEND | {"pulse": {"interval": "5ms"}}, "invalid interval format"),
        ("/service/0/1", BACKEND | {"pulse": {"interval": "0.5s"}}, "invalid interval format"),
        ("/service/0/1", BACKEND | {"pulse": {"interval": "0s"}}, "pulse interval must be positive"),
        ("/service/0/1", BACKEND | {"pulse": {"interval": "-1s"}}, "pulse interval must be positive"),
        ("/service/0/1", BACKEND | {"host": "2001:db8:1::1"}, "incompatible address families"),
    ],
)
async def test_every_documented_refusal(gorb: Gorb, path: str, body: Any, told: str) -> None:
    await gorb.ask("PUT", "/service/0", SERVICE)
    assert await gorb.refused("PUT", path, body) == (400, told)
    assert await gorb.get("/service") == ["0"]


async def test_conflicts_and_what_is_not_there(gorb: Gorb) -> None:
    missing = (404, "unable to locate specified object")
    assert await gorb.refused("PUT", "/service/0/1", BACKEND) == missing
    for method in ("GET", "DELETE"):
        assert await gorb.refused(method, "/service/0") == missing
        assert await gorb.refused(method, "/service/0/1") == missing
    assert await gorb.refused("PATCH", "/service/0/1", {"weight": 1}) == missing
    exists = (409, "specified object already exists")
    await gorb.ask("PUT", "/service/0", SERVICE)
    await gorb.ask("PUT", "/service/0/1", BACKEND)
    assert await gorb.refused("PUT", "/service/0", SERVICE) == exists
    assert await gorb.refused("PUT", "/service/0/1", BACKEND) == exists


async def test_a_scheduler_no_kernel_has(gorb: Gorb) -> None:
    answer = await gorb.refused("PUT", "/service/0", SERVICE | {"method": "eenie-meenie"})
    assert answer == (500, "error while calling into IPVS")


@pytest.mark.parametrize("body", ["", "{", "[]", "null", '{"port": NaN}', "\udcff", '"' * 5000])
async def test_garbage_is_refused(gorb: Gorb, body: str) -> None:
    data = body.encode(errors="surrogateescape").decode(errors="replace")
    status, told = await gorb.refused("PUT", "/service/0", data)
    assert status == 400
    assert told


async def test_deleting_a_service_leaves_others_of_a_like_name(gorb: Gorb) -> None:
    """GORB's delete in Consul was of a prefix."""
    for number, name in enumerate(("web", "web2", "web-api")):
        assert (await gorb.ask("PUT", f"/service/{name}", SERVICE | {"port": 80 + number}))[0] == 200
        assert (await gorb.ask("PUT", f"/service/{name}/1", BACKEND))[0] == 200, "ids belong to their service"
    assert await gorb.ask("DELETE", "/service/web") == (200, "")
    assert await gorb.get("/service") == ["web-api", "web2"]
    assert (await gorb.get("/service/web2"))["backends"] == ["1"]
