"""Every source keeps the same promises: the one in memory, the directory, and a real Consul."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from anycastlb.adapters.sources import Source
from anycastlb.adapters.sources.consul import ConsulSource
from anycastlb.adapters.sources.file import FileSource
from anycastlb.adapters.sources.memory import MemorySource
from anycastlb.core.model import SourceError, Tree
from anycastlb.settings import ConsulSettings
from tests.support.consul import Agent

PATIENCE = 180.0
"""Seconds until a test gives up; no source needs them."""
QUIET = 0.4
"""Seconds in which a source that has nothing to tell must stay silent."""


class World(Protocol):
    """A source, and the hand that changes what it reads."""

    source: Source

    async def put(self, key: str, value: str) -> None: ...
    async def delete(self, key: str) -> None: ...
    async def breaks(self) -> None: ...
    async def heals(self) -> None: ...


class MemoryWorld:
    def __init__(self) -> None:
        self.source = MemorySource()

    async def put(self, key: str, value: str) -> None:
        self.source.put(key, value)

    async def delete(self, key: str) -> None:
        self.source.delete(key)

    async def breaks(self) -> None:
        self.source.fail()

    async def heals(self) -> None:
        self.source.heal()


class FileWorld:
    def __init__(self, root: Path) -> None:
        self.root = root / "catalog"
        self.root.mkdir()
        self.source = FileSource(self.root)

    def _path(self, key: str) -> Path:
        return self.root / (key if key.startswith("drain/") else f"{key}.json")

    async def put(self, key: str, value: str) -> None:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value)

    async def delete(self, key: str) -> None:
        self._path(key).unlink()

    async def breaks(self) -> None:
        self.root.rename(self.root.with_name("away"))

    async def heals(self) -> None:
        self.root.with_name("away").rename(self.root)


class ConsulWorld:
    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.source = ConsulSource(ConsulSettings(address=agent.address, wait="2s"))

    async def put(self, key: str, value: str) -> None:
        await asyncio.to_thread(self.agent.put, f"anycastlb/{key}", value)

    async def delete(self, key: str) -> None:
        await asyncio.to_thread(self.agent.delete, f"anycastlb/{key}")

    async def breaks(self) -> None:
        await asyncio.to_thread(self.agent.kill)

    async def heals(self) -> None:
        await asyncio.to_thread(self.agent.start)


@pytest.fixture(params=["memory", "file", "consul"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    made: World
    if request.param == "memory":
        made = MemoryWorld()
    elif request.param == "file":
        made = FileWorld(tmp_path)
    else:
        agent = request.getfixturevalue("agent")
        agent.delete("anycastlb/", below=True)
        made = ConsulWorld(agent)
    yield made
    await made.source.close()


async def following(source: Source, after: Tree | None) -> Tree:
    async with asyncio.timeout(PATIENCE):
        return await source.read(after)


async def silent(source: Source, after: Tree) -> bool:
    """Whether the source has nothing to tell."""
    try:
        async with asyncio.timeout(QUIET):
            await source.read(after)
    except TimeoutError:
        return True
    return False


def values(tree: Tree) -> dict[str, str]:
    return {key: entry.value.decode() for key, entry in tree.entries.items()}


async def test_a_first_read_returns_the_whole_tree(world: World) -> None:
    tree = {
        "services/web": '{"port": 80}',
        "services/web/backends/web1": "weight=10",
        "services/web2": '{"port": 81}',
        "defaults": "{}",
        "drain/lb1": "",
    }
    for key, value in tree.items():
        await world.put(key, value)
    assert values(await following(world.source, None)) == tree


async def test_an_empty_source_is_an_empty_tree(world: World) -> None:
    assert values(await following(world.source, None)) == {}


async def test_it_waits_until_the_tree_differs(world: World) -> None:
    await world.put("services/web", "1")
    tree = await following(world.source, None)
    assert await silent(world.source, tree)
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(following(world.source, tree))
        await asyncio.sleep(0.1)
        await world.put("services/web", "2")
    assert values(reading.result()) == {"services/web": "2"}


@pytest.mark.parametrize("key", ["services/web", "services/web/backends/b1", "defaults", "drain/lb1"])
async def test_each_part_of_the_tree_is_followed(world: World, key: str) -> None:
    """Where there was nothing, then something, then nothing again."""
    tree = await following(world.source, None)
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(following(world.source, tree))
        await asyncio.sleep(0.1)
        await world.put(key, "x=1")
    tree = reading.result()
    assert values(tree) == {key: "x=1"}
    assert await silent(world.source, tree)
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(following(world.source, tree))
        await asyncio.sleep(0.1)
        await world.delete(key)
    assert values(reading.result()) == {}
    assert await silent(world.source, reading.result())


async def test_a_change_between_two_reads_is_not_missed(world: World) -> None:
    await world.put("services/web", "1")
    tree = await following(world.source, None)
    await world.put("services/web", "2")
    assert values(await following(world.source, tree)) == {"services/web": "2"}


async def test_a_value_written_again_is_no_change(world: World) -> None:
    await world.put("services/web", "1")
    tree = await following(world.source, None)
    await world.put("services/web", "1")
    assert await silent(world.source, tree)


async def test_deleting_one_leaves_those_with_longer_names(world: World) -> None:
    for key in ("services/web", "services/web2", "services/web-api"):
        await world.put(key, "{}")
    tree = await following(world.source, None)
    await world.delete("services/web")
    assert values(await following(world.source, tree)).keys() == {"services/web2", "services/web-api"}


async def test_a_read_that_was_broken_off_can_be_repeated(world: World) -> None:
    await world.put("services/web", "1")
    tree = await following(world.source, None)
    for number in range(2, 5):
        assert await silent(world.source, tree)
        await world.put("services/web", str(number))
        tree = await following(world.source, tree)
        assert values(tree) == {"services/web": str(number)}


async def test_every_change_is_seen_in_the_end(world: World) -> None:
    tree = await following(world.source, None)
    async with asyncio.TaskGroup() as group:

        async def write() -> None:
            for number in range(60):
                await world.put(f"services/s{number % 20}", str(number))

        group.create_task(write())
        last = {f"services/s{number % 20}": str(number) for number in range(60)}
        while values(tree) != last:
            tree = await following(world.source, tree)
    assert await silent(world.source, tree)


async def test_it_says_when_it_cannot_read_and_reads_again_when_it_can(world: World) -> None:
    await world.put("services/web", "1")
    tree = await following(world.source, None)
    async with asyncio.TaskGroup() as group:

        async def fails() -> None:
            with pytest.raises(SourceError):
                await following(world.source, tree)

        group.create_task(fails())
        await asyncio.sleep(0.1)
        await world.breaks()
    with pytest.raises(SourceError):
        await following(world.source, None)
    await world.heals()
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                assert values(await following(world.source, None)) == {"services/web": "1"}
                break
            except SourceError:
                await asyncio.sleep(0.05)


async def test_closed_twice_and_read_again(world: World) -> None:
    await world.put("services/web", "1")
    tree = await following(world.source, None)
    assert await silent(world.source, tree)
    await world.source.close()
    await world.source.close()
    assert (await following(world.source, None)).entries == tree.entries


class TestDirectory:
    """What only a directory can do."""

    @pytest.fixture
    async def root(self, tmp_path: Path) -> Path:
        root = tmp_path / "catalog"
        (root / "services" / "web" / "backends").mkdir(parents=True)
        (root / "services" / "web.json").write_text("{}")
        return root

    @pytest.fixture
    async def source(self, root: Path) -> AsyncIterator[FileSource]:
        source = FileSource(root)
        yield source
        await source.close()

    async def test_formats_and_origins(self, root: Path, source: FileSource) -> None:
        (root / "services" / "dns.toml").write_text("port = 53")
        (root / "services" / "mail.yml").write_text("port: 25")
        (root / "services" / "web" / "backends" / "10.0.0.1:8080").write_text("weight=10")
        (root / "services" / "web" / "backends" / "web1.yaml").write_text("weight: 10")
        (root / "defaults.yaml").write_text("forward: dr")
        (root / "drain").mkdir()
        (root / "drain" / "lb1.example.json").write_text("")
        entries = (await source.read(None)).entries
        assert {key: (entry.format, entry.origin) for key, entry in entries.items()} == {
            "services/web": ("json", "services/web.json"),
            "services/dns": ("toml", "services/dns.toml"),
            "services/mail": ("yaml", "services/mail.yml"),
            "services/web/backends/10.0.0.1:8080": ("json", "services/web/backends/10.0.0.1:8080"),
            "services/web/backends/web1": ("yaml", "services/web/backends/web1.yaml"),
            "defaults": ("yaml", "defaults.yaml"),
            "drain/lb1.example.json": ("json", "drain/lb1.example.json"),
        }

    async def test_litter_is_ignored(self, root: Path, source: FileSource) -> None:
        tree = await source.read(None)
        left = [".web.json.swp", "web.json~", "web.json.tmp", ".hidden.json", "#web.json#", "x.swp"]
        left += [f"web.json{end}" for end in (".dpkg-new", ".dpkg-dist", ".rpmsave", ".rpmnew", ".orig", ".rej")]
        left += [f"web.json{end}" for end in (".1", ".swo", ".lock", ".md", ".20261130")] + ["web.yml.2", "web.toml.x"]
        for name in left:
            (root / "services" / name).write_text("litter")
        backends = root / "services" / "dns" / "backends"
        backends.mkdir(parents=True)
        for end in (
            ".dpkg-new",
            ".dpkg-dist",
            ".ucf-dist",
            ".rpmsave",
            ".rpmnew",
            ".pacnew",
            ".orig",
            ".rej",
            ".bak",
            "~",
        ):
            (backends / f"10.0.0.9:53{end}").write_text("weight=1")  # a backend's file needs no ending of its own
        (root / "services" / ".#web.json").symlink_to("nobody@nowhere")
        (root / ".git").mkdir()
        (root / ".git" / "config.json").write_text("{}")
        (root / "README.md").write_text("not a document")
        assert await silent(source, tree)

    async def test_two_files_for_one_service(self, root: Path, source: FileSource) -> None:
        (root / "services" / "web.yaml").write_text("port: 1")
        entries = (await source.read(None)).entries
        assert entries["services/web"].origin == "services/web.json"
        assert "services/web.json" in entries["services/web.yaml"].error
        assert entries["services/web.yaml"].value == b"\0"

    @pytest.mark.parametrize(
        "kind", ["too large", "dangling link", "link out", *(["forbidden"] if os.getuid() else [])]
    )
    async def test_one_bad_file_stops_no_other(self, root: Path, source: FileSource, kind: str) -> None:
        bad = root / "services" / "bad.json"
        if kind == "too large":
            bad.write_bytes(b" " * (512 * 1024 + 1))
        elif kind == "dangling link":
            bad.symlink_to("nowhere.json")
        elif kind == "link out":
            bad.symlink_to("/etc/hostname")
        else:
            bad.write_text("{}")
            bad.chmod(0)  # root may read it all the same
        entries = (await source.read(None)).entries
        assert entries["services/web"].value == b"{}"
        assert entries["services/bad"].error.startswith("expected a file that can be read")

    async def test_a_folder_elsewhere_is_no_folder_of_the_catalog(self, root: Path, source: FileSource) -> None:
        """Who writes a catalog may write links too, in git for example; he may not read what the daemon may."""
        (root / "services" / "dns").mkdir()
        (root.parent / "elsewhere").mkdir()
        (root.parent / "elsewhere" / "b1").write_text("weight=1")
        (root / "services" / "dns" / "backends").symlink_to("../../../elsewhere")
        (root / "services" / "mail.json").symlink_to("web.json")
        entries = (await source.read(None)).entries
        assert entries.keys() == {"services/web", "services/mail", "services/dns/backends"}
        assert "leads out of the catalog" in entries["services/dns/backends"].error
        assert not entries["services/mail"].error
        (root / "drain").symlink_to("/etc")
        with pytest.raises(SourceError, match=r"let catalog\.path itself be the link"):
            await source.read(None)

    async def test_neither_file_nor_directory(self, root: Path, source: FileSource) -> None:
        os.mkfifo(root / "services" / "pipe.json")
        assert (await following(source, None)).entries.keys() == {"services/web"}

    async def test_a_name_that_is_no_text(self, root: Path, source: FileSource) -> None:
        (root / "services" / b"caf\xe9.json".decode(errors="surrogateescape")).write_text("{}")
        entries = (await source.read(None)).entries
        assert sorted(entries) == ["services/caf�", "services/web"]
        assert "\ufffd" in entries["services/caf\ufffd"].origin

    async def test_a_file_renamed_over(self, root: Path, source: FileSource) -> None:
        tree = await source.read(None)
        (root / "services" / ".new").write_text('{"port": 1}')
        (root / "services" / ".new").rename(root / "services" / "web.json")
        assert values(await following(source, tree)) == {"services/web": '{"port": 1}'}

    async def test_the_same_size_in_the_same_instant(self, root: Path, source: FileSource) -> None:
        """A clock tick is long: two writes may carry one time stamp."""
        path, tree = root / "services" / "web.json", await source.read(None)
        stamp = path.stat()
        path.write_text("[]")
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        assert values(await following(source, tree)) == {"services/web": "[]"}

    async def test_the_directory_is_replaced(self, root: Path, source: FileSource) -> None:
        tree = await source.read(None)
        assert await silent(source, tree)  # the old directory is watched now
        new = root.with_name("new")
        shutil.copytree(root, new)
        (new / "services" / "dns.toml").write_text("port = 53")
        os.rename(root, root.with_name("old"))  # noqa: PTH104
        os.rename(new, root)  # noqa: PTH104
        tree = await following(source, tree)
        assert tree.entries.keys() == {"services/web", "services/dns"}
        (root / "services" / "dns.toml").unlink()
        assert (await following(source, tree)).entries.keys() == {"services/web"}

    async def test_a_symbolic_link_turns_elsewhere(self, root: Path) -> None:
        link, other = root.with_name("current"), root.with_name("other")
        shutil.copytree(root, other)
        (other / "services" / "web.json").write_text("[1]")
        link.symlink_to(root)
        source = FileSource(link)
        tree = await source.read(None)
        assert await silent(source, tree)
        turned = root.with_name("turned")
        turned.symlink_to(other)
        turned.rename(link)
        tree = await following(source, tree)
        assert values(tree) == {"services/web": "[1]"}
        (other / "services" / "web.json").write_text("[2]")
        assert values(await following(source, tree)) == {"services/web": "[2]"}
        await source.close()

    async def test_the_directory_is_made_later(self, tmp_path: Path) -> None:
        source = FileSource(tmp_path / "later")
        with pytest.raises(SourceError, match="later is no directory; create it"):
            await source.read(None)
        (tmp_path / "later").mkdir()
        tree = await source.read(None)
        assert values(tree) == {}
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(following(source, tree))
            await asyncio.sleep(0.1)
            (tmp_path / "later" / "services").mkdir()
            (tmp_path / "later" / "services" / "web.json").write_text("{}")
        assert values(reading.result()) == {"services/web": "{}"}
        await source.close()

    async def test_a_file_written_in_pieces_is_read_whole(self, root: Path, source: FileSource) -> None:
        tree = await source.read(None)
        text = "[" + ", ".join(map(str, range(200))) + "]"
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(following(source, tree))
            await asyncio.sleep(0.1)
            with (root / "services" / "web.json").open("w", buffering=1) as file:
                for start in range(0, len(text), 100):
                    file.write(text[start : start + 100])
                    file.flush()
                    await asyncio.sleep(0.01)
        assert values(reading.result()) == {"services/web": text}


@pytest.fixture(autouse=True)
def _no_warnings(recwarn: pytest.WarningsRecorder) -> Iterator[None]:
    """A session or a file left open is told as a warning; none may be."""
    yield
    left = [str(warning.message) for warning in recwarn if issubclass(warning.category, ResourceWarning)]
    assert left == []
