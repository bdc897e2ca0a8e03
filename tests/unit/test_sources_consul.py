"""The Consul source against a server that misbehaves in every way a real one will not on demand."""

from __future__ import annotations

import asyncio
import gc
import json
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from anycastlb.adapters.consul import session
from anycastlb.adapters.consul.blocking_query import SPACING
from anycastlb.adapters.sources import staging
from anycastlb.adapters.sources.consul import PARTS, READABLE, ConsulSource
from anycastlb.core.model import SourceError, Tree
from anycastlb.settings import ConsulSettings
from tests.support.consul_server import KV, PATIENCE, Request, Server, answer, keys, listening
from tests.support.waiting import begun, eventually


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with listening() as server:
        yield server


@asynccontextmanager
async def opened(server: Server, **settings: Any) -> AsyncIterator[ConsulSource]:
    source = ConsulSource(ConsulSettings(address=server.address, **settings))
    try:
        yield source
    finally:
        await source.close()


async def following(source: ConsulSource, after: Tree | None) -> Tree:
    async with asyncio.timeout(PATIENCE):
        return await source.read(after)


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def values(tree: Tree) -> dict[str, bytes]:
    return {key: entry.value for key, entry in tree.entries.items()}


ITEM = {"Key": "anycastlb/services/web", "Value": "e30=", "CreateIndex": 1}
BAD = {
    "no leader": answer("No cluster leader", None, 500),
    "bad gateway": answer("<html>", None, 502),
    "too many requests": answer("", None, 429),
    "not JSON": answer("{nonsense"),
    "empty body": answer(""),
    "not UTF-8": answer(b"\xff\xfe[]"),
    "an object": answer('{"a": 1}'),
    "a string": answer('"anycastlb/services/web"'),
    "a number": answer("7"),
    "numbers": answer("[1, 2]"),
    "no key": answer(json.dumps([{"Value": "e30=", "CreateIndex": 1}])),
    "no value": answer(json.dumps([{"Key": "anycastlb/services/web", "CreateIndex": 1}])),
    "no age": answer(json.dumps([{"Key": "anycastlb/services/web", "Value": "e30="}])),
    "age in words": answer(json.dumps([ITEM | {"CreateIndex": "old"}])),
    "key a number": answer(json.dumps([ITEM | {"Key": 5}])),
    "value a number": answer(json.dumps([ITEM | {"Value": 5}])),
    "value no base64": answer(json.dumps([ITEM | {"Value": "e30"}])),
    "value not ASCII": answer(json.dumps([ITEM | {"Value": "ü==="}])),
    "another's key": answer(json.dumps([ITEM | {"Key": "anycastlb2/services/web"}])),
    "deep": answer("[" * 100_000),
    "no index": answer(json.dumps([ITEM]), None),
    "index in words": answer(json.dumps([ITEM]), "soon"),
    "nothing, and no index": answer("", None, 404),
    "elsewhere": answer("", 1, 302, Location="http://192.0.2.1/"),
    "no content": answer("", 1, 204),
    "cut short": b"HTTP/1.1 200 OK\r\nX-Consul-Index: 1\r\nContent-Length: 1000\r\n\r\n[{HANG UP",
    "cut in a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n[HANG UP",
    "not HTTP": b"SSH-2.0-OpenSSH\r\nHANG UP",
    "nothing at all": b"HANG UP",
    "hidden keys": answer("", 1, 404, X_Consul_Results_Filtered_By_ACLs="true"),
    "some hidden keys": answer(json.dumps([ITEM | {"ModifyIndex": 1}]), 1, X_Consul_Results_Filtered_By_ACLs="true"),
    "an empty object": answer("{}"),
    "null": answer("null"),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
async def test_a_bad_answer_is_an_error_and_a_good_one_after_it_is_read(server: Server, bad: bytes) -> None:
    async with opened(server) as source:
        server.script = lambda request: bad
        with pytest.raises(SourceError) as raised:
            await following(source, None)
        assert "Consul" in str(raised.value) and len(str(raised.value)) < 700
        with pytest.raises(SourceError):
            await following(source, Tree(index=1))
        server.script = lambda request: keys(7, services__web="{}")
        tree = await following(source, None)
        assert (values(tree), tree.index) == ({"services/web": b"{}"}, 7)


async def test_a_forbidden_read_says_which_policy_is_needed(server: Server) -> None:
    server.script = lambda request: answer("Permission denied", None, 403)
    async with opened(server, prefix="team/lb") as source:
        with pytest.raises(SourceError, match=r'403 Permission denied; .* reads key_prefix "team/lb/"'):
            await following(source, None)


async def test_a_refusal_of_a_proxy_is_not_taken_for_consuls(server: Server) -> None:
    server.script = lambda request: answer("<html>Unauthorized</html>", None, 401)
    async with opened(server) as source:
        with pytest.raises(SourceError, match=r"401 .*Unauthorized.*is there a proxy in front of it") as refused:
            await following(source, None)
        assert "ACLDisabled" not in str(refused.value)


async def test_a_list_without_the_keys_that_are_hidden_is_none(server: Server) -> None:
    """As Consul answers from 1.11 on to a token that may read a part only."""
    hidden = answer(json.dumps([ITEM | {"ModifyIndex": 1}]), 1, X_Consul_Results_Filtered_By_ACLs="true")
    server.script = lambda request: hidden
    async with opened(server) as source:
        with pytest.raises(SourceError, match=r'hidden from this token.*consul\.token_file.* reads key_prefix "anyc'):
            await following(source, None)


async def test_a_lost_key_is_asked_for_by_itself(server: Server) -> None:
    """Older ones do not say so, but refuse to answer for a hidden key; of one that is gone they know nothing."""
    both, one = keys(1, services__web="{}", services__dns="{}"), keys(2, services__web="{}")
    alone: list[bytes] = [answer("Permission denied", None, 403)]
    asked: list[str] = []

    def script(request: Request) -> bytes | None:
        if request.path.endswith("services/dns"):
            asked.append(request.path)
            return alone[-1]
        return (None if request.names else answer("[]", 2)) if request.waits else lists[-1]

    lists = [both]
    server.script = script
    async with opened(server) as source:
        whole = await following(source, None)
        lists.append(one)
        with pytest.raises(
            SourceError, match=r'403 Permission denied; expected a token .* reads key_prefix "anycastlb/"'
        ):
            await following(source, whole)
        alone.append(answer("", 2, 404))
        assert values(await following(source, whole)) == {"services/web": b"{}"}
    assert asked == ["/v1/kv/anycastlb/services/dns"] * 2


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_endless_answer_is_broken_off(server: Server, monkeypatch: pytest.MonkeyPatch, chunked: bool) -> None:
    monkeypatch.setattr(session, "MAX_BYTES", 100_000)
    head = b"Transfer-Encoding: chunked\r\n\r\n" if chunked else b"Content-Length: 1000000000\r\n\r\n"
    piece = b" " * 4096
    server.script = lambda request: (
        b"HTTP/1.1 200 OK\r\nX-Consul-Index: 1\r\n" + head + 100 * (b"1000\r\n" + piece + b"\r\n" if chunked else piece)
    )
    async with opened(server) as source:
        with pytest.raises(SourceError, match="larger than 100000 bytes"):
            await following(source, None)


async def test_a_silent_server_is_an_error(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "ANSWER", 0.1)
    server.script = lambda request: None
    async with opened(server, wait="100ms") as source:
        with pytest.raises(SourceError, match="no answer within"):
            await following(source, None)
        with pytest.raises(SourceError, match="no answer within"):
            await following(source, Tree(index=1))


async def test_a_server_that_drips_is_an_error(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "ANSWER", 0.1)
    server.script = lambda request: b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n["
    async with opened(server) as source:
        with pytest.raises(SourceError, match="no answer within"):
            await following(source, None)


async def test_nobody_listens() -> None:
    source = ConsulSource(ConsulSettings(address="http://127.0.0.1:1"))
    with pytest.raises(SourceError, match=r"Consul at http://127\.0\.0\.1:1: .*expected an agent that answers there"):
        await following(source, None)
    await source.close()


@pytest.mark.parametrize("address", ["http://127.0.0.1:99999", "http://[::1", "http://:8500", "http://a..b:1"])
async def test_an_address_that_is_none(address: str) -> None:
    source = ConsulSource(ConsulSettings(address=address))
    with pytest.raises(SourceError, match=r"Consul at http://"):
        await following(source, None)
    await source.close()


async def test_a_redirection_is_not_followed(server: Server, tmp_path: Path) -> None:
    """It would carry the token to whoever is named there."""
    token = tmp_path / "token"
    token.write_text("secret")
    server.script = lambda request: answer("", 1, 302, Location=f"{server.address}/elsewhere")
    async with opened(server, token_file=str(token)) as source:
        with pytest.raises(SourceError, match=r"HTTP 302; expected 200: is this a Consul agent\?"):
            await following(source, None)
    assert [request.path for request in server.requests] == [KV]


async def test_null_is_an_empty_value(server: Server) -> None:
    server.script = lambda request: keys(services__web=None)
    async with opened(server) as source:
        assert values(await following(source, None)) == {"services/web": b""}


async def test_a_misspelt_key_is_read_and_a_node_s_status_is_not(server: Server) -> None:
    names = ("services__web", "nodes__lb1", "services__", "drain__", "defaults2", "other", "drain__lb2", "defaults")
    server.script = lambda request: keys(**dict.fromkeys(names, "x"))
    async with opened(server) as source:
        entries = set((await following(source, None)).entries)
    assert entries == {"services/web", "drain/lb2", "defaults", "defaults2", "other"}


EVERY_PART = {
    "services__web": "x", "gateways__web": "x", "routes__shop": "x",
    "defaults": "x", "drain__lb2": "x", "import__commit": "x",
}  # fmt: skip


async def test_every_prefix_ends_with_a_slash(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "in_force", lambda entries: entries)
    server.script = lambda request: None if request.waits else keys(2, **EVERY_PART)
    async with opened(server) as source:
        tree = await following(source, None)
        async with begun(source.read(tree)):
            await eventually(lambda: len([request for request in server.requests if request.waits]) == len(PARTS) + 1)
    asked = [request for request in server.requests if request.waits or request.path == KV]
    paths = {(request.path, "recurse" in request.query or "keys" in request.query) for request in asked}
    folders = {(KV + f"{kind}/", True) for kind in ("services", "gateways", "routes", "drain")}
    assert paths == {(KV, True), *folders, (KV + "defaults", False), (KV + "import/commit", False)}


async def test_a_folder_without_keys_is_waited_for_and_read_once(server: Server) -> None:
    """As Consul's own page makes one."""

    def script(request: Request) -> bytes | None:
        if request.names:
            asked = [other.names for other in server.requests].count(True)
            listed = json.dumps([KV.removeprefix("/v1/kv/") + part for part in ("drain/", "services/")])
            return answer(listed, 5 + asked) if asked < 4 else None
        return None if request.waits else keys(5, services__web="x", drain__="")

    server.script = script
    async with opened(server) as source:
        tree = await following(source, None)
        async with begun(source.read(tree)):
            await eventually(lambda: [request.names for request in server.requests].count(True) == 4)
        assert any(request.waits and request.path.endswith("drain/") for request in server.requests)
        assert source.reads == 2


@pytest.mark.parametrize("index", [0, -5])
async def test_an_index_below_one_would_not_block(server: Server, index: int) -> None:
    server.script = lambda request: keys(index, services__web="x")
    async with opened(server) as source:
        assert (await following(source, None)).index == 1


async def test_a_part_that_is_deleted_from_above_is_noticed_at_once(server: Server) -> None:
    """Consul leaves the queries below what was deleted waiting; only a list of the names above shows it."""
    gone = False

    def script(request: Request) -> bytes | None:
        if request.names:
            return answer("", 9, 404) if gone else None
        if request.waits:
            return None
        return answer("", 9, 404) if gone else keys(5, services__web="x")

    server.script = script
    async with opened(server) as source:
        tree = await following(source, None)
        gone = True
        assert not (await following(source, tree)).entries


@pytest.mark.parametrize("body", ['[{"Key": "x"}]', '"anycastlb/services/"', "7"])
async def test_a_list_of_names_that_is_none_is_an_error(server: Server, body: str) -> None:
    server.script = lambda request: (
        answer(body, 7) if request.names else None if request.waits else keys(services__w="x")
    )
    async with opened(server) as source:
        tree = await following(source, None)
        with pytest.raises(SourceError):
            await following(source, tree)


class TestLoss:
    """A change of leader can make an answer lack keys: a loss is asked for again, consistently."""

    FULL = staticmethod(lambda: keys(5, services__a="x", services__b="x"))

    async def test_a_stale_answer_is_no_loss(self, server: Server) -> None:
        stale = 0

        def script(request: Request) -> bytes | None:
            nonlocal stale
            if "consistent" in request.query:
                return self.FULL()
            if stale >= 3:
                return None
            if request.waits:
                return keys(9, services__a="x") if request.path.endswith("services/") else None
            if request.path != KV:
                return answer("", 5, 404)
            stale += 1
            return (keys(9, services__a="x"), keys(9), answer("[]", 9))[stale - 1]

        server.script = script
        async with opened(server) as source:
            tree = await following(source, None)
            async with begun(source.read(tree)):
                await eventually(lambda: stale == 3 and server.requests[-1].waits)

    async def test_a_loss_that_is_consistent_is_told(self, server: Server) -> None:
        server.script = lambda request: self.FULL()
        async with opened(server) as source:
            tree = await following(source, None)
            server.requests.clear()
            server.script = lambda request: keys(9, services__a="x")
            assert set((await following(source, tree)).entries) == {"services/a"}
        assert "consistent" in [request.query for request in server.requests if request.path == KV][-1]

    async def test_a_first_read_is_consistent(self, server: Server) -> None:
        async with opened(server) as source:
            await following(source, None)
        assert ["consistent" in request.query for request in server.requests if request.path == KV] == [True]

    async def test_once_it_is_asked_whether_the_token_reads_every_part(self, server: Server) -> None:
        async with opened(server) as source:
            await following(source, None)
            await following(source, None)
        assert [request.path for request in server.requests if request.path != KV] == [KV + key for key in READABLE]


class TestIndex:
    async def test_one_that_goes_backwards_is_followed(self, server: Server) -> None:
        """Whatever a query answered, the next waits with the index of the latest whole read."""
        waited: list[str] = []

        def script(request: Request) -> bytes | None:
            if not request.waits:
                return keys(12 if waited else 5000, services__web="same")
            if request.path.endswith("services/"):
                waited.append(request.query["index"])
                return keys(3, services__web="same") if len(waited) == 1 else None
            return None

        server.script = script
        async with opened(server) as source:
            tree = await following(source, None)
            async with begun(source.read(tree)):
                await eventually(lambda: len(waited) == 2)
        assert waited == ["5000", "12"]

    async def test_nothing_where_there_was_nothing_is_no_news(self, server: Server) -> None:
        """Consul's index of what does not exist is that of the whole store: it grows with everybody's writes."""
        growing = 10

        def script(request: Request) -> bytes | None:
            nonlocal growing
            if not request.waits:
                return keys(10, services__web="x", import__left="x")
            if request.path.endswith("services/") or request.names:
                return None
            growing += 1
            return keys(growing)

        server.script = script
        async with opened(server) as source:
            tree = await following(source, None)

            def waited() -> list[int]:
                record = [request for request in server.requests if request.path.endswith(staging.RECORD)]
                return [int(request.query["index"]) for request in record if request.waits]

            started = asyncio.get_running_loop().time()
            async with begun(source.read(tree)):
                await eventually(lambda: len(waited()) > 3)
            assert source.reads == 1
            assert asyncio.get_running_loop().time() - started >= 3 * SPACING * 0.9, "it keeps its distance"
        assert waited() == sorted(waited()) and waited()[0] == 10

    async def test_an_unchanged_index_leads_to_a_plain_read(self, server: Server) -> None:
        """Time was up: the tree is read again, which heals what a missed wake-up would have left."""
        value = "old"

        def script(request: Request) -> bytes | None:
            return keys(10, services__web=value if not request.waits else "x")

        server.script = script
        async with opened(server) as source:
            tree = await following(source, None)
            value = "new"
            assert values(await following(source, tree)) == {"services/web": b"new"}

    async def test_a_failing_query_fails_the_read(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(staging, "in_force", lambda entries: entries)
        for part in (*PARTS[:-1], staging.RECORD):
            server.script = lambda request, part=part: (  # type: ignore[misc]
                (answer("No cluster leader", None, 500) if request.path.endswith(part) else None)
                if request.waits
                else keys(10, **EVERY_PART)
            )
            async with opened(server) as source:
                tree = await following(source, None)
                with pytest.raises(SourceError, match="No cluster leader"):
                    await following(source, tree)


class TestCredentials:
    async def test_token_namespace_and_datacenter(self, server: Server, tmp_path: Path) -> None:
        token = tmp_path / "token"
        token.write_text("first\n")
        async with opened(server, token_file=str(token), namespace="team", datacenter="dc7") as source:
            await following(source, None)
            token.write_text("second\n")
            await following(source, None)
            token.unlink()
            with pytest.raises(SourceError, match=r"consul\.token_file"):
                await following(source, None)
        lists = [request.headers["x-consul-token"] for request in server.requests if request.path == KV]
        assert lists == ["first", "second"]
        assert {request.headers["x-consul-namespace"] for request in server.requests} == {"team"}
        assert {request.query["dc"] for request in server.requests} == {"dc7"}

    async def test_the_environment_changes_nothing(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        """node.toml says where Consul is; the library would rather believe these."""
        monkeypatch.setenv("CONSUL_HTTP_ADDR", "nonsense:::")
        monkeypatch.setenv("CONSUL_HTTP_TOKEN", "secret")
        monkeypatch.setenv("CONSUL_HTTP_SSL", "true")
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        async with opened(server) as source:
            await following(source, None)
        assert "x-consul-token" not in server.requests[0].headers


async def test_one_connection_serves_a_thousand_reads(server: Server) -> None:
    async with opened(server) as source:
        for _ in range(1000):
            await source.read(None)
        assert server.connections == 1


async def test_cancelled_waits_leave_no_connection(server: Server) -> None:
    async with opened(server) as source:
        tree = await following(source, None)
        before = descriptors()
        for _ in range(20):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await source.read(tree)
        server.close()
        await eventually(lambda: descriptors() <= before)


def test_made_outside_a_loop_and_dropped_without_a_word() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        source = ConsulSource(ConsulSettings(address="http://127.0.0.1:1"))
        with pytest.raises(SourceError):
            asyncio.run(source.read(None))
        asyncio.run(source.close())
        del source
        gc.collect()
