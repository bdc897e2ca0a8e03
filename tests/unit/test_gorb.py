"""GORB's API where answers of the system are chosen by the test; the rest is ``tests/contract/test_gorb.py``."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import aiohttp
import pytest

from anycastlb.core.importers import gorb
from anycastlb.core.model import Snapshot
from tests.support.serving import serving


@pytest.mark.parametrize(("vip", "expected"), [("192.0.2.30", "192.0.2.50"), ("2001:db8::30", "2001:db8::50")])
@pytest.mark.parametrize("both", [["192.0.2.50", "2001:db8::50"], ["2001:db8::50", "192.0.2.50"]])
async def test_a_name_of_both_families_is_an_address_of_the_services(
    monkeypatch: pytest.MonkeyPatch, both: list[str], vip: str, expected: str
) -> None:
    async def answers(*_args: Any, **_options: Any) -> list[Any]:
        return [(socket.AF_UNSPEC, socket.SOCK_STREAM, 6, "", (address, 0)) for address in both]

    async with serving(Snapshot()) as served, aiohttp.ClientSession(served.url) as session:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", answers)
        for path, body in (
            ("/service/0", {"host": vip, "port": 12345, "protocol": "tcp", "method": "rr"}),
            ("/service/0/1", {"host": "backend.example", "port": 80}),
        ):
            async with session.put(path, data=json.dumps(body)) as answer:
                assert (answer.status, await answer.text()) == (200, "")
        async with session.get("/service/0/1") as answer:
            assert (await answer.json(content_type=None))["options"]["host"] == expected


BACKEND = {"host": "10.1.0.1", "port": 80}


@pytest.mark.parametrize("weight", ["x", "", [1], 1.5, True, 10**400, {"weight": 5}, "٣"])
def test_what_is_no_weight_takes_no_backend_out(weight: object) -> None:
    with pytest.raises(gorb.GorbRefusal, match="weight: expected a whole number"):
        gorb.weight({"weight": weight})


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"method": 5}, "method: expected text"),
        ({"pulse": "http"}, "pulse: expected an object"),
        ({"pulse": {"interval": 10}}, "interval: expected text"),
        ({"pulse": {"type": ["http"]}}, "type: expected text"),
        ({"port": True}, "port: expected a whole number"),
    ],
)
def test_an_option_of_another_type_is_not_taken_for_none(options: dict[str, object], told: str) -> None:
    with pytest.raises(gorb.GorbRefusal, match=told):
        gorb.backend({**BACKEND, **options}, {}, 4)


@pytest.mark.parametrize("persistent", ["false", 0, 1, []])
def test_persistent_is_yes_or_no(persistent: object) -> None:
    with pytest.raises(gorb.GorbRefusal, match="persistent: expected true or false"):
        gorb.service({"host": "192.0.2.1", "port": 80, "persistent": persistent}, {})


def test_names_of_options_may_be_spelt_as_go_reads_them() -> None:
    assert gorb.weight({"Weight": 7}) == {"weight": 7} and gorb.weight({}) == {"weight": 0}
    options = {"Host": "lb.example", "PORT": 80, "Pulse": {"Type": "http", "args": {"path": "/health"}}}
    assert gorb.names(options) == {"lb.example"}
    document = gorb.backend(options, {"lb.example": "10.1.0.1"}, 4)
    assert (document["address"], document["check"]["path"]) == ("10.1.0.1", "/health")
