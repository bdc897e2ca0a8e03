"""The Consul store against a real Consul: killed servers, keys changed by hand, ACLs, no leader, hangs, limits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from anycastlb.adapters.consul.faults import NOTHING, UNKNOWN
from anycastlb.adapters.consul.transaction import Operation
from anycastlb.adapters.sources.consul import ConsulSource
from anycastlb.adapters.sources.consul_store import ConsulStore
from anycastlb.core.model import Conflict, Edit, SourceError, Tree
from anycastlb.settings import ConsulSettings
from tests.support.consul import Agent, under_acl

PATIENCE = 180.0
COUNT = 200
STAGED = 4
"""Transactions of 63 keys that they take."""
TURN = 1 + STAGED + 1
"""The number of the transaction that puts them in force: after the record and the chunks."""
Hook = Callable[[int], Awaitable[None]]


class Stop(Exception):
    """A writer ends here, as if it had died."""


class Watched(ConsulStore):
    """A store that tells the number of each transaction right before it is sent."""

    def __init__(self, settings: ConsulSettings, hook: Hook) -> None:
        super().__init__(settings)
        self._hook = hook
        self.sent = 0

    async def _transact(self, wanted: Sequence[Operation]) -> dict[str, int]:
        self.sent += 1
        await self._hook(self.sent)
        return await super()._transact(wanted)


def stopping(at: int) -> Hook:
    async def hook(number: int) -> None:
        if number == at:
            raise Stop

    return hook


def doing(at: int, what: Callable[[], Any]) -> Hook:
    async def hook(number: int) -> None:
        if number == at:
            await asyncio.to_thread(what)

    return hook


@asynccontextmanager
async def opened(agent: Agent, hook: Hook | None = None, **settings: Any) -> AsyncIterator[ConsulStore]:
    told = ConsulSettings(address=agent.address, wait="2s", **settings)
    store = Watched(told, hook) if hook else ConsulStore(told)
    try:
        yield store
    finally:
        await store.close()


def puts(value: str, expects: str | None = "", count: int = COUNT) -> list[Edit]:
    return [Edit(f"services/s{n:03d}", f"{value} {n}".encode(), expects) for n in range(count)]


def wanted(value: str) -> dict[str, str]:
    return {edit.key: (edit.value or b"").decode() for edit in puts(value)}


def values(tree: Tree) -> dict[str, str]:
    return {key: entry.value.decode() for key, entry in tree.entries.items()}


def ordered(tree: Tree) -> list[str]:
    return sorted(tree.entries, key=lambda key: (tree.entries[key].created, key))


async def read(agent: Agent, after: Tree | None = None) -> Tree:
    source = ConsulSource(ConsulSettings(address=agent.address, wait="2s"))
    try:
        async with asyncio.timeout(PATIENCE):
            return await source.read(after)
    finally:
        await source.close()


async def replacing(agent: Agent, value: str) -> list[Edit]:
    entries = (await read(agent)).entries
    return [Edit(edit.key, edit.value, entries[edit.key].version) for edit in puts(value)]


def left(agent: Agent) -> bytes:
    """What is staged."""
    try:
        return agent.call("GET", "/v1/kv/anycastlb/import/?keys")
    except OSError as exc:
        assert "404" in str(exc)
        return b""


# ---------------------------------------------------------------- the server is killed


@pytest.mark.parametrize("during", [False, True])
async def test_the_server_is_killed_in_the_middle(agent: Agent, during: bool) -> None:
    """The old catalog or the new one; and what the writer was told is true."""
    async with opened(agent) as store:
        await store.commit(puts("0"))
    fates = set()
    for turn, step in enumerate((2, TURN - 1, TURN, TURN + 1, TURN + 3), 1):
        edits = await replacing(agent, str(turn))
        old, new = values(await read(agent)), wanted(str(turn))

        async with asyncio.TaskGroup() as group:

            async def kill(number: int, step: int = step, group: asyncio.TaskGroup = group) -> None:
                if number == step:
                    killing = asyncio.to_thread(agent.kill)
                    if during:
                        group.create_task(killing)
                        await asyncio.sleep(0)
                    else:
                        await killing

            async with opened(agent, kill) as store:
                try:
                    await store.commit(edits)
                    told = "done"
                except SourceError as exc:
                    told = NOTHING if NOTHING in str(exc) else UNKNOWN
                    assert told in str(exc)
        await asyncio.to_thread(agent.start)
        now = values(await read(agent))
        assert now in (old, new)
        assert now == {"done": new, NOTHING: old}.get(told, now)
        fates.add(now == new)
        async with opened(agent) as store:
            await store.commit([Edit("services/more", b"1"), Edit("drain/lb1", b"")])
            await store.commit([Edit("services/more", None), Edit("drain/lb1", None)])
        assert values(await read(agent)) == now and not left(agent)
    assert fates == {False, True}


# ---------------------------------------------------------------- in force, and not in its place


@pytest.mark.parametrize("placed", range(STAGED + 1))
async def test_what_is_in_force_is_seen_at_once_and_in_its_final_order(agent: Agent, placed: int) -> None:
    """The writer dies right after the one write that counts, or later; a reader that waits is told."""
    async with opened(agent) as store:
        await store.commit([Edit(f"services/old{n}", b"1", "") for n in (3, 1, 2)])
    edits = [*puts("new"), Edit("services/old1", b"2"), Edit("services/old2", None)]
    new = wanted("new") | {"services/old1": "2", "services/old3": "1"}
    source = ConsulSource(ConsulSettings(address=agent.address, wait="60s"))
    before = await source.read(None)
    async with asyncio.TaskGroup() as group, asyncio.timeout(PATIENCE):
        waiting = group.create_task(source.read(before))
        await asyncio.sleep(0.2)
        async with opened(agent, stopping(TURN + 1 + placed)) as store:
            with pytest.raises(Stop):
                await store.commit(edits)
        seen = await waiting
    await source.close()
    now = await read(agent)
    assert values(seen) == values(now) == new
    assert left(agent)
    async with opened(agent) as store:
        assert values(await store.load()) == new
        assert not left(agent)
        final = await read(agent)
        assert ordered(seen) == ordered(now) == ordered(final)
        versions = {key: entry.version for key, entry in final.entries.items()}
        await store.commit([Edit(key, None, version) for key, version in versions.items()])
    assert values(await read(agent)) == {}


@pytest.mark.parametrize("step", range(2, TURN + 1))
async def test_what_is_not_in_force_is_seen_by_nobody(agent: Agent, step: int) -> None:
    async with opened(agent, stopping(step)) as store:
        with pytest.raises(Stop):
            await store.commit(puts("new"))
    assert values(await read(agent)) == {}
    async with opened(agent) as store:
        await store.commit([Edit("services/web", b"1", "")])
    assert values(await read(agent)) == {"services/web": "1"}
    assert not left(agent)


async def test_a_damaged_import_is_no_catalog(agent: Agent) -> None:
    async with opened(agent, stopping(TURN + 2)) as store:
        with pytest.raises(Stop):
            await store.commit(puts("new"))
    names = json.loads(left(agent))
    agent.put(next(name for name in names if name.endswith("00002")), b"[]\n")
    for reader in (read(agent), _committed(agent)):
        with pytest.raises(SourceError, match=r"import under way is damaged .* delete the key import/commit"):
            await reader
    agent.delete("anycastlb/import/commit")
    await _committed(agent)
    async with opened(agent) as store:
        await store.load()  # sweeps
    assert "services/web" in values(await read(agent)) and not left(agent)


async def _committed(agent: Agent) -> None:
    async with opened(agent) as store:
        await store.commit([Edit("services/web", b"1", "")])


# ---------------------------------------------------------------- keys changed by hand


@pytest.mark.parametrize("step", range(1, TURN))
@pytest.mark.parametrize("change", ["set", "delete", "create"])
async def test_a_key_changed_by_hand_before_is_a_conflict(agent: Agent, step: int, change: str) -> None:
    async with opened(agent) as store:
        await store.commit(puts("old", count=COUNT - 1))
    entries = (await read(agent)).entries
    edits = [Edit(edit.key, edit.value, entries[edit.key].version) for edit in puts("new", count=COUNT - 1)]
    edits.append(Edit("services/s199", b"new", ""))
    key = "services/s199" if change == "create" else "services/s150"
    work = agent.delete if change == "delete" else lambda key: agent.put(key, "by hand")
    async with opened(agent, doing(step, lambda: work(f"anycastlb/{key}"))) as store:
        with pytest.raises(Conflict, match=f"{key} .*nothing was written"):
            await store.commit(edits)
    now = values(await read(agent))
    old = {edit.key: (edit.value or b"").decode() for edit in puts("old", count=COUNT - 1)}
    assert now == {name: value for name, value in old.items() if name != key} | (
        {} if change == "delete" else {key: "by hand"}
    )
    assert not left(agent)


@pytest.mark.parametrize("step", [TURN, TURN + 1, TURN + 3, TURN + 5])
async def test_a_key_changed_by_hand_after_is_theirs(agent: Agent, step: int) -> None:
    """From the last look before the moment on: as if the whole import had come first."""
    async with opened(agent) as store:
        await store.commit(puts("old"))
    edits = await replacing(agent, "new")
    edits[-1] = Edit("services/created", b"new", "")

    def by_hand() -> None:
        agent.put("anycastlb/services/s005", "by hand")
        agent.put("anycastlb/services/s150", "by hand")
        agent.put("anycastlb/services/created", "by hand")
        agent.delete("anycastlb/services/s151")

    seen: list[dict[str, str]] = []

    async def look(number: int) -> None:
        await doing(step, by_hand)(number)
        if number > max(step, TURN):
            seen.append(values(await read(agent)))

    async with opened(agent, look) as store:
        await store.commit(edits)
    seen.append(values(await read(agent)))
    theirs = dict.fromkeys(("services/s005", "services/s150", "services/created"), "by hand")
    after = wanted("new") | {"services/s199": "old 199"} | theirs
    del after["services/s151"]
    assert all(tree == after for tree in seen)
    assert not left(agent)


# ---------------------------------------------------------------- refused, and no answer


class TestAcl:
    @pytest.fixture
    def agent(self, require: Callable[[str], str], tmp_path: Path) -> Iterator[Agent]:
        with under_acl(require("consul"), tmp_path) as agent:
            yield agent

    async def test_a_token_that_may_not_write(self, agent: Agent, tmp_path: Path) -> None:
        token = tmp_path / "token"
        for rules, edits, key in (
            ('key_prefix "anycastlb/" { policy = "read" }', puts("1", count=1), "anycastlb/services/s000"),
            (
                'key_prefix "anycastlb/" { policy = "read" } key_prefix "anycastlb/services/" { policy = "write" }',
                puts("1"),
                "anycastlb/import/commit",
            ),
        ):
            name = f"lb{len(edits)}"
            agent.call("PUT", "/v1/acl/policy", json.dumps({"Name": name, "Rules": rules}))
            made = json.loads(agent.call("PUT", "/v1/acl/token", json.dumps({"Policies": [{"Name": name}]})))
            token.write_text(made["SecretID"])
            async with opened(agent, token_file=str(token)) as store:
                with pytest.raises(SourceError, match=f"{key} may not .*{NOTHING}.*writes key_prefix .anycastlb/"):
                    await store.commit(edits)
                assert values(await store.load()) == {}
            token.write_text("5f0c1c9e-2f3a-4b5e-9d3c-00000000dead")
            async with opened(agent, token_file=str(token)) as store:
                with pytest.raises(SourceError, match="403 ACL not found; expected a token"):
                    await store.commit(edits)


class Leaderless(Agent):
    def _leads(self) -> bool:
        try:
            return self.call("GET", "/v1/status/leader") == b'""'
        except OSError:
            return False


async def test_no_leader(require: Callable[[str], str], tmp_path: Path) -> None:
    agent = Leaderless(require("consul"), tmp_path, bootstrap_expect=3)
    agent.start()
    try:
        async with opened(agent) as store:
            for count in (1, COUNT):
                with pytest.raises(SourceError, match="No cluster leader"):
                    await store.commit(puts("1", count=count))
            with pytest.raises(SourceError, match="No cluster leader"):
                await store.load()
    finally:
        agent.kill()


@pytest.mark.parametrize("step", [1, 3, TURN, TURN + 1])
async def test_a_hanging_agent(agent: Agent, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    monkeypatch.setattr("anycastlb.adapters.consul.session.ANSWER", 1.0)
    edits = puts("1", count=1 if step == 1 else COUNT)
    async with opened(agent, doing(step, agent.freeze)) as store:
        try:
            if step > TURN:
                await store.commit(edits)  # it is in force
            else:
                known = NOTHING if step == 3 else UNKNOWN
                with pytest.raises(SourceError, match=f"no answer within .*{known}"):
                    await store.commit(edits)
        finally:
            agent.thaw()
    now = values(await read(agent))
    assert now in ({}, {edit.key: (edit.value or b"").decode() for edit in edits})
    assert now if step > TURN else step != 3 or not now


async def test_an_agent_that_is_not_there(agent: Agent) -> None:
    agent.kill()
    async with opened(agent) as store:
        with pytest.raises(SourceError, match=NOTHING):
            await store.commit(puts("1", count=1))
        with pytest.raises(SourceError, match="expected an agent that answers"):
            await store.commit(puts("1"))


async def test_a_server_with_a_smaller_limit(require: Callable[[str], str], tmp_path: Path) -> None:
    agent = Agent(require("consul"), tmp_path, limits={"txn_max_req_len": 20_000, "kv_max_value_size": 20_000})
    agent.start()
    try:
        async with opened(agent) as store:
            with pytest.raises(SourceError, match=f"413 .*{NOTHING}"):
                await store.commit([Edit("services/web", b"x" * 30_000, "")])
            with pytest.raises(SourceError, match=f"413 .*{NOTHING}"):
                await store.commit([Edit(f"services/s{n}", b"x" * 1000, "") for n in range(100)])
            assert values(await store.load()) == {} and not left(agent)
    finally:
        agent.kill()
