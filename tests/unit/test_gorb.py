"""GORB's API where answers of the system are chosen by the test; the rest is ``tests/contract/test_gorb.py``."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import aiohttp
import pytest

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
