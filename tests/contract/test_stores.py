"""Every store keeps the same promises: the one in memory, the directory, and a real Consul."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from anycastlb.adapters.sources import Source, Store
from anycastlb.core.model import Conflict, Edit, SourceError, Tree
from tests.support.stores import ConsulWorld, FileWorld, World, again, puts

PATIENCE = 180.0
"""Seconds until a test gives up; no store needs them."""
BIG = 400
"""More than Consul takes in six transactions."""


@pytest.fixture
async def store(world: World) -> AsyncIterator[Store]:
    store = world.store()
    yield store
    await store.close()


@asynccontextmanager
async def reading(world: World) -> AsyncIterator[Source]:
    source = world.source()
    try:
        yield source
    finally:
        await source.close()


def values(tree: Tree) -> dict[str, str]:
    return {key: entry.value.decode() for key, entry in tree.entries.items()}


def ordered(tree: Tree) -> list[str]:
    """The keys, oldest first, as the parser takes them."""
    return sorted(tree.entries, key=lambda key: (tree.entries[key].created, key))


async def seen(world: World) -> dict[str, str]:
    """What a reader of its own sees."""
    async with reading(world) as source, asyncio.timeout(PATIENCE):
        return values(await source.read(None))


def wanted(count: int, value: str) -> dict[str, str]:
    return {f"services/s{n:04d}": f"{value} {n}" for n in range(count)}


# ---------------------------------------------------------------- one key


async def test_create_replace_delete(world: World, store: Store) -> None:
    await store.commit([Edit("services/web", b"1", "")])
    assert await seen(world) == {"services/web": "1"}
    version = (await store.load()).entries["services/web"].version
    await store.commit([Edit("services/web", b"2", version)])
    assert await seen(world) == {"services/web": "2"}
    assert (await store.load()).entries["services/web"].version not in ("", version)
    await store.commit([Edit("services/web", None, (await store.load()).entries["services/web"].version)])
    assert await seen(world) == {}


@pytest.mark.parametrize("key", ["defaults", "services/web", "services/web/backends/10.0.0.1:80", "drain/lb1.example"])
async def test_every_kind_of_key(world: World, store: Store, key: str) -> None:
    for value in (b"", b"{}", b""):
        entry = (await store.load()).entries.get(key)
        await store.commit([Edit(key, value, entry.version if entry else "")])
        assert await seen(world) == {key: value.decode()}
    await store.commit([Edit(key, None)])
    assert await seen(world) == {}


async def test_every_entry_has_a_version_and_the_source_tells_the_same(world: World, store: Store) -> None:
    await store.commit(puts(3, "old"))
    async with reading(world) as source:
        read = (await source.read(None)).entries
    loaded = (await store.load()).entries
    assert {key: entry.version for key, entry in read.items()} == {k: e.version for k, e in loaded.items()}
    assert all(entry.version for entry in loaded.values())


async def test_without_expectation_whatever_is_there(world: World, store: Store) -> None:
    await store.commit([Edit("services/web", b"1"), Edit("services/gone", None)])
    await store.commit([Edit("services/web", b"2")])
    assert await seen(world) == {"services/web": "2"}
    await store.commit([Edit("services/web", None)])
    assert await seen(world) == {}


async def test_nothing_to_do(world: World, store: Store) -> None:
    await store.commit([])
    assert await seen(world) == {}


# ---------------------------------------------------------------- a lost race


@pytest.mark.parametrize("others", [0, 30, 200])
@pytest.mark.parametrize("kind", ["changed", "exists", "gone", "changed before it is deleted", "gone before deleted"])
async def test_a_lost_race_names_the_key_and_writes_nothing(world: World, store: Store, kind: str, others: int) -> None:
    await store.commit([Edit("services/web", b"1", "")])
    old = (await store.load()).entries["services/web"].version
    await store.commit([Edit("services/web", None if "gone" in kind else b"2", old)])
    before = await seen(world)
    edit = Edit("services/web", None if "delete" in kind else b"3", "" if kind == "exists" else old)
    with pytest.raises(Conflict, match="services/web "):
        await store.commit([*puts(others, "new"), edit])
    assert await seen(world) == before
    await store.commit([*puts(others, "new"), Edit("services/web", b"4")])
    assert await seen(world) == wanted(others, "new") | {"services/web": "4"}


async def test_delete_what_must_not_exist(world: World, store: Store) -> None:
    await store.commit([Edit("services/web", None, "")])
    await store.commit([Edit("services/web", b"1", "")])
    with pytest.raises(Conflict, match="services/web "):
        await store.commit([Edit("services/web", None, "")])
    assert await seen(world) == {"services/web": "1"}


@pytest.mark.parametrize(
    "edits",
    [
        [Edit("services/web", b"1"), Edit("services/web", b"2")],
        [Edit("services/../../etc/passwd", b"1")],
        [Edit("/services/web", b"1")],
        [Edit("services/", b"1")],
        [Edit("", b"1")],
        [Edit("nodes/lb1", b"1")],
        [Edit("import/commit", b"1")],
        [Edit("services/w\0b", b"1")],
        [Edit("services/good", b"1"), Edit("services/large", b"x" * 600_000)],
    ],
)
async def test_what_cannot_be_written_is_refused_whole(world: World, store: Store, edits: list[Edit]) -> None:
    with pytest.raises(SourceError, match="nothing was written") as told:
        await store.commit(edits)
    assert "expected" in str(told.value)
    assert await seen(world) == {}


# ---------------------------------------------------------------- many keys


@pytest.mark.parametrize("count", [1, 31, 32, 62, 63, 64, 65, 127, BIG])
async def test_many_at_once(world: World, store: Store, count: int) -> None:
    await store.commit(puts(count, "old"))
    assert await seen(world) == wanted(count, "old")
    await store.commit(await again(store, count, "new"))
    assert await seen(world) == wanted(count, "new")
    entries = (await store.load()).entries
    await store.commit([Edit(key, None, entry.version) for key, entry in entries.items()])
    assert await seen(world) == {}


async def test_large_documents(world: World, store: Store) -> None:
    """Together far more than one request holds."""
    documents = {f"services/s{n}": bytes([65 + n]) * 300_000 for n in range(5)}
    await store.commit([Edit(key, value, "") for key, value in documents.items()])
    assert {key: entry.value for key, entry in (await store.load()).entries.items()} == documents


async def test_a_mixture_of_everything(world: World, store: Store) -> None:
    await store.commit(puts(300, "old"))
    versions = {key: entry.version for key, entry in (await store.load()).entries.items()}
    edits = [Edit(f"services/s{n:04d}", None, versions[f"services/s{n:04d}"]) for n in range(100)]
    edits += [Edit(f"services/s{n:04d}", b"new") for n in range(100, 200)]
    edits += [Edit(f"services/t{n:04d}", b"new", "") for n in range(100)]
    edits += [Edit(f"services/u{n:04d}", None) for n in range(100)]
    await store.commit(edits)
    after = {f"services/s{n:04d}": "new" for n in range(100, 200)}
    after |= {f"services/s{n:04d}": f"old {n}" for n in range(200, 300)}
    after |= {f"services/t{n:04d}": "new" for n in range(100)}
    assert await seen(world) == after


async def test_readers_see_the_old_or_the_new(world: World, store: Store) -> None:
    """And the keys in one order, which the final one does not change."""
    await store.commit(puts(BIG, "old"))
    old = wanted(BIG, "old")
    entries = (await store.load()).entries
    edits = [Edit(key, b"new", entry.version) for key, entry in list(entries.items())[: BIG // 2]]
    edits += [Edit(key, None, entry.version) for key, entry in list(entries.items())[BIG // 2 :]]
    edits += [Edit(f"services/s{n:04d}.new", b"new", "") for n in range(200)]
    trees: list[Tree] = []
    first: list[Tree] = []

    async def read(source: Source) -> None:
        while True:
            trees.append(await source.read(None))
            await asyncio.sleep(0)

    async def follow(source: Source) -> None:
        tree = await source.read(None)
        while True:
            tree = await source.read(tree)
            first.append(tree)

    async with reading(world) as one, reading(world) as another, reading(world) as third, asyncio.timeout(PATIENCE):
        async with asyncio.TaskGroup() as group:
            readers = [group.create_task(work) for work in (read(one), read(another), follow(third))]
            while len(trees) < 4:
                await asyncio.sleep(0.01)
            await store.commit(edits)
            count = len(trees)
            while len(trees) < count + 4 or not first:
                await asyncio.sleep(0.01)
            for reader in readers:
                reader.cancel()
        final = await another.read(None)
    new = values(final)
    assert len(new) == BIG // 2 + 200 and set(new.values()) == {"new"}
    shown = [values(tree) for tree in (*trees, *first)]
    assert all(tree in (old, new) for tree in shown)
    assert shown[0] == old and values(first[-1]) == new
    assert {tuple(ordered(tree)) for tree in (*trees, *first) if values(tree) == new} == {tuple(ordered(final))}


# ---------------------------------------------------------------- at the same time


@pytest.mark.parametrize("size", [1, 70])
async def test_exactly_one_of_many_wins_each_round(world: World, size: int) -> None:
    rounds, writers = (60, 4) if size == 1 else (6, 3)
    stores = [world.store() for _ in range(writers)]
    wins = 0

    async def attempt(store: Store, name: str, edits: list[Edit]) -> str:
        try:
            await store.commit([Edit(edit.key, name.encode(), edit.expects) for edit in edits])
        except Conflict:
            return ""
        return name

    try:
        await stores[0].commit(puts(size, "first"))
        for number in range(rounds):
            edits = await again(stores[0], size, "")
            async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
                tried = [group.create_task(attempt(store, f"{number} {n}", edits)) for n, store in enumerate(stores)]
            won = [task.result() for task in tried if task.result()]
            assert len(won) == 1
            assert set(values(await stores[-1].load()).values()) == set(won)
            wins += 1
    finally:
        for store in stores:
            await store.close()
    assert wins == rounds


async def test_nothing_is_lost_between_large_and_small_writers(world: World) -> None:
    """Counters that everybody raises by reading and compare-and-set."""
    raised: dict[str, int] = {}

    async def work(store: Store, keys: list[str], turns: int) -> None:
        for _ in range(turns):
            while True:
                entries = (await store.load()).entries
                now = {key: entries.get(key) for key in keys}
                edits = [
                    Edit(key, str(int(entry.value) + 1 if entry else 1).encode(), entry.version if entry else "")
                    for key, entry in now.items()
                ]
                try:
                    await store.commit(edits)
                    break
                except Conflict:
                    await asyncio.sleep(0.01)
            for key in keys:
                raised[key] = raised.get(key, 0) + 1
        await store.close()

    many = [f"services/s{n}" for n in range(100)]
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(work(world.store(), many, 4))
        for n in range(3):
            group.create_task(work(world.store(), many[n : n + 1], 15))
    assert await seen(world) == {key: str(count) for key, count in raised.items()}
    assert raised["services/s0"] == 8 + 15 and raised["services/s99"] == 8


# ---------------------------------------------------------------- killed


async def test_cancelled_at_any_moment(world: World, store: Store) -> None:
    """Old or new; the next write works, and nothing is left of the one that was broken off."""
    await store.commit(puts(200, "0"))
    for turn in range(1, 11):
        edits = await again(store, 200, str(turn))
        old = await seen(world)
        broken = world.store()
        try:
            async with asyncio.timeout(0.01 * turn):
                await broken.commit(edits)
        except TimeoutError:
            pass
        await broken.close()
        new = wanted(200, str(turn))
        assert await seen(world) in (old, new)
        await store.commit([Edit("services/more", b"1")])
        more = {"services/more": "1"}
        assert await seen(world) in (old | more, new | more)
        await store.commit([Edit("services/more", None)])


KILLED = """
import asyncio, os, signal, sys
from tests.support.stores import again, reopened

async def main(where, step, before):
    left = step

    def count(*told):
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    store = reopened(where).store()
    edits = await again(store, 200, "new")
    if where.startswith("http"):
        transact = store._transact

        async def counted(wanted):
            if before:
                count()
            found = await transact(wanted)
            count()
            return found

        store._transact = counted
    else:
        sys.addaudithook(lambda event, told: count() if event in ("os.rename", "os.remove", "os.mkdir") else None)
    await store.commit(edits)
    print("done")

asyncio.run(main(sys.argv[1], int(sys.argv[2]), len(sys.argv) > 3))
"""


async def killed(where: str, step: int) -> str:
    """Commit in a process of its own, which is killed at that step; what it said before."""
    argv = [sys.executable, "-c", KILLED, where, str(step)]
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == (0 if out else -9)
    return out.decode().strip()


@pytest.mark.parametrize("world", ["file", "consul"], indirect=True)
class TestKilled:
    """A process that writes 200 keys, killed with SIGKILL at each step of it."""

    async def test_at_every_step(self, world: World, store: Store) -> None:
        old, new = wanted(200, "old"), wanted(200, "new")
        await store.commit(puts(200, "old"))
        alike: list[bool] = []
        consul = isinstance(world, ConsulWorld)
        step = 0
        while True:
            step += 1 if consul or step < 4 else 83
            told = await killed(world.where, step)
            now = await seen(world)
            assert now in (old, new)
            alike.append(now == new)
            await store.commit([Edit("services/more", b"1")])  # the next write works
            assert await seen(world) == now | {"services/more": "1"}
            await self._assert_clean(world)
            await store.commit([Edit("services/more", None)])
            if told:
                break
            await store.commit(await again(store, 200, "old"))
        assert now == new
        assert alike == sorted(alike) and not alike[0] and len(alike) > 5
        assert alike.index(True) < len(alike) - 3  # in force long before it was done

    async def _assert_clean(self, world: World) -> None:
        if isinstance(world, FileWorld):
            left = [path.name for path in Path(world.where).rglob(".*")]
            assert sorted(left) == [".anycastlb.journal", ".anycastlb.lock"]
            assert (Path(world.where) / ".anycastlb.journal").stat().st_size < 100


@pytest.fixture(autouse=True)
def _no_warnings(recwarn: pytest.WarningsRecorder) -> Iterator[None]:
    """A session or a file left open is told as a warning; none may be."""
    yield
    left = [str(warning.message) for warning in recwarn if issubclass(warning.category, ResourceWarning)]
    assert left == []
