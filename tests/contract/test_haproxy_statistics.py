"""What both HAProxies count of hostnames and pools, and what they find in their maps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from anycastlb.adapters.drivers.haproxy.errors import UnknownAnswer
from anycastlb.adapters.drivers.haproxy.sockets import SocketRuntime
from anycastlb.adapters.drivers.haproxy.statistics import HaproxyStatistics, pool_counters, site_counters
from anycastlb.core.http.explain import MapQuestion
from anycastlb.core.model import SiteKey
from tests.support import haproxy
from tests.support.haproxy import RELEASES, Haproxy, config, gateway, section
from tests.support.haproxy_rows import at, host, server, site
from tests.support.haproxy_world import Wanted, World
from tests.support.origin import origins
from tests.support.ports import free_port

DEAD = 1
"""A port on which nobody listens."""


@pytest.fixture(params=RELEASES)
async def running(
    request: pytest.FixtureRequest, require: Callable[[str], str], tmp_path: Path
) -> AsyncIterator[tuple[World, HaproxyStatistics]]:
    files = haproxy.installation(tmp_path, require(request.param))
    real = Haproxy(files)
    world = World(real, files, free_port())
    async with origins("one") as servers:
        wanted = Wanted(
            config([gateway(world.port)], [section("shop"), section("blog")]),
            servers={at("shop", "one"): server(servers["one"].port), at("blog", "dead"): server(DEAD)},
            sites={host(): site("v0", {"": "shop", "/blog": "blog"})},
        )
        try:
            await world.start(wanted)
            yield world, HaproxyStatistics(files, SocketRuntime(files.socket, files.master, files.program))
        finally:
            world.runtime.close()
            real.stop()


async def get(port: int, name: str, path: str) -> int:
    """The status of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
    line = await reader.readline()
    await reader.read()
    writer.close()
    return int(line.split()[1])


async def test_requests_are_counted_by_hostname_and_pool(running: tuple[World, HaproxyStatistics]) -> None:
    world, statistics = running
    for name, path, status in (
        ("shop.example", "/", 200), ("SHOP.example:80", "/a", 200), ("shop.example", "/blog/1", 503),
        ("stranger.example", "/", 404),
    ):  # fmt: skip
        assert await get(world.port, name, path) == status
    counted = await statistics.read()
    assert counted is not None
    assert set(counted.sites) == {SiteKey("web", "shop.example")}, "strangers are counted nowhere"
    shop = counted.sites[SiteKey("web", "shop.example")]
    assert shop.requests == 3 and shop.answers[0] == 2 and shop.bytes_in > 0 and shop.bytes_out > 0
    assert set(counted.pools) == {"shop", "blog"}
    assert counted.pools["shop"].requests == 2 and counted.pools["shop"].retries == 0
    blog = counted.pools["blog"]
    assert blog.requests == 1 and blog.connection_errors > 0 and blog.retries + blog.redispatches > 0


async def test_haproxy_says_what_it_finds_and_is_asked_nothing_else(running: tuple[World, HaproxyStatistics]) -> None:
    world, statistics = running
    found = MapQuestion("next", "p:t:v0.0|=/blog/1?", "", True)
    missing = MapQuestion("next", "nothing|=/", "", False)
    strange = [
        MapQuestion("next", "a\nshut frontend _ag:web\n", "", False),
        MapQuestion("next", "a;disable frontend _ag:web", "", False),
        MapQuestion("next", "é", "", False),
        MapQuestion("next", "a" * 9000, "", False),
    ]
    answers = await statistics.look_up([found, missing, *strange])
    assert answers == {found.key: True, missing.key: False, strange[1].key: False}
    assert await get(world.port, "shop.example", "/") == 200


async def test_after_a_reload_the_new_worker_is_asked(running: tuple[World, HaproxyStatistics]) -> None:
    world, statistics = running
    question = MapQuestion("next", "p:t:v1.0|=/more/", "", True)
    assert await get(world.port, "shop.example", "/") == 200
    before = await statistics.read()
    assert before is not None and before.sites
    assert await statistics.look_up([question]) == {question.key: False}
    more = Wanted(
        config([gateway(world.port)], [section("shop"), section("blog"), section("more")]),
        digest="second",
        servers={at("more", "dead"): server(DEAD)},
        sites={host(): site("v1", {"": "more", "/more": "more"})},
    )
    assert await world.settle(more) == []
    world.skipped += 10
    assert await world.settle(more) == []
    assert await statistics.look_up([question]) == {question.key: True}
    after = await statistics.read()
    assert after is not None and set(after.pools) >= {"more"} and not after.sites, "it counts anew"


async def test_without_haproxy_there_is_nothing(running: tuple[World, HaproxyStatistics]) -> None:
    world, statistics = running
    assert await statistics.read() is not None
    world.haproxy.stop()
    assert await statistics.read() is None
    assert await statistics.look_up([MapQuestion("next", "a", "", False)]) == {}


def test_answers_that_are_not_known() -> None:
    assert site_counters("# table: _asites, type: string, size:102400, used:0\n") == {}
    with pytest.raises(UnknownAnswer):
        site_counters("0x1: key=web|a use=0")
    with pytest.raises(UnknownAnswer):
        pool_counters("# pxname,svname\nshop,BACKEND")
