"""What clients notice of changes: nothing. Every request is counted, on HAProxy of both Debian releases.

``ANYCASTLB_EXAMPLES`` multiplies the changes; the numbers here are those of a short run.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from anycastlb.adapters.certificates import fingerprint
from anycastlb.core.model import HttpCertificate, Retry, Tls
from tests.support import haproxy
from tests.support.authority import Authority
from tests.support.examples import EXAMPLES
from tests.support.haproxy import LOOPBACK, RELEASES, Haproxy, config, gateway, section
from tests.support.haproxy_rows import Wanted, at, host, server, site
from tests.support.haproxy_world import World, serving
from tests.support.http_clients import Http2Client, WebSocket
from tests.support.http_load import EVERY, Load, loaded
from tests.support.origin import Origin, get, origins
from tests.support.ports import free_port
from tests.support.waiting import PATIENCE, eventually

TIMES = EXAMPLES or 4
RELOADS = min(TIMES, 20)
"""HAProxy ends what is left of a worker, such as a websocket, with the 21st reload after it."""


@pytest.fixture(params=RELEASES)
async def web(
    request: pytest.FixtureRequest, require: Callable[[str], str], tmp_path: Path
) -> AsyncIterator[tuple[World, dict[str, Origin], Wanted]]:
    files = haproxy.installation(tmp_path, require(request.param))
    real = Haproxy(files)
    world = World(real, files, free_port())
    Authority(files.certificates).issue("first.example").rename(files.certificate("first"))
    first = HttpCertificate(fingerprint(files.certificate("first").read_text()), ("tls",))
    async with origins("one", "two", "blog") as servers:
        wanted = Wanted(
            config(
                [gateway(world.port), replace(gateway(free_port(), "tls"), tls=Tls(("first",)))],
                [section("shop"), section("blog")],
                response_headers=("x-version",),
            ),
            servers={at("shop", name): server(servers[name].port) for name in ("one", "two")}
            | {at("blog", "blog"): server(servers["blog"].port)},
            sites={host(): site("v0", {"": "shop"})},
            certificates={"first": first},
        )
        try:
            await world.start(wanted)
            yield world, servers, wanted
        finally:
            world.runtime.close()
            real.stop()


Web = tuple[World, dict[str, Origin], Wanted]


async def test_no_request_is_lost_while_everything_changes(web: Web) -> None:
    """R13: servers, rules, certificates, and reloads, on every kind of connection; at size it is ``make bench``'s."""
    world, servers, wanted = web
    assert wanted.config
    authority = Authority(world.files.certificates, "Another CA")
    two = at("shop", "two")
    (secure,) = [gateway.port for gateway in wanted.config.gateways if gateway.tls]
    wanted = replace(wanted, sites=dict.fromkeys([host(), host(gateway="tls")], site("v", {"": "shop"})))
    assert await world.settle(wanted) == []
    async with loaded(Load(world.port, secure), EVERY) as load:
        for turn in range(RELOADS):
            for change in (
                {two: replace(wanted.servers[two], state="drain")},
                {two: replace(wanted.servers[two], state="maint")},
                {at("shop", f"new-{turn}"): server(servers["blog"].port, 1 + turn)},
                {two: replace(wanted.servers[two], weight=1 + turn)},
            ):
                assert await world.settle(replace(wanted, servers={**wanted.servers, **change})) == []
                await load.goes_on()
            for version in range(4):
                rules = {"": "shop"} if version % 2 else {"": "blog", "/else": "shop"}
                wanted = replace(wanted, sites=dict.fromkeys(wanted.sites, site(f"v{turn}-{version}", rules)))
                assert await world.settle(wanted) == []
                await load.goes_on()
                await world.pass_time()
            authority.issue("first.example").rename(world.files.certificate("first"))
            renewed = HttpCertificate(fingerprint(world.files.certificate("first").read_text()), ("tls",))
            wanted = replace(wanted, certificates={"first": renewed}, digest=f"turn-{turn}")
            assert await world.settle(wanted) == []
            await load.goes_on()
    assert world.runtime.sent.count("reload") == RELOADS


@pytest.mark.parametrize("release", RELEASES)
async def test_a_websocket_outlives_a_reload_until_hard_stop_after(
    release: str, require: Callable[[str], str], tmp_path: Path
) -> None:
    """R13: it ends then, and not before; that it lives on until then is above."""
    files = replace(haproxy.installation(tmp_path, require(release)), hard_stop_after=1.0)
    async with serving(files) as (world, _, _, wanted):
        first, second = WebSocket(world.port), WebSocket(world.port)
        assert await first.echo(b"before", "/", "shop.example") == b"before"
        began = time.monotonic()
        world.skipped += 3.0
        assert await world.settle(replace(wanted, digest="again")) == []
        async with asyncio.timeout(PATIENCE):
            with pytest.raises((OSError, EOFError)):
                while await first.echo(b"after", "/", "shop.example") == b"after":
                    await asyncio.sleep(0.02)
        assert time.monotonic() - began >= files.hard_stop_after
        assert await second.echo(b"new", "/", "shop.example") == b"new"
        second.close()


async def test_no_request_sees_half_of_a_change(web: Web) -> None:
    """R14: which pool, and what the answer is marked with, change together, and the pool before goes."""
    world, _, wanted = web

    def version(turn: int) -> Wanted:
        pool = ("shop", "blog")[turn % 2]
        rules = site(f"marked{turn}", {"": pool}, response__set__x_version=pool)
        entries = tuple(entry._replace(key=entry.key.replace("x_", "x-")) for entry in rules.entries)
        static = config([gateway(world.port)], [section(pool)], response_headers=("x-version",))
        return Wanted(
            static, f"pool-{turn}", {key: row for key, row in wanted.servers.items() if key.section == pool},
            {host(): replace(rules, entries=entries)},
        )  # fmt: skip

    def mixed(head: str, body: str) -> str:
        mark = head.partition("x-version: ")[2].split("\r\n")[0]
        return "" if mark and (mark == "blog") == (body == "blog") else f"{body} with the mark {mark!r}"

    assert await world.settle(version(0)) == []
    async with loaded(Load(world.port)) as load:
        load.check = mixed
        for turn in range(1, TIMES):
            world.skipped += 3
            assert await world.settle(version(turn)) == []
            await load.goes_on()
    assert world.runtime.sent.count("reload") == TIMES


async def test_removals_under_retries_kill_no_worker(web: Web) -> None:
    """R16: requests wait for their retry on the very server that is removed. It killed 2.6 with ``del server``."""
    world, _, wanted = web
    pid, dead = await world.worker(), free_port()
    retries = Retry(8, ("conn-failure", "empty-response"))
    wanted = replace(
        wanted, config=replace(wanted.config, sections=(section("shop", retry=retries),)), digest="retries",
        servers={at("shop", "one"): wanted.servers[at("shop", "one")]},
    )  # fmt: skip
    world.skipped += 3
    assert await world.settle(wanted) == []
    pid = await world.worker()
    async with loaded(Load(world.port)) as load:
        for turn in range(TIMES * 3):
            more = {at("shop", f"dead-{turn}"): server(dead, 256)}
            assert await world.settle(replace(wanted, servers={**wanted.servers, **more})) == []
            await load.goes_on()
            assert await world.settle(wanted) == []
            await world.pass_time()
    assert await world.worker() == pid


async def test_a_server_that_dies_loses_no_request(web: Web) -> None:
    """R22, before any check has noticed."""
    world, servers, _ = web
    async with loaded(Load(world.port)) as load:
        servers["two"].crash()
        for _ in range(5):
            await load.goes_on()
    assert world.runtime.sent == []


async def test_a_server_that_dies_loses_the_posts_that_it_had_and_no_other(web: Web) -> None:
    """R22: what may have reached it is not repeated, and what has not is."""
    world, servers, _ = web
    for origin in servers.values():
        origin.hold = asyncio.Event()
    asked = [asyncio.ensure_future(get(world.port, "/", "shop.example", "POST")) for _ in range(8)]  # noqa: TID251
    await eventually(lambda: [servers[name].requests for name in ("one", "two")] == [4, 4])
    servers["two"].crash()
    later = [asyncio.ensure_future(get(world.port, "/", "shop.example", "POST")) for _ in range(8)]  # noqa: TID251
    await eventually(lambda: servers["one"].requests == 4 + 8)
    for origin in servers.values():
        assert origin.hold
        origin.hold.set()
    assert sorted([(await one).status for one in asked]) == [200] * 4 + [502] * 4
    assert [(await one).status for one in later] == [200] * 8
    assert servers["two"].requests == 4 and servers["blog"].requests == 0


SMUGGLED = "GET /admin HTTP/1.1\r\nHost: shop.example\r\n\r\n"
LENGTH = len(SMUGGLED)
ODD = {
    "two lengths": ("Content-Length: 0", f"Content-Length: {LENGTH}"),
    "length and chunks": ("Content-Length: 4", "Transfer-Encoding: chunked", "", "0", ""),
    "chunks in disguise": ("Content-Length: 4", "Transfer-Encoding: xchunked", "", "0", ""),
    "a space before the colon": ("Content-Length : 4",),
    "a folded header": ("X-A: b", " Transfer-Encoding: chunked", "Content-Length: 0"),
    "an underscore": ("Transfer_Encoding: chunked", f"Content-Length: {LENGTH}"),
    "a sign in the length": (f"Content-Length: +{LENGTH}",),
    "two hosts": ("Host: other.example",),
    "a NUL": ("X-A: a\0b",),
}
"""What stands behind the first two lines of a request, and may be more than its head."""


async def test_no_request_is_smuggled_past_the_rules(web: Web) -> None:
    """R26: whatever the head, a body that looks like a request is none to a server behind an unmarked path."""
    world, servers, wanted = web
    rules = site("v9", {"": "shop", "/admin": "blog"})
    assert await world.settle(replace(wanted, sites={host(): rules})) == []
    for name, lines in ODD.items():
        for origin in servers.values():
            origin.heads.clear()
        reader, writer = await asyncio.open_connection(str(LOOPBACK), world.port)
        odd = "\r\n".join(["POST / HTTP/1.1", "Host: shop.example", *lines, "", ""])
        writer.write((odd + SMUGGLED).encode("latin-1"))
        writer.write_eof()
        said = (await reader.read()).decode("latin-1")
        writer.close()
        first = [head for name in ("one", "two") for head in servers[name].heads]
        assert not any("/admin" in head or "_" in head or "xchunked" in head for head in first), (name, said, first)
        assert said.count("HTTP/1.1 ") <= 2, (name, said)


END = "\r\n\r\n"
ODD_H2: Mapping[str, Mapping[str, str]] = {
    "less than its length": {"content-length": str(LENGTH + 9)},
    "more than its length": {"content-length": "0"},
    "chunks": {"transfer-encoding": "chunked"},
    "a length and chunks": {"content-length": str(LENGTH), "transfer-encoding": "chunked"},
    "chunks in disguise": {"transfer_encoding": "chunked"},
    "a line break in a value": {"x-a": f"b{END}{SMUGGLED}"},
    "a line feed in a value": {"x-a": "b\ntransfer-encoding: chunked"},
    "a line break in a name": {f"x-a: b{END}GET /admin HTTP/1.1\r\nx-b": "c"},
    "a colon in a name": {"transfer-encoding: chunked\r\nx": "y"},
    "a line break in the path": {":path": f"/ HTTP/1.1\r\nHost: shop.example{END}GET /admin"},
    "a space in the path": {":path": "/ HTTP/1.1"},
    "a line break in the method": {":method": f"GET / HTTP/1.1\r\nHost: shop.example{END}GET /admin HTTP/1.1\r\nx:"},
    "a line break in the host": {":authority": f"shop.example{END}GET /admin HTTP/1.1\r\nx: y"},
    "another host": {"host": "other.example"},
    "a header about the connection": {"connection": "x-forwarded-for"},
    "an upgrade": {"upgrade": "h2c", "connection": "upgrade"},
}
"""What is different about a request by HTTP/2 whose body looks like a request."""


async def test_no_request_by_http2_is_smuggled_past_the_rules(web: Web) -> None:
    """R26: what frames and texts may hold there is more than a head of HTTP/1.1 may be made of."""
    world, servers, wanted = web
    assert wanted.config
    (secure,) = [gateway.port for gateway in wanted.config.gateways if gateway.tls]
    rules = site("v9", {"": "shop", "/admin": "blog"})
    assert await world.settle(replace(wanted, sites={host(gateway="tls"): rules})) == []
    plain = {":method": "POST", ":scheme": "https", ":authority": "shop.example", ":path": "/"}
    for name, odd in {"nothing odd": {}, **ODD_H2}.items():
        client, status = Http2Client(secure, "first.example"), 0
        with contextlib.suppress(OSError, EOFError):
            status = await client.send([*{**plain, **odd}.items()], SMUGGLED.encode())
        client.close()
        assert name != "nothing odd" or status == 200
        heads = [head.lower() for origin in servers.values() for head in origin.heads]
        assert heads and all(head.startswith("post / http/1.1\r\n") for head in heads), (name, status, heads)
        assert not any("/admin" in head or "_" in head or "\r\nx-a: b\r\n" in head for head in heads), (name, heads)
        assert all(head.count("\r\nhost: shop.example\r\n") == head.count("host: ") == 1 for head in heads), (
            name,
            heads,
        )
    assert servers["blog"].requests == 0
