"""What the driver of the HTTP tier owes the reconciler: on a HAProxy in memory, and on that of both Debian releases."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from anycastlb.adapters.certificates import fingerprint
from anycastlb.adapters.drivers.haproxy import answers
from anycastlb.adapters.drivers.haproxy.driver import HaproxyDriver
from anycastlb.adapters.drivers.haproxy.memory import MemoryHaproxy
from anycastlb.core.model import HttpCertificate, HttpSite, MapEntry, Tls
from tests.support import haproxy
from tests.support.authority import Authority
from tests.support.haproxy import RELEASES, Haproxy, config, gateway, section
from tests.support.haproxy_rows import Wanted, at, differences, host, look, server, site
from tests.support.haproxy_world import World, first_wanted
from tests.support.origin import Origin, get, origins
from tests.support.ports import free_port
from tests.support.waiting import begun, eventually

NOTHING: dict[str, dict[str, str]] = {table: {} for table in HaproxyDriver.tables}


@pytest.fixture(params=["memory", *RELEASES])
async def world(request: pytest.FixtureRequest, require: Callable[[str], str], tmp_path: Path) -> AsyncIterator[World]:
    if request.param == "memory":
        files = haproxy.installation(tmp_path, "/nowhere")
        yield World(MemoryHaproxy(files), files, free_port())
        return
    files = haproxy.installation(tmp_path, require(request.param))
    real = Haproxy(files)
    world = World(real, files, free_port())
    yield world
    world.runtime.close()
    real.stop()


REAL = pytest.mark.parametrize("world", RELEASES, indirect=True)
"""For what only requests over a network can show."""


@pytest.fixture
async def web(world: World) -> AsyncIterator[tuple[World, dict[str, Origin], Wanted]]:
    """One pool of two servers behind one hostname, which are served."""
    async with origins("one", "two", "blog") as servers:
        wanted = first_wanted(world, servers)
        world.served = {origin.port: origin for origin in servers.values()}
        await world.start(wanted)
        yield world, servers, wanted


Web = tuple[World, dict[str, Origin], Wanted]


async def test_it_comes_up_with_what_is_wanted(web: Web) -> None:
    world, _, wanted = web
    replies = [await world.get() for _ in range(4)]
    assert sorted(reply.body for reply in replies) == ["one", "one", "two", "two"]
    assert (await world.get(host="other.example")).status == 404
    assert await world.settle(wanted) == []
    assert world.runtime.sent == []


async def test_servers_change_without_a_reload(web: Web) -> None:
    """R11."""
    world, servers, wanted = web
    pid = await world.worker()
    one, two = at("shop", "one"), at("shop", "two")
    for change in (
        {two: replace(wanted.servers[two], state="drain")},
        {two: replace(wanted.servers[two], state="maint")},
        {two: replace(wanted.servers[two], weight=0)},
    ):
        before = servers["two"].requests
        now = replace(wanted, servers={**wanted.servers, **change})
        assert await world.settle(now) == []
        assert differences(await look(world.driver), now) == []
        assert {(await world.get()).body for _ in range(4)} == {"one"}
        assert servers["two"].requests == before
    third = {one: server(servers["blog"].port, 256, maxconn=7), at("shop", "three"): server(servers["two"].port, 1)}
    now = replace(wanted, servers={**third, at("blog", "blog"): wanted.servers[at("blog", "blog")]})
    assert await world.settle(now) == []
    assert differences(await look(world.driver), now) == []
    assert {(await world.get()).body for _ in range(300)} == {"blog", "two"}
    assert await world.worker() == pid


@REAL
async def test_a_removed_server_is_deleted_where_that_is_safe_and_can_return(web: Web) -> None:
    """R16: never ``del server`` on 2.6, and from 3.0 on only when its last connection has ended."""
    world, servers, wanted = web
    two = at("shop", "two")
    servers["two"].hold = servers["one"].hold = asyncio.Event()
    held = [asyncio.ensure_future(get(world.port)) for _ in range(2)]  # noqa: TID251
    await eventually(lambda: servers["two"].requests == 1)
    without = replace(wanted, servers={key: row for key, row in wanted.servers.items() if key != two})
    assert await world.settle(without) == []
    assert differences(await look(world.driver), without) == []
    await world.pass_time()
    listed = (await world.runtime.ask(["show servers state shop"]))[0]
    assert " two 127.255.255.254 " in listed
    servers["two"].hold.set()
    assert sorted([(await one).body for one in held]) == ["one", "two"]
    safe = answers.info((await world.runtime.ask(["show info"]))[0]).deletes_servers
    while safe and " two " in listed:
        await world.pass_time()
        listed = (await world.runtime.ask(["show servers state shop"]))[0]
    assert any(command.startswith("del server") for command in world.runtime.sent) == safe
    assert await world.settle(wanted) == []
    assert differences(await look(world.driver), wanted) == []
    assert {(await world.get()).body for _ in range(4)} == {"one", "two"}


async def test_a_hostname_changes_at_once_and_nothing_stays_behind(web: Web) -> None:
    world, _, wanted = web
    pid = await world.worker()
    now = replace(wanted, sites={host(): site("v2", {"": "shop", "/blog?": "blog", "/blog/": "blog"}),
                                 host("*.wild.example"): site("v2", {"": "shop", "/blog?": "blog", "/blog/": "blog"}),
                                 host("*"): site("v3", {"": "blog"})})  # fmt: skip
    assert await world.settle(now) == []
    assert differences(await look(world.driver), now) == []
    bodies = [(await world.get(path)).body for path in ("/blog", "/blog/x", "/blogs", "/")]
    assert [body == "blog" for body in bodies] == [True, True, False, False]
    assert (await world.get("/blog", "A.b.WILD.example.:8080")).body == "blog"
    assert (await world.get("/", "a.wild.example")).body in ("one", "two")
    assert (await world.get("/", "wild.example")).body == "blog"
    await world.pass_time()
    left = "".join(await world.runtime.ask([f"show map {world.files.map(name)}" for name in ("next", "leaf", "do")]))
    assert ":v2." in left and ":v3." in left and ":v1." not in left
    assert ":v1." not in world.files.map("next").read_text()
    assert differences(await look(world.driver), now) == []
    gone = replace(wanted, sites={})
    assert await world.settle(gone) == []
    assert (await world.get()).status == 404
    assert await world.worker() == pid


HOSTS = {
    "SHOP.example": "shop.example",
    "Shop.Example.:80": "shop.example",
    "a..": "a.",
    "10.0.0.1:80": "10.0.0.1",
    "[2001:DB8::1]:80": "[2001:db8::1]",
    "[::1]": "[::1]",
}
"""Each as it may be sent, and as a hostname of a site."""


@REAL
async def test_a_host_is_found_however_it_is_written(web: Web) -> None:
    """R5."""
    world, _, wanted = web
    for header, name in HOSTS.items():
        now = replace(wanted, sites={host(name): site("v1", {"": "shop"})})
        assert await world.settle(now) == []
        assert (await get(world.port, "/", header)).status == 200, header
        assert (await get(world.port, "/", "unknown.example")).status == 404, header
    everything = replace(wanted, sites={host("*"): site("v1", {"": "shop"}), host("*.a"): site("v2", {"": "blog"})})
    assert await world.settle(everything) == []
    asked = ("", "a", "b.a", "1.2.3.4.5.6.7.8.a", "1.2.3.4.5.6.7.8.9.a")
    bodies = [(await get(world.port, "/", one)).body for one in asked]
    assert [body == "blog" for body in bodies] == [False, False, True, True, False]


FORMS = {
    "GET http://shop.example/x HTTP/1.1\r\nHost: shop.example": 200,
    "GET http://SHOP.example:80/x HTTP/1.1\r\nHost: shop.example": 200,
    "GET http://other.example/x HTTP/1.1\r\nHost: shop.example": 400,
    "GET http://shop.example/x HTTP/1.1\r\nHost: other.example": 400,
    "GET /x HTTP/1.0\r\nHost: shop.example": 200,
    "GET /x HTTP/1.0": 404,
    "GET /x HTTP/1.1": 404,
    "GET /x HTTP/1.1\r\nHost: shop.example\r\nHost: shop.example": 200,
    "GET /x HTTP/1.1\r\nHost: shop.example\r\nHost: other.example": 400,
}
"""How a request may say for which host it is, and the status of its answer."""


@REAL
async def test_a_request_says_once_for_which_host_it_is(web: Web) -> None:
    """R5."""
    world, servers, wanted = web
    assert await world.settle(replace(wanted, sites={host(): site("forms", {"/x": "blog"})})) == []
    statuses = {}
    for form in FORMS:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        writer.write(f"{form}\r\nConnection: close\r\n\r\n".encode())
        statuses[form] = int((await reader.read()).split()[1])
        writer.close()
    assert statuses == FORMS
    assert len(servers["blog"].heads) == list(FORMS.values()).count(200)


@REAL
async def test_a_leaf_changes_requests_and_answers(world: World) -> None:
    async with origins("one") as servers:
        wanted = Wanted(
            config([gateway(world.port)], [section("shop")], request_headers=("x-a", "x-b"), response_headers=("x-c",)),
            servers={at("shop", "one"): server(servers["one"].port)},
            sites={
                host(): site("v1", {"/blog/": "shop"}, strip="1:/x", host="inner.example", timeout="9000",
                             request__set__x_a="new; \\ #\"", request__del__x_b="1", response__add__x_c="c"),
            },
        )  # fmt: skip
        renamed = [entry._replace(key=entry.key.replace("x_", "x-")) for entry in wanted.sites[host()].entries]
        wanted = replace(wanted, sites={host(): HttpSite("p:t:v1.0", tuple(renamed))})
        await world.start(wanted)
        reply = await get(world.port, "/blog/y?q=1", "shop.example", "GET", "X-A: old", "X-B: b", "X-Forwarded-For: 9")
        head = servers["one"].heads[0].splitlines()
        assert reply.status == 200 and "x-c: c" in reply.head.splitlines()
        assert head[0] == "GET /x/y?q=1 HTTP/1.1"
        assert {"host: inner.example", 'x-a: new; \\ #"', "x-forwarded-for: 127.0.0.1"} <= {*head}
        assert not any(line.lower().startswith("x-b:") for line in head)


@REAL
async def test_what_a_client_says_of_whom_it_forwards_for_is_replaced_or_added_to(world: World) -> None:
    """R27."""
    appending = replace(gateway(free_port(), "edge"), forwarded_for="append")
    async with origins("one") as servers:
        every = site("v1", {"": "shop"})
        wanted = Wanted(
            config([gateway(world.port), appending], [section("shop")]),
            servers={at("shop", "one"): server(servers["one"].port)},
            sites={host(): every, host(gateway="edge"): every},
        )
        await world.start(wanted)
        sent = []
        for port in (world.port, appending.port):
            told = ("X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 192.0.2.2", "X-Forwarded-Proto: https")
            await get(port, "/", "shop.example", "GET", *told)
            lines = servers["one"].heads[-1].lower().splitlines()
            sent.append([line.partition("-")[2] for line in lines if line.startswith("x-forwarded-")])
    client = "forwarded-for: 127.0.0.1"
    before = [f"forwarded-for: 192.0.2.{n}" for n in (1, 2)]
    assert [sorted(one) for one in sent] == [
        [client, "forwarded-proto: http"],
        sorted([client, *before, "forwarded-proto: http"]),
    ]


HOPS = {
    "named": (
        "Connection: X-Forwarded-For, X-Forwarded-Proto",
        "Connection: Keep-Alive, Host",
        "Keep-Alive: timeout=5",
    ),
    "trailers": ("Connection: TE", "TE: trailers"),
    "a proxy before": ("Proxy-Connection: keep-alive", "Proxy-Authorization: Basic eDp5"),
    "HTTP/2": ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"),
    "not named": ("Upgrade: foo",),
}
"""Headers that end at HAProxy, whatever a client says of them."""


@REAL
async def test_what_is_about_one_connection_ends_with_it(web: Web) -> None:
    """R27, and an upgrade to what no rule could look into."""
    world, servers, _ = web
    for origin in servers.values():
        origin.headers = ("Connection: Upgrade, X-C, Keep-Alive", "Upgrade: h2", "Keep-Alive: timeout=5", "X-C: c")
    for name, lines in HOPS.items():
        reply = await get(world.port, "/", "shop.example", "GET", *lines, "X-A: a")
        assert names(taken(servers)) == ["host", "x-a", "x-forwarded-for", "x-forwarded-proto"], name
        assert names(reply.head) == ["connection", "content-length", "x-c"], name
        assert "\r\nconnection: close\r\n" in reply.head
    sent = []
    for upgrade in ("foo/1", "foo/1, H2C"):
        await get(world.port, "/", "shop.example", "GET", "Connection: X-Forwarded-For, Upgrade", f"Upgrade: {upgrade}")
        sent.append(taken(servers))
    assert {"connection: upgrade", "upgrade: foo/1", "x-forwarded-for: 127.0.0.1"} <= {*sent[0].splitlines()}
    assert "h2c" not in sent[1].lower(), "3.0 leaves what stands beside it"


def taken(servers: Mapping[str, Origin]) -> str:
    """The head of the one request that came since the last one was taken."""
    (head,) = [head for origin in servers.values() for head in origin.heads]
    for origin in servers.values():
        origin.heads.clear()
    return head


def names(head: str) -> list[str]:
    return sorted(line.partition(":")[0].lower() for line in head.split("\r\n")[1:] if line)


@REAL
async def test_a_new_pool_is_one_reload_and_a_daemon_that_returns_sends_nothing(web: Web) -> None:
    """R12, R17."""
    world, servers, wanted = web
    world.runtime.sent.clear()
    pid = await world.worker()
    more = replace(
        wanted,
        config=config(
            [gateway(world.port)], [section("shop"), section("new", "leastconn", cookie="SRV")], ["h.x-user", "p"]
        ),
        digest="second",
        servers={**{key: row for key, row in wanted.servers.items() if key.section != "blog"},
                 at("new", "blog"): server(servers["blog"].port)},
        sites={host(): site("v2", {"": "shop", "/new": "new"})},
    )  # fmt: skip
    assert await world.settle(more) == []
    assert differences(await look(world.driver), more) == []
    reply = await world.get("/new")
    assert reply.body == "blog" and "set-cookie: SRV=" in reply.head
    assert await world.worker() != pid
    assert world.runtime.sent.count("reload") == 1
    more = replace(more, servers={**more.servers, at("new", "two"): server(servers["two"].port)})
    assert await world.settle(more) == []
    cookies = {(await world.get("/new")).head.partition("SRV=")[2].partition(";")[0] for _ in range(4)}
    assert len(cookies) == 2, "a server that was added has a cookie of its own too"
    bodies = {
        (await get(world.port, "/new", "shop.example", "GET", f"Cookie: SRV={min(cookies)}")).body for _ in "1234"
    }
    assert len(bodies) == 1
    await world.pass_time()
    world.restart_daemon()
    assert await world.settle(more) == []
    await world.pass_time()
    assert world.runtime.sent == []


async def test_two_reloads_are_two_seconds_apart(web: Web) -> None:
    world, _, wanted = web
    again = [replace(wanted, digest=name) for name in ("second", "third")]
    assert await world.settle(again[0]) == []
    (waiting,) = await world.settle(again[1])
    assert waiting.pending and waiting.reason.code == "haproxy_reload_waits"
    woken = world.woken
    await world.pass_time(2.5)
    assert world.woken > woken
    assert await world.settle(again[1]) == []
    assert differences(await look(world.driver), again[1]) == []


async def test_a_refused_configuration_is_said_in_haproxys_words_and_the_old_goes_on(web: Web) -> None:
    """R12. Two gateways of one address are nothing that names could show."""
    world, _, wanted = web
    pid, before = await world.worker(), world.files.config.read_text()
    assert wanted.config
    bad = replace(
        wanted,
        config=replace(wanted.config, gateways=(replace(gateway(world.port), tls=Tls(("missing",))),)),
        digest="bad",
        servers={**wanted.servers, at("shop", "two"): replace(wanted.servers[at("shop", "two")], state="maint")},
    )
    (refused,) = await world.settle(bad)
    assert refused.reason.code == "haproxy_refused" and "missing.pem" in refused.reason.text
    assert not refused.pending and refused.change.table == "http_engine"
    assert {(await world.get()).body for _ in range(4)} == {"one"}
    assert await world.worker() == pid
    assert [failure.reason for failure in await world.settle(bad)] == [refused.reason]
    await world.pass_time()
    assert 'description "anycastlb first ' in world.files.config.read_text()
    assert "two" in before and "disabled" in world.files.config.read_text()
    assert await world.settle(wanted) == []


async def test_a_site_is_not_switched_to_a_pool_that_haproxy_lacks(web: Web) -> None:
    world, _, wanted = web
    early = replace(wanted, sites={host(): site("v2", {"": "nowhere"})})
    (refused,) = await world.settle(early)
    assert refused.reason.code == "section_missing" and "pool nowhere" in refused.reason.text
    assert (await world.get()).status == 200


async def test_what_somebody_else_changes_is_repaired(web: Web) -> None:
    """R18."""
    world, _, wanted = web
    files = world.files
    for vandalism in (
        [
            "set server shop/one state maint",
            "set server shop/two weight 3",
            "set server blog/blog addr 127.0.0.9 port 9",
        ],
        [f"del map {files.map('site')} web|shop.example"],
        [f"set map {files.map('site')} web|shop.example p:t:else.0"],
        [f"clear map {files.map('next')}"],
        [f"clear map {files.map('leaf')}", f"clear map {files.map('do')}"],
        [f"add map {files.map('leaf')} >:v1.1 blog"],
        [f"set map {files.map('leaf')} >:v1.1 blog"],
        ["add server shop/stranger 127.0.0.1:9", "set server shop/stranger state ready"],
    ):
        await world.runtime.ask(vandalism)
        await world.pass_time(31.0)
        assert differences(await look(world.driver), wanted) != [], vandalism
        assert await world.settle(wanted) == []
        assert differences(await look(world.driver), wanted) == [], vandalism
        assert {(await world.get()).body for _ in range(4)} == {"one", "two"}, vandalism


async def test_a_bad_entry_stops_its_hostname_only(web: Web) -> None:
    """R25: whatever a document says, a command stays one command and a line of a map one line."""
    world, _, wanted = web
    good = site("v2", {"": "blog"})
    texts = ["a b", "a\nshow info", "a\n\nclear map 0", "\t", "", "é", "a\0"]
    bad = {
        **{host(f"h{place}.example"): HttpSite("p:t:v3.0", (MapEntry("next", f"p:t:v3.0|={text}", "!403"),))
           for place, text in enumerate(texts) if text},
        **{host(f"v{place}.example"): HttpSite("p:t:v4.0", (MapEntry("do", "p:t:v4.0|rule", text),))
           for place, text in enumerate(texts) if text != "a b"},
        host("a b"): good,
        host("re.example"): HttpSite(
            "p:0:v5.0:p5", (MapEntry("re0", r"\Ap5\|(", "1"), MapEntry("next", "p:0:v5.0:p5|", "!403"))
        ),
    }  # fmt: skip
    failures = await world.settle(replace(wanted, sites={**wanted.sites, **bad, host("good.example"): good}))
    assert {failure.change.key for failure in failures} == {*bad}
    assert {failure.reason.code for failure in failures} == {"haproxy_refused"}
    assert "missing closing parenthesis" in "".join(failure.reason.text for failure in failures)
    assert (await world.get(host="good.example")).body == "blog"
    assert (await world.get()).status == 200
    hostile = ['"; show info', "a\\b", "#x", "<<", "%[src]", "${HOME}", "'"]
    odd = {host(f"o{place}.example"): HttpSite(f"p:t:o{place}.0", (
        MapEntry("next", f"p:t:o{place}.0|", f">:o{place}.1"), MapEntry("leaf", f">:o{place}.1", "blog"),
        MapEntry("do", f">:o{place}.1|rule", f"{text} {text}"),
        MapEntry("next", f"p:t:o{place}.0|=/{text.replace(' ', '')}?", f">:o{place}.1"),
    )) for place, text in enumerate(hostile)}  # fmt: skip
    now = replace(wanted, sites={**wanted.sites, **odd})
    assert await world.settle(now) == []
    await world.pass_time(31.0)
    assert differences(await look(world.driver), now) == []
    assert await world.settle(wanted) == []  # and so all of these keys are deleted again
    await world.pass_time()
    left = await world.runtime.ask([f"show map {world.files.map(name)}" for name in ("next", "leaf", "do")])
    assert sum(len(text.splitlines()) for text in left) == len(wanted.sites[host()].entries)


@REAL
async def test_a_haproxy_that_is_away_starts_in_spite_of_a_bad_entry(world: World) -> None:
    """It would not with that entry in its files, and so it starts without rules, and is given the good ones then."""
    bad = (MapEntry("re0", r"\Ap5\|(", "1"), MapEntry("next", "p:0:v5.0:p5|", "!403"))
    async with origins("one") as servers:
        wanted = Wanted(
            config([gateway(world.port)], [section("shop")]),
            servers={at("shop", "one"): server(servers["one"].port)},
            sites={host(): site("v1", {"": "shop"}), host("bad.example"): HttpSite("p:0:v5.0:p5", bad)},
        )
        for _ in range(2):
            assert {failure.reason.code for failure in await world.settle(wanted)} == {"haproxy_away"}
        world.haproxy.start()
        await world.returned()
        (refused,) = await world.settle(wanted)
        assert refused.change.key == host("bad.example") and refused.reason.code == "haproxy_refused"
        assert (await get(world.port)).body == "one"


@REAL
async def test_after_a_reload_no_server_that_is_down_gets_a_request(web: Web) -> None:
    """R15, counted at the origin."""
    world, servers, wanted = web
    down = {
        at("shop", "two"): server(servers["two"].port, 7, "maint"),
        at("shop", "blog"): server(servers["blog"].port, 9, "drain"),
    }
    wanted = replace(wanted, servers={**wanted.servers, **down})
    assert await world.settle(wanted) == []
    async with loaded(world.port) as replies:
        for place in range(6):
            await eventually(partial(_longer, replies, len(replies) + 5))
            wanted = replace(wanted, digest=f"again-{place}")
            assert await world.settle(wanted) == []
            assert differences(await look(world.driver), wanted) == []
            world.skipped += 3
    assert {*replies} == {"one"}
    assert servers["two"].requests == servers["blog"].requests == 0


async def test_haproxy_away_is_empty_tables_and_refused_creations(web: Web) -> None:
    """And its end wakes the daemon at once, which R20 asks for."""
    world, _, wanted = web
    world.haproxy.kill()
    await eventually(lambda: world.woken)
    assert await look(world.driver) == NOTHING
    down = {at("shop", "one"): replace(wanted.servers[at("shop", "one")], state="maint")}
    wanted = replace(wanted, servers={**wanted.servers, **down})
    failures = await world.settle(wanted)
    assert {failure.change.table for failure in failures} == {*world.driver.tables} - {"http_certificates"}
    assert {failure.reason.text for failure in failures} == {
        "HAProxy is not running: systemctl status anycastlb-haproxy"
    }
    world.haproxy.start()
    await world.returned()
    assert await world.settle(wanted) == []
    assert {(await world.get()).body for _ in range(4)} == {"two"}


async def test_what_was_decided_without_haproxy_is_no_reload_of_one_that_is_back(web: Web) -> None:
    """R20: it was stopped, and the look that found it again came between the decision and its changes."""
    world, _, wanted = web
    pid, woken = await world.worker(), world.woken
    failures = await world.driver.apply(differences(NOTHING, wanted))
    assert {(failure.pending, failure.reason.code) for failure in failures} == {(True, "haproxy_otherwise")}
    assert world.woken > woken and world.runtime.sent == [] and await world.worker() == pid
    assert await world.settle(wanted) == []


async def test_what_was_decided_with_haproxy_is_not_what_one_that_is_gone_is_to_start_with(web: Web) -> None:
    """It is only what was to be changed."""
    world, _, wanted = web
    await world.pass_time()
    before = {file: file.read_text() for file in world.files.directory.iterdir()}
    changes = differences(await look(world.driver), replace(wanted, digest="second"))
    world.haproxy.kill()
    assert await look(world.driver) == NOTHING
    assert {failure.reason.code for failure in await world.driver.apply(changes)} == {"haproxy_otherwise"}
    assert {file: file.read_text() for file in world.files.directory.iterdir()} == before
    world.haproxy.start()
    await world.returned()
    assert differences(await look(world.driver), wanted) == []


async def test_files_that_somebody_else_has_damaged_do_not_keep_haproxy_from_starting(web: Web) -> None:
    """R20: nothing of the configuration is lost."""
    world, _, wanted = web
    assert await world.settle(wanted) == []
    await world.pass_time()
    world.files.config.write_text("global\n  nonsense\n")
    for name in ("site", "leaf"):
        world.files.map(name).write_text("")
    world.files.map("next").unlink()
    world.haproxy.kill()
    await world.settle(wanted)
    world.haproxy.start()
    await world.returned()
    assert differences(await look(world.driver), wanted) == []
    assert {(await world.get()).body for _ in range(4)} == {"one", "two"}


@REAL
async def test_a_stopped_haproxy_is_away_and_one_that_goes_on_is_back(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, _, wanted = web
    monkeypatch.setattr("anycastlb.adapters.drivers.haproxy.sockets.ANSWER", 0.2)
    world.haproxy.signal(signal.SIGSTOP)
    assert await look(world.driver) == NOTHING
    world.haproxy.signal(signal.SIGCONT)
    monkeypatch.undo()
    await world.returned()
    assert await world.settle(wanted) == []


@REAL
async def test_a_reload_by_somebody_else_is_seen(web: Web) -> None:
    world, servers, wanted = web
    wanted = replace(wanted, servers={**wanted.servers, at("shop", "blog"): server(servers["blog"].port, 10, "drain")})
    assert await world.settle(wanted) == []
    await world.pass_time()
    pid = await world.worker()
    assert await world.another_runtime().reload() == ""
    assert await world.settle(wanted) == []
    assert differences(await look(world.driver), wanted) == []
    assert await world.worker() != pid


@REAL
async def test_certificates_come_change_and_go_without_a_reload(world: World) -> None:
    authority = Authority(world.files.certificates)

    def issued(name: str) -> HttpCertificate:
        file = world.files.certificate(name)
        authority.issue(f"{name}.example").rename(file)
        return HttpCertificate(fingerprint(file.read_text()), ("web",))

    tls = replace(gateway(world.port), tls=Tls(("first",)))
    wanted = Wanted(config([tls], []), certificates={"first": issued("first")})
    await world.start(wanted)
    pid = await world.worker()
    for certificates in (
        {"first": wanted.certificates["first"], "second": issued("second")},
        {"first": wanted.certificates["first"], "second": issued("second")},
        {"first": issued("first"), "second": wanted.certificates["first"]},
    ):
        if "second" in certificates:
            certificates["second"] = HttpCertificate(
                fingerprint(world.files.certificate("second").read_text()), ("web",)
            )
        wanted = replace(wanted, certificates=certificates)
        assert await world.settle(wanted) == []
        assert differences(await look(world.driver), wanted) == []
        for name in certificates:
            assert await served(world.port, f"{name}.example") == certificates[name].fingerprint
    assert await served(world.port, "unknown.example") == wanted.certificates["first"].fingerprint
    world.files.certificate("second").write_text("rubbish")
    bad = replace(wanted, certificates={**wanted.certificates, "second": HttpCertificate("0" * 40, ("web",))})
    (refused,) = await world.settle(bad)
    assert refused.reason.code == "certificate_unusable"
    assert await served(world.port, "second.example") == wanted.certificates["second"].fingerprint
    gone = replace(wanted, certificates={"first": wanted.certificates["first"]})
    assert await world.settle(gone) == []
    assert await served(world.port, "second.example") == gone.certificates["first"].fingerprint
    await world.pass_time()
    assert world.files.certificate_list("web").read_text() == f"{world.files.certificate('first')}\n"
    assert await world.worker() == pid


async def test_without_gateways_nothing_is_served(web: Web) -> None:
    world, _, _ = web
    assert await world.settle(Wanted()) == []
    assert await look(world.driver) == NOTHING
    if isinstance(world.haproxy, MemoryHaproxy):
        assert (await world.get()).status == 404
    else:
        with pytest.raises(OSError):
            await world.get()
    await world.pass_time()
    world.restart_daemon()
    assert await world.settle(Wanted()) == []
    assert world.runtime.sent == []


async def test_what_can_wait_is_done_by_itself(web: Web) -> None:
    world, _, wanted = web
    world.restart_daemon(time.monotonic)
    async with begun(world.driver.run()):
        now = replace(wanted, sites={host(): site("v2", {"": "blog"})})
        assert await world.settle(now) == []
        await eventually(lambda: ":v1." not in world.files.map("next").read_text())
        assert ":v2." in world.files.map("next").read_text()


@REAL
async def test_a_master_that_cannot_be_reached_stops_reloads_only(web: Web) -> None:
    world, _, wanted = web
    world.files = replace(world.files, master=world.files.master.with_name("nowhere"))
    world.restart_daemon()
    down = {**wanted.servers, at("shop", "two"): replace(wanted.servers[at("shop", "two")], state="maint")}
    (refused,) = await world.settle(replace(wanted, digest="second", servers=down))
    assert refused.reason.code == "haproxy_master_away" and str(world.files.master) in refused.reason.text
    assert {(await world.get()).body for _ in range(4)} == {"one"}
    await world.pass_time()
    assert 'description "anycastlb first ' in world.files.config.read_text()


async def test_a_haproxy_with_another_configuration_is_left_alone(tmp_path: Path) -> None:
    """Nothing is sent to it but the reload, which does not help, and every change says so."""
    theirs, ours = haproxy.installation(tmp_path / "theirs", "/nowhere"), haproxy.installation(tmp_path, "/nowhere")
    engine = MemoryHaproxy(theirs)
    world = World(engine, ours, free_port())
    haproxy.write_empty_maps(theirs)
    theirs.config.write_text('global\n  description "web server of accounting"\n')
    engine.start()
    wanted = Wanted(
        config([gateway(world.port)], [section("shop")]),
        servers={at("shop", "one"): server(9)},
        sites={host(): site("v1", {"": "shop"})},
    )
    failures = await world.settle(wanted)
    assert [failure.reason.code for failure in failures] == ["haproxy_other_config"] * 3
    assert world.runtime.sent == ["reload"]


# ---------------------------------------------------------------- what tests ask of the served port


def _longer(replies: list[str], length: int) -> bool:
    return len(replies) > length


class loaded:
    """Requests, one after the other on connections that are kept alive, while the block lasts: their bodies."""

    def __init__(self, port: int) -> None:
        self._port, self._bodies = port, list[str]()

    async def __aenter__(self) -> list[str]:
        self._ended = False
        self._running = asyncio.ensure_future(self._run())  # noqa: TID251
        return self._bodies

    async def __aexit__(self, *_: object) -> None:
        self._ended = True
        await self._running

    async def _run(self) -> None:
        while not self._ended:
            self._bodies.append((await get(self._port)).body)


async def served(port: int, name: str) -> str:
    """The fingerprint of the certificate that is sent for a name."""
    import hashlib
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return hashlib.sha1(der).hexdigest()
