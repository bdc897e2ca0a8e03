"""The Consul source against a real Consul: latency, restarts, lost data, hangs, ACLs and TLS."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from anycastlb.adapters.checks import PARAMS
from anycastlb.adapters.sources.consul import SPACING, ConsulSource
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.model import Catalog, Feed, SourceError, Tree
from anycastlb.engine.catalog_parser import CatalogParts
from anycastlb.engine.follower import Follower
from anycastlb.settings import ConsulSettings, parse
from tests.support.consul import Agent, under_acl

PATIENCE = 180.0


@asynccontextmanager
async def opened(address: str, **settings: Any) -> AsyncIterator[ConsulSource]:
    source = ConsulSource(ConsulSettings(address=address, **settings))
    try:
        yield source
    finally:
        await source.close()


@pytest.fixture
async def source(agent: Agent) -> AsyncIterator[ConsulSource]:
    async with opened(agent.address) as source:
        yield source


async def following(source: ConsulSource, after: Tree | None) -> Tree:
    async with asyncio.timeout(PATIENCE):
        return await source.read(after)


def values(tree: Tree) -> dict[str, str]:
    return {key: entry.value.decode() for key, entry in tree.entries.items()}


def sockets() -> int:
    """Open sockets of this process."""
    return sum(_target(link).startswith("socket:") for link in Path("/proc/self/fd").iterdir())


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""  # closed meanwhile


async def test_a_change_is_seen_at_once(agent: Agent, source: ConsulSource, capsys: pytest.CaptureFixture[str]) -> None:
    agent.put("anycastlb/services/web", "0")
    for number in range(200):
        agent.put(f"anycastlb/services/s{number % 100}/backends/b{number // 100}", "weight=1")
    tree = await following(source, None)
    took = []
    for number in range(1, 11):
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(following(source, tree))
            await asyncio.sleep(2 * SPACING)
            start = time.perf_counter()
            await asyncio.to_thread(agent.put, "anycastlb/services/web", str(number))
            tree = await reading
            took.append(time.perf_counter() - start)
        assert values(tree)["services/web"] == str(number)
    with capsys.disabled():
        print(
            f"\n  201 keys, put to tree: median {statistics.median(took) * 1e3:.1f} ms, most {max(took) * 1e3:.1f} ms"
        )


async def test_a_storm_of_writes_is_read_together(agent: Agent, source: ConsulSource) -> None:
    tree = await following(source, None)
    reads, start = source.reads, time.monotonic()
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.to_thread(lambda: [agent.put(f"anycastlb/services/s{n}", "x") for n in range(300)]))
        while len(tree.entries) < 300:
            tree = await following(source, tree)
    assert source.reads - reads <= (time.monotonic() - start) / SPACING + 2


async def test_other_nodes_status_wakes_nobody(agent: Agent, source: ConsulSource) -> None:
    """Neither while ``drain/`` and ``defaults`` exist, nor while they do not."""
    agent.put("anycastlb/services/web", "{}")
    for turn in range(2):
        tree = await following(source, None)
        reads = source.reads
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(following(source, tree))
            for number in range(100):
                await asyncio.to_thread(agent.put, f"anycastlb/nodes/lb{number % 7}", str(number))
            assert source.reads == reads and not reading.done()
            await asyncio.to_thread(agent.put, "anycastlb/services/web", f"turn {turn}")
        assert values(reading.result())["services/web"] == f"turn {turn}"
        agent.put("anycastlb/defaults", "{}")
        agent.put("anycastlb/drain/lb1", "")


async def test_a_neighbouring_prefix_is_not_ours(agent: Agent, source: ConsulSource) -> None:
    agent.put("anycastlb2/services/theirs", "{}")
    agent.put("anycastlb/services/ours", "{}")
    agent.put("anycastlb/services/", "")  # a folder, as Consul's web page makes them
    agent.put("anycastlb/defaults2", "{}")
    tree = await following(source, None)
    assert values(tree) == {"services/ours": "{}", "defaults2": "{}"}
    reads = source.reads
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(source.read(tree))
        await asyncio.to_thread(lambda: [agent.put(f"anycastlb2/services/s{n}", "{}") for n in range(50)])
        assert source.reads == reads and not reading.done()
        await asyncio.to_thread(agent.delete, "anycastlb/services/ours")
        assert values(await reading) == {"defaults2": "{}"}


async def test_values_of_every_kind(agent: Agent, source: ConsulSource) -> None:
    noise = os.urandom(512 * 1024)
    agent.put("anycastlb/services/empty", b"")
    agent.put("anycastlb/services/noise", noise)
    agent.put("anycastlb/services/text", "ü")
    entries = (await following(source, None)).entries
    assert {key: entry.value for key, entry in entries.items()} == {
        "services/empty": b"",
        "services/noise": noise,
        "services/text": "ü".encode(),
    }


async def test_age_is_the_create_index(agent: Agent, source: ConsulSource) -> None:
    for name in ("b", "a", "c"):
        agent.put(f"anycastlb/services/web/backends/{name}", "1")
    agent.put("anycastlb/services/web/backends/b", "2")
    first = (await following(source, None)).entries
    assert [key[-1] for key in sorted(first, key=lambda key: first[key].created)] == ["b", "a", "c"]
    agent.delete("anycastlb/services/web/backends/b")
    agent.put("anycastlb/services/web/backends/b", "2")
    again = (await following(source, None)).entries
    assert [key[-1] for key in sorted(again, key=lambda key: again[key].created)] == ["a", "c", "b"]


async def test_the_newest_key_is_deleted(agent: Agent, source: ConsulSource) -> None:
    agent.put("anycastlb/services/old", "{}")
    agent.put("anycastlb/services/new", "{}")
    tree = await following(source, None)
    agent.delete("anycastlb/services/new")
    tree = await following(source, tree)
    assert values(tree) == {"services/old": "{}"}
    agent.put("anycastlb/services/old", "[]")
    assert values(await following(source, tree)) == {"services/old": "[]"}


async def test_the_index_goes_backwards_when_a_snapshot_is_restored(agent: Agent, source: ConsulSource) -> None:
    agent.put("anycastlb/services/web", "old")
    snapshot = agent.call("GET", "/v1/snapshot")
    for number in range(50):
        agent.put("anycastlb/services/web", f"new {number}")
    before = await following(source, None)
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(following(source, before))
        await asyncio.sleep(0.2)
        await asyncio.to_thread(agent.call, "PUT", "/v1/snapshot", snapshot)
    tree = reading.result()
    assert values(tree) == {"services/web": "old"}
    assert tree.index < before.index
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(following(source, tree))
        await asyncio.sleep(0.2)
        await asyncio.to_thread(agent.put, "anycastlb/services/web", "after")
    assert values(reading.result()) == {"services/web": "after"}


async def test_the_agent_dies_and_comes_back_with_nothing(agent: Agent, source: ConsulSource) -> None:
    for number in range(30):
        agent.put(f"anycastlb/services/s{number}", "{}")
    before = await following(source, None)
    async with asyncio.TaskGroup() as group:

        async def fails() -> None:
            with pytest.raises(SourceError, match=r"Consul at http://127\.0\.0\.1"):
                await following(source, before)

        group.create_task(fails())
        await asyncio.sleep(0.2)
        agent.kill()
    with pytest.raises(SourceError):
        await following(source, None)
    await asyncio.to_thread(agent.start, empty=True)
    tree = await following(source, None)
    assert values(tree) == {}
    agent.put("anycastlb/services/web", "{}")
    assert values(await following(source, tree)) == {"services/web": "{}"}


async def test_a_hanging_agent_is_an_error_and_no_loss(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anycastlb.adapters.consul.session.ANSWER", 0.5)
    agent.put("anycastlb/services/web", "1")
    async with opened(agent.address, wait="500ms") as source:
        tree = await following(source, None)
        agent.freeze()
        try:
            with pytest.raises(SourceError, match="no answer within"):
                await following(source, tree)
            with pytest.raises(SourceError, match="no answer within"):
                await following(source, None)
        finally:
            agent.thaw()
        agent.put("anycastlb/services/web", "2")
        assert values(await following(source, tree)) == {"services/web": "2"}


async def test_nothing_leaks_over_hundreds_of_reads(agent: Agent, source: ConsulSource) -> None:
    agent.put("anycastlb/services/web", "0")
    tree = await following(source, None)
    for number in range(10):
        await asyncio.to_thread(agent.put, "anycastlb/services/web", f"warm {number}")
        tree = await following(source, tree)
    before = sockets()
    for _ in range(300):
        await source.read(None)
    for number in range(30):
        await asyncio.to_thread(agent.put, "anycastlb/services/web", str(number))
        tree = await following(source, tree)
    assert sockets() <= before + 4  # what a pool may keep open: one read and three waits
    await source.close()
    await asyncio.sleep(0.1)
    assert sockets() <= before


class TestFollowed:
    """The whole way, from the key to the catalog: a real Consul under a follower."""

    SETTINGS = """
        [node]
        vip_ranges = ["192.0.2.0/24"]
        state_dir = "{state}"
        [catalog]
        confirm = "never"
        [consul]
        address = "{address}"
    """

    async def test_lost_data_is_held_and_never_believed_unconfirmed(self, agent: Agent, tmp_path: Path) -> None:
        seen: list[tuple[Catalog, Feed]] = []
        settings = parse(self.SETTINGS.format(address=agent.address, state=tmp_path / "state"))
        source = ConsulSource(settings.consul)
        follower = Follower(CatalogParts(source, PARAMS), settings, lambda *now: seen.append(now), Journal())

        async def until(what: Callable[[Catalog, Feed], bool]) -> tuple[Catalog, Feed]:
            async with asyncio.timeout(PATIENCE):
                while not (seen and what(*seen[-1])):
                    await asyncio.sleep(0.01)
            return seen[-1]

        for number in range(1, 6):
            agent.put(f"anycastlb/services/s{number}", json.dumps({"vip": f"192.0.2.{number}", "port": 80}))
        async with asyncio.TaskGroup() as group:
            running = group.create_task(follower.run())
            await until(lambda catalog, feed: feed.connected and len(catalog.vips) == 5)
            agent.kill()
            catalog, _ = await until(lambda catalog, feed: not feed.connected)
            assert len(catalog.vips) == 5
            await asyncio.to_thread(agent.start, empty=True)
            catalog, feed = await until(lambda catalog, feed: feed.held is not None)
            assert feed.connected and len(catalog.vips) == 5
            for number in range(1, 6):
                document = json.dumps({"vip": f"192.0.2.{number}", "port": 81})
                await asyncio.to_thread(agent.put, f"anycastlb/services/s{number}", document)
            catalog, feed = await until(lambda catalog, feed: feed.held is None)
            await until(lambda catalog, feed: [service.port for service in catalog.services] == [81] * 5)
            await asyncio.to_thread(agent.delete, "anycastlb/services/", True)
            await until(lambda catalog, feed: feed.held is not None and len(feed.held.lost) == 5)
            assert follower.confirm()
            catalog, feed = await until(lambda catalog, feed: feed.held is None)
            assert catalog.vips == frozenset()
            running.cancel()
        await source.close()
        assert min(len(catalog.vips) for catalog, feed in seen if feed.loaded) == 0
        emptied = [number for number, (catalog, feed) in enumerate(seen) if feed.loaded and not catalog.vips]
        assert emptied == [len(seen) - 1]  # only the confirmed one


class TestAcl:
    @pytest.fixture
    def agent(self, require: Callable[[str], str], tmp_path: Path) -> Iterator[Agent]:
        with under_acl(require("consul"), tmp_path) as agent:
            yield agent

    async def test_the_token_is_reread_when_it_changes(self, agent: Agent, tmp_path: Path) -> None:
        rules = 'key_prefix "anycastlb/" { policy = "read" }'
        policy = {"Name": "lb", "Rules": rules}
        agent.call("PUT", "/v1/acl/policy", json.dumps(policy))
        made = json.loads(agent.call("PUT", "/v1/acl/token", json.dumps({"Policies": [{"Name": "lb"}]})))
        agent.put("anycastlb/services/web", "{}")
        token = tmp_path / "token"
        token.write_text("5f0c1c9e-2f3a-4b5e-9d3c-00000000dead")
        async with opened(agent.address, token_file=str(token)) as source:
            with pytest.raises(SourceError, match=r"403 .*expected a token .consul.token_file."):
                await following(source, None)
            token.write_text(made["SecretID"] + "\n")
            tree = await following(source, None)
            assert values(tree) == {"services/web": "{}"}
            agent.put("anycastlb/services/web", "[]")
            assert values(await following(source, tree)) == {"services/web": "[]"}


@pytest.fixture(scope="module")
def pems(require: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``ca``, ``other-ca``, ``server`` and ``client`` (by ca), ``stranger`` (by other-ca), each .pem and .key."""
    openssl, folder = require("openssl"), tmp_path_factory.mktemp("pems")

    def run(*argv: str) -> None:
        subprocess.run([openssl, *argv], cwd=folder, check=True, capture_output=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    for name in ("ca", "other-ca"):
        run("req", "-x509", *curve, "-days", "2", "-subj", f"/CN={name}", "-keyout", f"{name}.key",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-out", f"{name}.pem")  # fmt: skip
    (folder / "extensions").write_text(
        "subjectAltName=IP:127.0.0.1,DNS:localhost\nkeyUsage=digitalSignature\nauthorityKeyIdentifier=keyid\n"
    )
    for name, issuer in (("server", "ca"), ("client", "ca"), ("stranger", "other-ca")):
        run("req", *curve, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        run("x509", "-req", "-in", f"{name}.csr", "-CA", f"{issuer}.pem", "-CAkey", f"{issuer}.key",
            "-CAcreateserial", "-days", "2", "-extfile", "extensions", "-out", f"{name}.pem")  # fmt: skip
    return folder


class TestTls:
    @pytest.fixture
    def agent(self, require: Callable[[str], str], tmp_path: Path, pems: Path) -> Iterator[Agent]:
        agent = Agent(
            require("consul"), tmp_path, verify_incoming_https=True, ca_file=str(pems / "ca.pem"),
            cert_file=str(pems / "server.pem"), key_file=str(pems / "server.key"),
        )  # fmt: skip
        agent.start()
        agent.put("anycastlb/services/web", "{}")
        yield agent
        agent.kill()

    async def test_only_with_the_right_certificates(self, agent: Agent, pems: Path) -> None:
        address = f"https://127.0.0.1:{agent.https}"
        ca, client, key = str(pems / "ca.pem"), str(pems / "client.pem"), str(pems / "client.key")
        refused = [
            {},
            {"ca_file": ca},
            {"ca_file": str(pems / "other-ca.pem"), "cert_file": client, "key_file": key},
            {"ca_file": ca, "cert_file": str(pems / "stranger.pem"), "key_file": str(pems / "stranger.key")},
            {"ca_file": ca, "cert_file": client, "key_file": str(pems / "stranger.key")},
            {"ca_file": ca, "cert_file": client, "key_file": str(pems / "missing.key")},
            {"ca_file": str(pems / "client.key")},
        ]
        for files in refused:
            async with opened(address, **files) as source:
                with pytest.raises(SourceError):
                    await following(source, None)
        async with opened(address, ca_file=ca, cert_file=client, key_file=key) as source:
            tree = await following(source, None)
            assert values(tree) == {"services/web": "{}"}
            agent.put("anycastlb/services/web", "[]")
            assert values(await following(source, tree)) == {"services/web": "[]"}

    async def test_a_renewed_certificate_is_used_without_a_restart(
        self, agent: Agent, pems: Path, tmp_path: Path
    ) -> None:
        cert, key = tmp_path / "cert.pem", tmp_path / "cert.key"
        shutil.copy(pems / "stranger.pem", cert)
        shutil.copy(pems / "stranger.key", key)
        files = {"ca_file": str(pems / "ca.pem"), "cert_file": str(cert), "key_file": str(key)}
        async with opened(f"https://127.0.0.1:{agent.https}", **files) as source:
            with pytest.raises(SourceError):
                await following(source, None)
            shutil.copy(pems / "client.pem", cert)
            shutil.copy(pems / "client.key", key)
            assert values(await following(source, None)) == {"services/web": "{}"}
