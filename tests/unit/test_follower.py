"""The follower: it holds on to the catalog in force, whatever its source does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from anycastlb.adapters.checks import PARAMS
from anycastlb.adapters.sources.cache import CatalogCache, SavedTree
from anycastlb.adapters.sources.memory import MemorySource
from anycastlb.adapters.system.clock import Clock, Offload
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.events import Event
from anycastlb.core.model import Catalog, Entry, Feed, SourceError, Tree
from anycastlb.engine import catalog_keeper, catalog_parser, follower
from anycastlb.engine.catalog_events import MAX_SHOWN
from anycastlb.engine.catalog_in_force import CatalogInForce
from anycastlb.engine.catalog_parser import CatalogParts
from anycastlb.engine.follower import Follower, identity
from anycastlb.settings import Settings, parse

pytestmark = pytest.mark.virtual_time

PATIENCE = 10.0


def settings(catalog: str = "", source: str = "consul", state_dir: Path = Path("/nowhere")) -> Settings:
    node = f'[node]\nvip_ranges = ["192.0.2.0/24"]\nstate_dir = "{state_dir}"'
    return parse(f'{node}\n[catalog]\nsource = "{source}"\n{catalog}')


def service(number: int, port: int = 80) -> str:
    return json.dumps({"vip": f"192.0.2.{number}", "port": port})


def fill(source: MemorySource, count: int) -> None:
    for number in range(1, count + 1):
        source.put(f"services/s{number}", service(number))


@pytest.fixture(autouse=True)
def saved_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in force is on disk once the follower has settled."""
    monkeypatch.setattr(catalog_keeper, "BEHIND", 0.0)
    monkeypatch.setattr(catalog_keeper, "PAUSE", 0.0)


async def inline(function: Callable[..., Any], /, *args: Any) -> Any:
    return function(*args)


class Node:
    """A follower at work, and what it published."""

    def __init__(
        self,
        source: Any,
        state_dir: Path,
        catalog: str = "",
        patience: float = 0.2,
        chance: float = 0.5,
        offload: Offload = inline,
    ) -> None:
        self.source = source
        self.state_dir = state_dir
        self.settings = settings(catalog, state_dir=state_dir)
        self.seen: list[tuple[Catalog, Feed]] = []
        self.journal = Journal()
        parts = CatalogParts(source, PARAMS, patience=patience)
        clock = Clock(asyncio.get_running_loop().time, chance=lambda: chance, offload=offload)
        self.follower = Follower(parts, self.settings, lambda *now: self.seen.append(now), self.journal, clock)

    async def __aenter__(self) -> Node:
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        self._task = self._group.create_task(self.follower.run())
        return self

    async def __aexit__(self, *error: Any) -> None:
        self._task.cancel()
        await self._group.__aexit__(*error)

    async def until(self, what: Callable[[Catalog, Feed], bool]) -> tuple[Catalog, Feed]:
        async with asyncio.timeout(PATIENCE):
            while not (self.seen and what(*self.seen[-1])):
                await asyncio.sleep(0.005)
        return self.seen[-1]

    async def told(self, after: str, count: int = 1) -> list[Event]:
        async with asyncio.timeout(PATIENCE):
            while len(self.events(after)) < count:
                await asyncio.sleep(0.005)
        return self.events(after)

    async def settle(self) -> None:
        """Until the follower waits for its source again."""
        reads = self.source.reads
        self.follower.reread()
        async with asyncio.timeout(PATIENCE):
            while self.source.reads < reads + 2:
                await asyncio.sleep(0.005)

    def events(self, after: str = "") -> list[Event]:
        return [record.event for record in self.journal.records() if after in ("", record.event.after)]


def vips(catalog: Catalog) -> set[str]:
    return {str(vip) for vip in catalog.vips}


async def test_it_publishes_what_it_reads(tmp_path: Path) -> None:
    source = MemorySource()
    fill(source, 2)
    async with Node(source, tmp_path) as node:
        catalog, feed = await node.until(lambda catalog, feed: feed.loaded)
        assert vips(catalog) == {"192.0.2.1", "192.0.2.2"}
        assert (feed.connected, feed.cached, feed.held, feed.error) == (True, False, None, "")
        source.put("services/s1", service(1, port=81))
        await node.until(lambda catalog, feed: catalog.services[0].port == 81)
        source.put("drain/lb1", "")
        await node.until(lambda catalog, feed: catalog.drained == {"lb1"})
    assert [event.after for event in node.events()] == ["connected", "applied", "applied", "applied"]
    assert "2 services, 2 VIPs" in node.events("applied")[0].reason


async def test_an_empty_source_is_a_loaded_empty_catalog(tmp_path: Path) -> None:
    async with Node(MemorySource(), tmp_path) as node:
        catalog, feed = await node.until(lambda catalog, feed: feed.connected)
        assert feed.loaded and not catalog.services


async def test_an_unchanged_tree_is_no_news(tmp_path: Path) -> None:
    source = MemorySource()
    fill(source, 1)
    async with Node(source, tmp_path) as node:
        await node.until(lambda catalog, feed: feed.loaded)
        await node.settle()
        saved = (tmp_path / "catalog.json").stat().st_mtime_ns
        seen, events = len(node.seen), len(node.events())
        for _ in range(20):
            await node.settle()
        assert (len(node.seen), len(node.events())) == (seen, events)
        assert (tmp_path / "catalog.json").stat().st_mtime_ns == saved


class TestAway:
    """The source does not answer."""

    async def test_before_it_ever_did(self, tmp_path: Path) -> None:
        source = MemorySource()
        source.fail("no route to Consul")
        async with Node(source, tmp_path) as node:
            catalog, feed = await node.until(lambda catalog, feed: bool(feed.error))
            assert (feed.loaded, feed.connected, feed.error) == (False, False, "no route to Consul")
            assert catalog == Catalog()
            fill(source, 1)
            source.heal()
            catalog, feed = await node.until(lambda catalog, feed: feed.loaded)
            assert vips(catalog) == {"192.0.2.1"} and feed.error == ""

    async def test_the_catalog_stays_in_force(self, tmp_path: Path) -> None:
        source = MemorySource()
        fill(source, 2)
        async with Node(source, tmp_path) as node:
            await node.until(lambda catalog, feed: feed.loaded)
            source.fail("gone")
            catalog, feed = await node.until(lambda catalog, feed: not feed.connected)
            assert len(catalog.vips) == 2 and feed.loaded and feed.error == "gone"
            source.put("services/s3", service(3))
            source.heal()
            catalog, feed = await node.until(lambda catalog, feed: feed.connected)
            await node.until(lambda catalog, feed: len(catalog.vips) == 3)
            assert [event.after for event in node.events()][-3:] == ["disconnected", "connected", "applied"]

    @pytest.mark.parametrize(
        ("chance", "pauses"),
        [
            pytest.param(1.0, [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0], id="at most"),
            pytest.param(0.0, [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.5, 2.5], id="half of it"),
        ],
    )
    async def test_it_tries_ever_less_often_and_reports_once(
        self, tmp_path: Path, chance: float, pauses: list[float]
    ) -> None:
        asked: list[float] = []

        class Failing(MemorySource):
            async def read(self, after: Tree | None) -> Tree:
                asked.append(asyncio.get_running_loop().time())
                return await super().read(after)

        source = Failing()
        source.fail()
        async with Node(source, tmp_path, chance=chance) as node:
            await asyncio.sleep(sum(pauses) + 0.01)
            assert len(node.events("disconnected")) == 1
        assert [after - before for before, after in pairwise(asked)] == pytest.approx(pauses)

    async def test_reread_waits_for_no_back_off(self, tmp_path: Path) -> None:
        source = MemorySource()
        source.fail()
        async with Node(source, tmp_path, chance=1.0) as node:
            for attempt in range(1, 30):  # by back-off alone this takes two minutes
                node.follower.reread()
                async with asyncio.timeout(PATIENCE):
                    while source.reads < attempt:
                        await asyncio.sleep(0.005)
            source.heal()
            node.follower.reread()
            await node.until(lambda catalog, feed: feed.connected)


class TestSaved:
    """The last good catalog on disk."""

    async def restarted(self, tmp_path: Path, count: int = 3, **more: str) -> None:
        source = MemorySource()
        fill(source, count)
        for key, value in more.items():
            source.put(key.replace("__", "/"), value)
        async with Node(source, tmp_path) as node:
            await node.until(lambda catalog, feed: feed.loaded)
            await node.settle()

    async def test_a_node_starts_from_it(self, tmp_path: Path) -> None:
        await self.restarted(tmp_path, defaults='{"forward": "dr"}', drain__lb9="")
        source = MemorySource()
        source.fail()
        async with Node(source, tmp_path) as node:
            catalog, feed = await node.until(lambda catalog, feed: feed.loaded)
            assert len(catalog.vips) == 3 and catalog.drained == {"lb9"}
            assert (feed.cached, feed.connected) == (True, False)
            assert node.events("applied")[0].level == "warning"
            fill(source, 4)
            source.heal()
            catalog, feed = await node.until(lambda catalog, feed: len(catalog.vips) == 4)
            assert not feed.cached and feed.connected

    async def test_a_source_that_answers_is_used_instead(self, tmp_path: Path) -> None:
        await self.restarted(tmp_path)
        source = MemorySource()
        fill(source, 4)
        async with Node(source, tmp_path, patience=60) as node:
            await node.until(lambda catalog, feed: len(catalog.vips) == 4)
        assert [(len(catalog.vips), feed.cached) for catalog, feed in node.seen if feed.loaded] == [(4, False)]

    async def test_a_source_that_hangs_is_waited_for_only_so_long(self, tmp_path: Path) -> None:
        await self.restarted(tmp_path)

        class Hanging(MemorySource):
            async def read(self, after: Tree | None) -> Tree:
                await asyncio.Event().wait()
                raise AssertionError

        async with Node(Hanging(), tmp_path) as node:
            catalog, feed = await node.until(lambda catalog, feed: feed.loaded)
            assert len(catalog.vips) == 3 and feed.cached

    async def test_a_source_that_lost_everything_does_not_empty_it(self, tmp_path: Path) -> None:
        await self.restarted(tmp_path)
        async with Node(MemorySource(), tmp_path, 'confirm = "never"') as node:
            catalog, feed = await node.until(lambda catalog, feed: feed.held is not None)
            assert len(catalog.vips) == 3 and feed.cached and feed.loaded and feed.connected
        async with Node(MemorySource(), tmp_path, 'confirm = "never"') as node:  # and not on disk either
            catalog, feed = await node.until(lambda catalog, feed: feed.held is not None)
            assert len(catalog.vips) == 3

    async def test_the_last_good_documents_are_saved_in_place_of_bad_ones(self, tmp_path: Path) -> None:
        source = MemorySource()
        fill(source, 2)
        async with Node(source, tmp_path) as node:
            await node.until(lambda catalog, feed: feed.loaded)
            source.put("services/s1", "{nonsense")
            await node.until(lambda catalog, feed: bool(catalog.problems))
            source.put("services/s2", service(2, port=82))
            await node.until(lambda catalog, feed: catalog.services[-1].port == 82)
            await node.settle()
        async with Node(source, tmp_path) as node:  # the bad document is still there
            catalog, _ = await node.until(lambda catalog, feed: feed.loaded)
            assert vips(catalog) == {"192.0.2.1", "192.0.2.2"} and catalog.problems[0].key == "services/s1"

    @pytest.mark.parametrize("damage", ["cut", "flipped", "noise", "empty", "version", "shape", "unreadable", "deep"])
    async def test_a_damaged_file_is_ignored_and_replaced(self, tmp_path: Path, damage: str) -> None:
        await self.restarted(tmp_path)
        path = tmp_path / "catalog.json"
        text = path.read_text()
        if damage == "unreadable":
            path.unlink()
            path.mkdir()
        else:
            path.write_text(
                {
                    "cut": text[:-100],
                    "flipped": text.replace('"created": 1', '"created": 7', 1),
                    "noise": "\0" * 1000,
                    "empty": "",
                    "version": text.replace('"version": 1', '"version": 2'),
                    "shape": "[1, 2]",
                    "deep": "[" * 100_000,
                }[damage]
            )
        source = MemorySource()
        source.fail()
        async with Node(source, tmp_path) as node:
            (event,) = await node.told("unusable")
            assert event.level == "warning" and str(path) in event.reason
            await node.until(lambda catalog, feed: bool(feed.error))
            assert not node.seen[-1][1].loaded
            if damage == "unreadable":
                path.rmdir()
            fill(source, 1)
            source.heal()
            await node.until(lambda catalog, feed: feed.loaded)
            await node.settle()
        tree = SavedTree(tmp_path, identity(node.settings)).load()
        assert tree is not None and tree.entries.keys() == {"services/s1"}

    async def test_another_source_s_catalog_is_not_ours(self, tmp_path: Path) -> None:
        await self.restarted(tmp_path)
        saved = SavedTree(tmp_path, identity(settings(source="file")))
        with pytest.raises(SourceError, match="it was read from 'consul anycastlb/'"):
            saved.load()

    async def test_a_disk_that_cannot_be_written_is_told_once(self, tmp_path: Path) -> None:
        blocked = tmp_path / "state"
        blocked.write_text("a file where a directory should be")
        source = MemorySource()
        async with Node(source, blocked) as node:
            await node.told("unusable")
            for number in range(1, 5):
                source.put(f"services/s{number}", service(number))
                await node.until(lambda catalog, feed, number=number: len(catalog.vips) == number)  # type: ignore[misc]
            await node.settle()
            assert len(node.events("unsaved")) == 1
            blocked.unlink()
            source.put("services/s5", service(5))
            await node.until(lambda catalog, feed: len(catalog.vips) == 5)
            await node.settle()
        assert sorted(path.name for path in blocked.iterdir()) == ["catalog.json"]

    def test_every_field_comes_back(self, tmp_path: Path) -> None:
        entries = {
            "services/a": Entry(b"\x00\xff", 7, "toml", "services/a.toml", "odd"),
            "services/b": Entry(b"", 0, "yaml"),
        }
        saved = SavedTree(tmp_path / "made" / "for it", "x")
        assert saved.load() is None
        saved.save(Tree(entries, 9))
        assert saved.load() == Tree(entries, 9)

    def test_a_failed_save_leaves_the_old_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        saved = SavedTree(tmp_path, "x")
        saved.save(Tree({"a": Entry(b"1")}, 1))

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("anycastlb.adapters.system.atomic_file.os.fsync", full)
        with pytest.raises(SourceError, match="No space left on device"):
            saved.save(Tree({"a": Entry(b"2")}, 2))
        assert saved.load() == Tree({"a": Entry(b"1")}, 1)
        assert [path.name for path in tmp_path.iterdir()] == ["catalog.json"]


class TestChanges:
    """What is saved of a small change of a large catalog."""

    LARGE = Tree({f"services/s{number}": Entry(b"x" * 100, number) for number in range(100)}, 1)

    def edited(self, tree: Tree, text: bytes, number: int = 7) -> Tree:
        return Tree({**tree.entries, f"services/s{number}": Entry(text, number)}, tree.index + 1)

    def saved(self, tmp_path: Path, *texts: bytes) -> list[Tree]:
        """The large catalog and what these edits, one after the other, make of it."""
        trees, saved = [self.LARGE], SavedTree(tmp_path, "x")
        for text in texts:
            trees.append(self.edited(trees[-1], text))
        for tree in trees:
            saved.save(tree)
            assert SavedTree(tmp_path, "x").load() == tree
        return trees

    def test_the_whole_is_not_written_for_it(self, tmp_path: Path) -> None:
        self.saved(tmp_path)
        whole = (tmp_path / "catalog.json").read_bytes()
        saved = SavedTree(tmp_path, "x")
        saved.save(self.LARGE)
        tree = self.edited(self.LARGE, b"new")
        saved.save(tree)
        rest = Tree({key: entry for key, entry in tree.entries.items() if key != "services/s8"}, 3)
        saved.save(rest)
        assert (tmp_path / "catalog.json").read_bytes() == whole
        assert SavedTree(tmp_path, "x").load() == rest

    def test_many_changes_become_a_whole_again(self, tmp_path: Path) -> None:
        self.saved(tmp_path, *(b"%d" % number for number in range(100)))
        whole, changes = (tmp_path / name for name in ("catalog.json", "catalog.changes"))
        assert changes.stat().st_size < whole.stat().st_size / 4 and json.loads(whole.read_bytes())["index"] > 50

    @pytest.mark.parametrize("left", [0, 1, 40, -2, -1])
    def test_a_line_that_was_cut_off_changes_nothing(self, tmp_path: Path, left: int) -> None:
        trees = self.saved(tmp_path, b"one", b"two")
        path = tmp_path / "catalog.changes"
        first, second, _ = path.read_bytes().split(b"\n")
        path.write_bytes(first + b"\n" + (second + b"\n")[:left])
        saved = SavedTree(tmp_path, "x")
        assert saved.load() == trees[1]
        saved.save(trees[2])  # a process that has not written what is there writes the whole
        assert SavedTree(tmp_path, "x").load() == trees[2] and not path.exists()

    @pytest.mark.parametrize("number", [0, 1])
    def test_a_damaged_line_changes_nothing_and_neither_do_those_behind_it(self, tmp_path: Path, number: int) -> None:
        trees = self.saved(tmp_path, b"one", b"two", b"three")
        path = tmp_path / "catalog.changes"
        lines = path.read_bytes().split(b"\n")
        lines[number] = lines[number].replace(b'"created": 7', b'"created": 6')
        path.write_bytes(b"\n".join(lines))
        assert SavedTree(tmp_path, "x").load() == trees[number]

    @pytest.mark.parametrize("content", [b"\n", b"[1]\n", b"{}\n", b"\0" * 100 + b"\n", b"[" * 100_000 + b"\n"])
    def test_what_is_no_change_changes_nothing(self, tmp_path: Path, content: bytes) -> None:
        trees = self.saved(tmp_path, b"one", b"two")
        path = tmp_path / "catalog.changes"
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(lines[0] + content + lines[1])
        assert SavedTree(tmp_path, "x").load() == trees[2]

    def test_the_line_of_a_process_that_hands_over_changes_nothing(self, tmp_path: Path) -> None:
        old, new = SavedTree(tmp_path, "x"), SavedTree(tmp_path, "x")
        old.save(self.LARGE)
        mine = self.edited(self.LARGE, b"new", 8)
        new.save(mine)
        old.save(self.edited(self.LARGE, b"old", 9))
        assert new.load() == mine
        last = self.edited(mine, b"newer", 8)
        new.save(last)
        assert SavedTree(tmp_path, "x").load() == last

    def test_after_a_change_that_failed_the_whole_is_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        saved = SavedTree(tmp_path, "x")
        saved.save(self.LARGE)

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("anycastlb.adapters.system.atomic_file.os.fsync", full)
            with pytest.raises(SourceError, match="No space left on device"):
                saved.save(self.edited(self.LARGE, b"one"))
        tree = self.edited(self.LARGE, b"two")
        saved.save(tree)
        assert SavedTree(tmp_path, "x").load() == tree and not (tmp_path / "catalog.changes").exists()


class TestHeld:
    """A catalog that lost too many VIPs at once."""

    async def lose(self, node: Node, keep: int = 1) -> tuple[Catalog, Feed]:
        fill(node.source, 5)
        await node.until(lambda catalog, feed: len(catalog.vips) == 5)
        for number in range(5, keep, -1):
            for key in [key for key in node.source._entries if key.startswith(f"services/s{number}")]:
                del node.source._entries[key]  # all at once
        node.source.put("defaults", "{}")
        return await node.until(lambda catalog, feed: feed.held is not None or len(catalog.vips) < 5)

    async def test_it_is_kept_out_and_told(self, tmp_path: Path) -> None:
        async with Node(MemorySource(), tmp_path, 'confirm = "never"') as node:
            catalog, feed = await self.lose(node)
            assert len(catalog.vips) == 5 and feed.held is not None
            assert (len(feed.held.lost), feed.held.of, feed.held.until) == (4, 5, None)
            for _ in range(3):
                await node.settle()
            (event,) = node.events("held")
            assert event.level == "warning" and "lost 4 of 5 VIPs" in event.reason
            assert "anycastlb confirm" in event.reason

    async def test_a_small_loss_is_applied(self, tmp_path: Path) -> None:
        async with Node(MemorySource(), tmp_path) as node:
            catalog, feed = await self.lose(node, keep=3)
            assert len(catalog.vips) == 3 and feed.held is None

    async def test_a_confirmed_one_goes_through_at_once(self, tmp_path: Path) -> None:
        async with Node(MemorySource(), tmp_path, 'confirm = "never"') as node:
            assert not node.follower.confirm()
            await self.lose(node)
            assert node.follower.confirm()
            catalog, _ = await node.until(lambda catalog, feed: feed.held is None)
            assert vips(catalog) == {"192.0.2.1"}
            assert not node.follower.confirm()
            await node.settle()
            tree = SavedTree(tmp_path, identity(node.settings)).load()
            assert tree is not None and tree.entries.keys() == {"services/s1", "defaults"}
            assert len(node.events("confirmed")) == 1

    async def test_confirmed_while_the_source_is_away(self, tmp_path: Path) -> None:
        async with Node(MemorySource(), tmp_path, 'confirm = "never"') as node:
            await self.lose(node)
            node.source.fail()
            await node.until(lambda catalog, feed: not feed.connected)
            assert node.follower.confirm()
            catalog, _ = await node.until(lambda catalog, feed: feed.held is None)
            assert len(catalog.vips) == 1

    async def test_one_that_persists_is_believed_after_a_fresh_read(self, tmp_path: Path) -> None:
        async with Node(MemorySource(), tmp_path, 'confirm = "300ms"') as node:
            _, feed = await self.lose(node)
            assert feed.held is not None and feed.held.until is not None
            reads = node.source.reads
            await node.until(lambda catalog, feed: feed.held is None)
            assert len(node.seen[-1][0].vips) == 1 and node.source.reads > reads

    async def test_one_that_was_undone_is_forgotten(self, tmp_path: Path) -> None:
        async with Node(MemorySource(), tmp_path, 'confirm = "never"') as node:
            await self.lose(node)
            fill(node.source, 5)
            catalog, _ = await node.until(lambda catalog, feed: feed.held is None)
            assert len(catalog.vips) == 5
            assert not node.follower.confirm()

    async def test_orders_are_obeyed_all_the_same(self, tmp_path: Path) -> None:
        async with Node(MemorySource(), tmp_path, 'confirm = "never"') as node:
            node.source.put("services/s1/backends/a", '{"address": "10.1.0.1"}')
            node.source.put("services/s5/backends/a", '{"address": "10.1.0.5"}')
            node.source.put("services/s5/backends/b", '{"address": "10.1.0.6"}')
            node.source.put("drain/lb2", "")
            await self.lose(node)
            lost = node.seen[-1][1].held
            node.source.put("drain/lb1", '{"reason": "disk"}')
            node.source.delete("drain/lb2")
            node.source.put("services/s1/backends/a", '{"address": "10.1.0.1", "drain": true}')
            node.source.put("services/s5/backends/a", '{"address": "10.1.0.5", "drain": true}')
            node.source.put("services/s9", service(9))
            catalog, feed = await node.until(lambda catalog, feed: len(catalog.vips) == 6)
            assert lost and feed.held and feed.held.since == lost.since, "the loss is held as before"
            assert catalog.drained == {"lb1"} and catalog.drains["lb1"].reason == "disk"
            backends = {one.name: {b.name: b.drain for b in one.backends} for one in catalog.services}
            assert backends["s1"] == {"a": True}
            assert backends["s5"] == {"a": True, "b": False}, "of a service that is kept, nothing is taken away"
            await node.settle()
            tree = SavedTree(tmp_path, identity(node.settings)).load()
            assert tree is not None and tree.entries.keys() == catalog.good.keys(), "a restart obeys them too"
            assert "without what is held" in node.events("applied")[-1].reason
            node.source.delete("drain/lb1")
            await node.until(lambda catalog, feed: not catalog.drained)
            assert node.follower.confirm()
            catalog, _ = await node.until(lambda catalog, feed: feed.held is None)
            assert vips(catalog) == {"192.0.2.1", "192.0.2.5", "192.0.2.9"}, (
                "of s5 a key stands: its document is missed"
            )

    async def test_an_emptied_store_ends_no_drain(self, tmp_path: Path) -> None:
        async with Node(MemorySource(), tmp_path, 'confirm = "never"') as node:
            node.source.put("services/s1", service(1))
            node.source.put("drain/lb2", "")
            await node.until(lambda catalog, feed: bool(catalog.services))
            node.source._entries.clear()
            node.source.put("drain/lb1", "")
            catalog, _ = await node.until(lambda catalog, feed: feed.held is not None)
            assert catalog.drained == {"lb1", "lb2"} and vips(catalog) == {"192.0.2.1"}

    async def test_an_edit_may_not_take_a_vip_under_cover_of_a_held_loss(self, tmp_path: Path) -> None:
        async with Node(MemorySource(), tmp_path, 'confirm = "300ms"') as node:
            await self.lose(node, keep=2)
            await asyncio.sleep(0.2)
            node.source._entries.clear()
            node.source.put("defaults", "{}")
            emptied = asyncio.get_running_loop().time()
            await node.until(lambda catalog, feed: not catalog.vips)
            assert asyncio.get_running_loop().time() - emptied >= 0.3

    async def test_a_source_that_dies_meanwhile_does_not_make_it_true(self, tmp_path: Path) -> None:
        async with Node(MemorySource(), tmp_path, 'confirm = "200ms"') as node:
            await self.lose(node)
            node.source.fail()
            await node.until(lambda catalog, feed: not feed.connected)
            await asyncio.sleep(0.4)
            catalog, feed = node.seen[-1]
            assert len(catalog.vips) == 5 and feed.held is not None
            node.source.heal()
            await node.until(lambda catalog, feed: feed.held is None)

    async def test_a_loss_is_believed_only_of_a_fresh_read(self, tmp_path: Path) -> None:
        class Stale(MemorySource):
            """Its waiting reads once answered with less than there is."""

            lie = False
            asked: list[bool] = []  # noqa: RUF012

            async def read(self, after: Tree | None) -> Tree:
                self.asked.append(after is None)
                tree = await super().read(after)
                if self.lie and after is not None:
                    self.lie = False
                    return Tree({"services/s1": tree.entries["services/s1"]}, tree.index)
                return tree

        source = Stale()
        async with Node(source, tmp_path, 'max_shrink = "100%"') as node:
            fill(source, 2)
            await node.until(lambda catalog, feed: len(catalog.vips) == 2)
            await node.settle()
            source.lie = True
            source.put("services/s2", service(2, port=82))
            await node.until(lambda catalog, feed: catalog.services[-1].port == 82)
            assert 1 not in [len(catalog.vips) for catalog, _ in node.seen]
            source.delete("services/s2")
            await node.until(lambda catalog, feed: vips(catalog) == {"192.0.2.1"})


class TestProblems:
    async def test_each_is_told_once_and_when_it_is_solved(self, tmp_path: Path) -> None:
        source = MemorySource()
        fill(source, 2)
        async with Node(source, tmp_path) as node:
            source.put("services/bad", '{"vip": "203.0.113.1", "port": 80}')
            (event,) = await node.told("problem")
            assert (event.subject, event.level) == ("services/bad", "warning")
            for port in range(81, 90):
                source.put("services/s1", service(1, port))
                await node.until(lambda catalog, feed, port=port: catalog.services[0].port == port)  # type: ignore[misc]
            assert len(node.events("problem")) == 1
            source.delete("services/bad")
            (event,) = await node.told("solved")
            assert event.subject == "services/bad"

    async def test_ten_thousand_are_summed_up(self, tmp_path: Path) -> None:
        source = MemorySource()
        source._entries = {f"services/s{number}": Entry(b"x", number) for number in range(1000)}
        async with Node(source, tmp_path) as node:
            catalog, _ = await node.until(lambda catalog, feed: feed.loaded)
            assert len(catalog.problems) == 1000
            events = await node.told("problem", MAX_SHOWN + 1)
            assert events[-1].reason == f"and {1000 - MAX_SHOWN} more"

    async def test_a_fault_in_a_parser_stops_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        source = MemorySource()
        fill(source, 1)
        async with Node(source, tmp_path) as node:
            await node.until(lambda catalog, feed: feed.loaded)
            real = catalog_parser.parse_catalog

            def broken(*args: Any) -> Catalog:
                raise ZeroDivisionError("a bug")

            monkeypatch.setattr(catalog_parser, "parse_catalog", broken)
            source.put("services/s1", service(1, 81))
            (event,) = await node.told("unparsed")
            assert event.level == "error" and "a bug" in event.reason
            assert node.seen[-1][0].services[0].port == 80
            monkeypatch.setattr(catalog_parser, "parse_catalog", real)
            source.put("services/s1", service(1, 82))
            await node.until(lambda catalog, feed: catalog.services[0].port == 82)


@pytest.mark.parametrize("part", ["admit", "lost_vips"])
async def test_a_fault_in_following_stops_nothing(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await _survives(follower, part, tmp_path, monkeypatch)


@pytest.mark.parametrize("part", ["apply", "publish", "connected", "watch", "next_due", "disconnected"])
async def test_a_fault_in_putting_in_force_stops_nothing(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _survives(CatalogInForce, part, tmp_path, monkeypatch)


async def _survives(where: Any, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The part fails from the first read on; what was in force stays, and when it is well again all is."""
    source = MemorySource()
    fill(source, 1)
    async with Node(source, tmp_path) as node:
        await node.until(lambda catalog, feed: feed.loaded)
        real, failed = getattr(where, part), []

        def broken(*args: Any) -> None:
            failed.append(part)
            raise ZeroDivisionError("a bug")

        monkeypatch.setattr(where, part, broken)
        source.put("services/s1", service(1, 81))
        await asyncio.sleep(30)
        source.fail()
        await asyncio.sleep(30)
        assert failed and node.seen[-1][0].services
        source.heal()
        await asyncio.sleep(30)
        monkeypatch.setattr(where, part, real)
        source.put("services/s1", service(1, 82))
        await node.until(lambda catalog, feed: catalog.services[0].port == 82 and feed.connected and not feed.error)


async def test_a_fault_at_the_start_is_told_and_the_source_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(CatalogCache, "load", broken)
    source = MemorySource()
    fill(source, 1)
    async with Node(source, tmp_path) as node:
        (event,) = await node.told("disconnected")
        assert "a bug" in event.reason and "report" in event.reason
        await node.until(lambda catalog, feed: feed.loaded and feed.connected)


async def test_work_is_done_off_the_loop(tmp_path: Path) -> None:
    done: list[str] = []

    async def offload(function: Callable[..., Any], /, *args: Any) -> Any:
        done.append(function.__name__)
        return function(*args)

    source = MemorySource()
    fill(source, 1)
    async with Node(source, tmp_path, offload=offload) as node:
        await node.until(lambda catalog, feed: feed.loaded)
        await node.settle()
    assert done == ["load", "_parse", "save"]


async def test_a_fresh_read_that_was_broken_off_is_still_owed(tmp_path: Path) -> None:
    """After a failure the old tree (and its index) must not be waited on before the source has answered afresh."""

    class Slow(MemorySource):
        def __init__(self) -> None:
            super().__init__()
            self.slow = False
            self.fresh: list[bool] = []

        async def read(self, after: Tree | None) -> Tree:
            self.fresh.append(after is None)
            if self.slow:
                self.reads += 1
                await asyncio.Event().wait()
            return await super().read(after)

    source = Slow()
    async with Node(source, tmp_path, 'confirm = "never"') as node:
        fill(source, 5)
        await node.until(lambda catalog, feed: len(catalog.vips) == 5)
        source._entries.clear()
        source.put("defaults", "{}")
        await node.until(lambda catalog, feed: feed.held is not None)
        source.slow = True
        node.follower.reread()
        for _ in range(3):
            before = source.reads
            async with asyncio.timeout(PATIENCE):
                while source.reads == before:
                    await asyncio.sleep(0.005)
            node.follower._waiting.interrupt()
            assert source.fresh[-1]


async def late(function: Callable[..., Any], /, *args: Any) -> Any:
    """Like a thread: other work is done before it has finished."""
    await asyncio.sleep(0)
    found = function(*args)
    await asyncio.sleep(0.001)
    return found


async def test_calls_at_any_moment_lose_nothing(tmp_path: Path) -> None:
    """Waking the follower breaks a read off; whatever it was about to tell must still come."""
    source = MemorySource()
    fill(source, 3)
    async with Node(source, tmp_path, offload=late) as node:
        for port in range(1, 200):
            source.put("services/s1", service(1, port))
            node.follower.reread()
            node.follower.confirm()
            await asyncio.sleep(0)
        await node.until(lambda catalog, feed: bool(catalog.services) and catalog.services[0].port == 199)


def test_an_identity_is_of_the_catalog_and_not_of_the_server() -> None:
    one = parse('[node]\nvip_ranges = ["192.0.2.0/24"]\n[consul]\naddress = "http://10.0.0.1:8500"\ndatacenter = "dc1"')
    assert identity(one) == "consul anycastlb/ dc1"
    assert identity(settings(source="file")) == "file /etc/anycastlb/catalog"


@asynccontextmanager
async def changed_soon_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    """A node that has saved the service s1, and that may save nothing for an hour; s2 is in force as well."""
    monkeypatch.setattr(catalog_keeper, "PAUSE", 3600.0)
    source = MemorySource()
    fill(source, 1)
    async with Node(source, tmp_path) as node:
        await node.until(lambda catalog, feed: feed.loaded)
        await node.settle()
        source.put("services/s2", service(2))
        await node.until(lambda catalog, feed: len(catalog.vips) == 2)
        yield node


def saved_services(state_dir: Path) -> set[str]:
    tree = SavedTree(state_dir, identity(settings(state_dir=state_dir))).load()
    assert tree is not None
    return set(tree.entries)


async def test_changes_that_follow_each_other_are_saved_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with changed_soon_again(tmp_path, monkeypatch) as node:
        await node.settle()
        assert saved_services(tmp_path) == {"services/s1"}
    assert saved_services(tmp_path) == {"services/s1", "services/s2"}, "the last, when it ends"


async def test_what_is_in_force_is_saved_before_the_source_counts_as_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that dies from then on leaves nothing else to the next one."""
    async with changed_soon_again(tmp_path, monkeypatch) as node:
        node.source.fail()
        await node.until(lambda catalog, feed: not feed.connected)
        assert saved_services(tmp_path) == {"services/s1", "services/s2"}
