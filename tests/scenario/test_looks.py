"""Looks at the machine that fail, omit rows or come late: one of them is not news, and costs nobody a route."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from anycastlb.core.model import Change, DriverError, Failure, Table
from anycastlb.engine.node import Node
from tests.support.world import FALL, INTERVAL, TIMEOUT, VIP, WEB, World, until


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(str(tmp_path))


def withdrawals(world: World) -> list[Change]:
    return [change for change in world.router.writes if change.new is None]


async def announced(world: World) -> None:
    """Everything is as it should be, and what was written so far is forgotten."""
    await until(lambda: VIP in world.announced and set(world.weights().values()) == {100}, within=10)
    await asyncio.sleep(2)
    world.forget()


def omit(world: World, looks: int, *tables: Table) -> None:
    """The next looks show no row of these tables."""
    last = world.kernel.looks + looks
    world.kernel.omits = lambda table, key: table in tables and world.kernel.looks <= last


async def test_a_look_that_omits_rows_writes_nothing(world: World) -> None:
    world.put("services/web", WEB)
    async with world.node() as node:
        await announced(world)
        for tables in (("services", "destinations"), ("destinations",), ("addresses",)):
            omit(world, 1, *tables)
            node.inbox.wake()
            await asyncio.sleep(10)
        assert not world.writes
        assert not [r for r in node.journal.records() if r.event.kind == "failure"]


async def test_rows_that_two_looks_omit_are_created_again_and_that_they_exist_is_no_refusal(world: World) -> None:
    world.put("services/web", WEB)
    async with world.node() as node:
        await announced(world)
        omit(world, 4, "services", "destinations")
        node.inbox.wake()
        await until(lambda: {f.reason.code for f in node.snapshot.failures} == {"exists"}, within=0.1)
        assert await until(lambda: not node.snapshot.failures, within=2) > 0.5, (
            "the next looks did not show them either"
        )
        await asyncio.sleep(10)
        assert not world.writes and VIP in world.announced
        assert all(verdict.open for verdict in node.snapshot.decision.verdicts.values())


async def test_a_row_that_is_gone_before_it_is_deleted_or_changed_closes_nothing(world: World) -> None:
    """Somebody deletes a service between the look and the write."""
    world.put("services/web", WEB)
    async with world.node():
        await announced(world)
        gone = world.kernel.rows["services"].copy(), world.kernel.rows["destinations"].copy()
        world.kernel.rows["services"].clear()
        world.kernel.rows["destinations"].clear()
        real = world.kernel.observe

        async def outdated() -> Any:
            return {**await real(), "services": gone[0], "destinations": gone[1]}

        world.kernel.observe = outdated  # type: ignore[method-assign]
        world.put("services/web", {**WEB, "scheduler": "rr", "backends": {"web1": {"address": "10.1.0.1"}}})
        await asyncio.sleep(0.5)
        world.kernel.observe = real  # type: ignore[method-assign]
        await until(lambda: world.weights().get("10.1.0.1") == 100, within=2)
        assert not withdrawals(world)


@pytest.mark.parametrize("table", ["addresses", "services", "destinations"])
async def test_what_is_really_gone_is_repaired_at_the_same_look(world: World, table: Table) -> None:
    world.put("services/web", WEB)
    async with world.node() as node:
        await announced(world)
        world.kernel.rows[table].popitem()
        node.inbox.wake()
        assert await until(lambda: world.kernel.writes, within=1) < 0.05
        assert VIP in world.announced and not withdrawals(world)


@pytest.mark.parametrize("table", ["addresses", "services", "destinations"])
async def test_what_was_lost_while_a_vip_was_closed_is_back_before_the_vip_is_announced(
    world: World, table: Table
) -> None:
    """The last look may be as old as ``resync``, and somebody deleted a row since then."""
    world.put("services/web", WEB)
    world.put("drain/lb1", {})
    async with world.node() as node:
        await until(lambda: bool(world.kernel.rows["destinations"]) and not node.snapshot.pending, within=10)
        await asyncio.sleep(2)
        world.kernel.rows[table].clear()
        seen: list[bool] = []
        real = world.router.apply

        async def record(changes: Sequence[Change]) -> Sequence[Failure]:
            seen.extend(bool(world.kernel.rows[table]) for change in changes if change.new is not None)
            return await real(changes)

        world.router.apply = record  # type: ignore[method-assign]
        world.source.delete("drain/lb1")
        await until(lambda: VIP in world.announced, within=10)
        assert seen and all(seen)


async def test_a_first_look_that_omits_a_service_is_no_loss_of_it(world: World) -> None:
    """A restart of the daemon while another program edits IPVS."""
    world.put("services/web", WEB)
    async with world.node():
        await announced(world)
    omit(world, 1, "services", "destinations")
    async with world.node():
        await asyncio.sleep(20)
        assert not world.writes


# ---------------------------------------------------------------- looks that fail


class Faults:
    """Makes the drivers' calls raise: the next ``left`` looks at the kernel, after ``takes`` seconds, and a ``share``
    of all calls."""

    def __init__(self, world: World) -> None:
        self.left, self.calls, self.share, self.takes = 0, 0, 0.0, 0.0
        for holder, name in (
            (world.kernel, "observe"),
            (world.kernel, "apply"),
            (world.kernel, "unused"),
            (world.router, "apply"),
            (world.router, "observe"),
            (world, "_counters"),
        ):
            setattr(holder, name, self._failing(getattr(holder, name), name == "observe" and holder is world.kernel))
        self._chance = world.chance

    def _failing(self, call: Any, look: bool) -> Any:
        async def failing(*args: Any) -> Any:
            self.calls += look
            if look and self.left:
                self.left -= 1
                await asyncio.sleep(self.takes or 0.001)
                raise DriverError("netlink: No such process; the next look opens a new socket")
            if self._chance.random() < self.share:
                raise DriverError("netlink: No buffer space available")
            return await call(*args)

        return failing


FOR_EVER = 10**9


def silences(world: World, since: float) -> float:
    """The longest time between two heartbeats, seconds."""
    heartbeats = [at for at in world.router.heartbeats if at >= since]
    return max(b - a for a, b in itertools.pairwise(heartbeats))


@pytest.mark.parametrize("resync", ["5s", "30s", "1m"])
async def test_one_failed_look_costs_no_heartbeat(tmp_path: Path, resync: str) -> None:
    world = World(str(tmp_path), resync=resync)
    world.put("services/web", WEB)
    faults, now = Faults(world), asyncio.get_running_loop().time
    async with world.node() as node:
        await announced(world)
        for looks in (1, 2, 3):
            since, faults.left = now(), looks
            node.inbox.wake()
            took = await until(lambda: not faults.left, within=3)
            await asyncio.sleep(90)
            assert silences(world, since) <= 1.01 and took < 1
        assert not world.writes


async def test_a_look_that_takes_long_costs_no_heartbeat(world: World) -> None:
    world.put("services/web", WEB)
    faults, now = Faults(world), asyncio.get_running_loop().time
    async with world.node() as node:
        await announced(world)
        since, faults.left, faults.takes = now(), 1, 3.0
        node.inbox.wake()
        await asyncio.sleep(30)
        assert silences(world, since) <= 1.5, "half of what the service manager waits would be 4 s"


async def test_life_is_proven_no_longer_than_half_of_what_the_others_wait(world: World) -> None:
    world.put("services/web", WEB)
    faults, now = Faults(world), asyncio.get_running_loop().time
    async with world.node() as node:
        await announced(world)
        since, faults.left = now(), FOR_EVER
        node.inbox.wake()
        await asyncio.sleep(60)
        assert 3 < max(world.router.heartbeats) - since <= 4
        faults.left = 0
        assert await until(lambda: world.router.heartbeats[-1] > now() - 0.1, within=1.1) <= 1.01
        said = [r.event for r in node.journal.records() if r.event.kind == "observe"]
        assert [(e.subject, e.after, e.level) for e in said] == [
            ("kernel", "unread", "error"),
            ("kernel", "read", "info"),
        ]


async def test_a_node_that_was_blind_proves_life_as_soon_as_it_has_read_the_kernel_once(world: World) -> None:
    """Found by the model: a row is gone meanwhile, and the second look that must confirm it held back the proof."""
    world.put("services/web", WEB)
    faults, now = Faults(world), asyncio.get_running_loop().time
    async with world.node() as node:
        await announced(world)
        faults.left = FOR_EVER
        node.inbox.wake()
        await asyncio.sleep(12)
        assert world.router.heartbeats[-1] < now() - 5, "a blind node proves nothing"
        world.kernel.rows["destinations"].popitem()
        read, real = list[float](), world.kernel.observe

        async def slow() -> Any:
            await asyncio.sleep(1.5)
            read.append(now())
            return await real()

        world.kernel.observe = slow  # type: ignore[method-assign]
        faults.left = 1
        await until(lambda: not faults.left and len(read) >= 3, within=20)
        assert next(beat for beat in world.router.heartbeats if beat > read[0]) == pytest.approx(read[1], abs=0.01), (
            "one look that erred, and one that has read the kernel"
        )


async def test_a_blind_node_that_was_frozen_decides_before_it_proves_life(world: World) -> None:
    world.put("services/web", WEB)
    faults = Faults(world)
    async with world.node() as node:
        await announced(world)
        faults.left = FOR_EVER
        node.inbox.wake()
        await asyncio.sleep(12)
        cycles = cycles_at_heartbeats(world, node)
        world.kernel.rows["destinations"].popitem()
        before, faults.left = node.snapshot.cycle, 0
        freeze(600)
        await until(lambda: cycles, within=10)
        assert cycles[0] > before


async def test_an_expired_decision_makes_no_blind_node_spin(world: World) -> None:
    world.put("services/web", {**WEB, "slow_start": "20s"})
    faults = Faults(world)
    async with world.node() as node:
        await until(lambda: VIP in world.announced, within=10)
        faults.left, before = FOR_EVER, faults.calls
        await asyncio.sleep(5)
        assert node.snapshot.decision.wake_at is not None
        await asyncio.sleep(25)
        assert faults.calls - before <= 40


async def test_routes_that_must_go_are_withdrawn_by_a_blind_node(world: World) -> None:
    world.put("services/web", WEB)
    faults = Faults(world)
    async with world.node() as node:
        await announced(world)
        faults.left, world.dead = FOR_EVER, {"10.1.0.1", "10.1.0.2", "10.1.0.3"}
        assert await until(lambda: VIP not in world.announced, within=10) < FALL * INTERVAL + TIMEOUT + 1.1
        assert world.kernel.writes == [], "nothing is written to a kernel that cannot be read"
        world.dead = set()
        await until(lambda: node.snapshot.decision.verdicts[VIP].open, within=10)
        await asyncio.sleep(5)
        assert VIP not in world.announced, "nothing is announced meanwhile"
        faults.left = 0
        await until(lambda: VIP in world.announced, within=1.1)


@pytest.mark.parametrize("seen", [True, False])
async def test_a_blind_node_that_is_stopped_withdraws_and_ends(world: World, seen: bool) -> None:
    world.put("services/web", WEB)
    faults = Faults(world)
    async with world.node():
        await announced(world)
    async with world.node() as node:
        if seen:
            await announced(world)
        faults.left = FOR_EVER
        if not seen:
            await asyncio.sleep(5)
            assert VIP in world.announced
        node.stop()
        await until(lambda: VIP not in world.announced, within=2)
        await until(lambda: node.inbox.inputs.stopping and world.source.closed, within=30)
        (last,) = [r.event for r in node.journal.records() if r.event.reason.startswith("stopped without a kernel")]
        assert "No such process" in last.reason and last.level == "error"
    assert world.kernel.rows["addresses"], "what cannot be read is not written"


async def test_a_blind_stop_that_can_see_again_leaves_nothing(world: World) -> None:
    world.put("services/web", WEB)
    faults = Faults(world)
    async with world.node() as node:
        await announced(world)
        faults.left = FOR_EVER
        node.stop()
        await asyncio.sleep(9)
        assert not world.source.closed and VIP not in world.announced
        faults.left = 0
        await until(lambda: world.source.closed, within=3)
    assert not any(world.kernel.rows.values())


async def test_connections_that_cannot_be_counted_cost_nothing(world: World) -> None:
    """Turned round: an error while a backend drained ended the daemon."""
    world.put("services/web", WEB)
    now, asked = asyncio.get_running_loop().time, list[Any]()

    async def unused(keys: Any) -> Any:
        asked.append(keys)
        raise DriverError("netlink: No such process; the next look opens a new socket")

    world.kernel.unused = unused  # type: ignore[method-assign]
    async with world.node() as node:
        await announced(world)
        since, before = now(), node.snapshot.cycle
        world.put("services/web", {**WEB, "backends": {"web1": {"address": "10.1.0.1"}}})
        await asyncio.sleep(5)
        assert world.weights() == {"10.1.0.1": 100, "10.1.0.2": 0, "10.1.0.3": 0} and node.snapshot.cycle > before
        await until(lambda: list(world.weights()) == ["10.1.0.1"], within=6)
        assert asked and silences(world, since) <= 1.01
        assert not [r.event for r in node.journal.records() if r.event.level == "error"]


@pytest.mark.parametrize("seed", range(8))
async def test_any_driver_call_may_fail_at_any_time(tmp_path: Path, seed: int) -> None:
    """A third of all calls fail, while backends leave, die and return: nobody ends, and then all is as it should be."""
    world = World(str(tmp_path), seed=seed)
    world.put("services/web", WEB)
    faults = Faults(world)
    fewer = {**WEB, "backends": {"web1": {"address": "10.1.0.1"}}}
    async with world.node() as node:
        await announced(world)
        faults.share = 0.33
        for document, dead in ((fewer, set()), (WEB, {"10.1.0.2"}), (WEB, {"10.1.0.1", "10.1.0.2", "10.1.0.3"})):
            world.put("services/web", document)
            world.dead = dead
            await asyncio.sleep(20)
        assert VIP not in world.announced
        world.dead = set()
        faults.share = 0.0
        await until(lambda: VIP in world.announced and list(world.weights().values()) == [100] * 3, within=30)
        await asyncio.sleep(5)
        assert not node.snapshot.failures and not node.snapshot.pending
        faults.share = 0.33
        node.stop()
        await until(lambda: world.source.closed, within=60)
    assert not world.announced


# ---------------------------------------------------------------- looks that come late


def freeze(seconds: float) -> None:
    """The whole process sleeps, as by SIGSTOP or a paused machine."""
    asyncio.get_running_loop()._virtual.now += seconds  # type: ignore[attr-defined]


def cycles_at_heartbeats(world: World, node: Node) -> list[int]:
    """How many cycles had ended at each heartbeat from now on."""
    real, cycles = world.router.beat, list[int]()

    def beat() -> None:
        cycles.append(node.snapshot.cycle)
        real()

    world.router.beat = beat  # type: ignore[method-assign]
    return cycles


@pytest.mark.parametrize("seconds", [20.0, 600.0])
async def test_after_a_freeze_the_first_heartbeat_follows_a_look_and_a_decision(world: World, seconds: float) -> None:
    world.put("services/web", WEB)
    async with world.node() as node:
        await announced(world)
        cycles = cycles_at_heartbeats(world, node)
        for _ in range(5):
            await asyncio.sleep(5.3)
            before = node.snapshot.cycle
            cycles.clear()
            freeze(seconds)
            await until(lambda: cycles, within=1)
            assert cycles[0] > before


async def test_a_freeze_in_the_middle_of_a_look_proves_nothing_before_the_next_decision(world: World) -> None:
    world.put("services/web", WEB)
    real, looking = world.kernel.observe, asyncio.Event()

    async def slow() -> Any:
        looking.set()
        await asyncio.sleep(2.5)
        return await real()

    async with world.node() as node:
        await announced(world)
        cycles = cycles_at_heartbeats(world, node)
        world.kernel.observe = slow  # type: ignore[method-assign]
        node.inbox.wake()
        await looking.wait()
        before = node.snapshot.cycle
        cycles.clear()
        freeze(600)
        await until(lambda: cycles, within=10)
        assert cycles[0] > before


async def test_after_a_suspend_that_only_the_wall_clock_has_seen_the_machine_is_looked_at(world: World) -> None:
    """Linux stops the monotonic clock while a machine is suspended."""
    world.put("services/web", WEB)
    async with world.node() as node:
        await announced(world)
        cycles = cycles_at_heartbeats(world, node)
        before = node.snapshot.cycle
        await until(lambda: node.snapshot.cycle > before, within=6)
        await asyncio.sleep(0.1)
        before = node.snapshot.cycle
        cycles.clear()
        world.started_wall += 600
        await until(lambda: cycles, within=1.1)
        assert cycles[0] == before + 1


@pytest.mark.parametrize("suspended", [False, True], ids=["frozen", "suspended"])
async def test_a_freeze_while_the_plan_is_carried_out_proves_nothing_before_the_next_decision(
    world: World, suspended: bool
) -> None:
    """Every backend has died meanwhile: the routes are withdrawn before the first proof of life."""
    world.put("services/web", WEB)
    real = world.kernel.apply

    async def freezing(changes: Sequence[Change]) -> Sequence[Failure]:
        world.kernel.apply = real  # type: ignore[method-assign]
        cycles.clear()
        if suspended:
            world.started_wall += 600
        else:
            freeze(600)
        return await real(changes)

    async with world.node() as node:
        await announced(world)
        await asyncio.sleep(1.5)
        cycles = cycles_at_heartbeats(world, node)
        before = node.snapshot.cycle
        world.kernel.apply = freezing  # type: ignore[method-assign]
        world.kernel.rows["addresses"].clear()
        node.inbox.wake()
        await until(lambda: world.kernel.apply == real and cycles, within=601)
        assert cycles[0] >= before + 2, "the cycle that was frozen, and one that began after it"


async def test_a_machine_that_is_merely_slow_keeps_its_routes(world: World) -> None:
    """Each plan takes longer than half of what the service manager waits: every second cycle proves life."""
    world.put("services/web", WEB)
    real = world.kernel.apply

    async def slow(changes: Sequence[Change]) -> Sequence[Failure]:
        await asyncio.sleep(5)
        failures = await real(changes)
        world.kernel.rows["addresses"].clear()  # so that there is always something to write
        return failures

    async with world.node():
        await announced(world)
        world.kernel.apply = slow  # type: ignore[method-assign]
        world.kernel.rows["addresses"].clear()
        await asyncio.sleep(20)
        for _ in range(20):
            world.router.heartbeats.clear()
            await until(lambda: world.router.heartbeats, within=12)


@pytest.mark.parametrize("lasting", [False, True])
async def test_an_apply_that_failed_is_a_refusal_only_if_it_lasts(world: World, lasting: bool) -> None:
    """Somebody deletes the service, and the driver cannot write: nobody knows what was written."""
    world.put("services/web", WEB)
    real, left = world.kernel.apply, 10**9 if lasting else 1

    async def failing(changes: Sequence[Change]) -> Sequence[Failure]:
        nonlocal left
        if left:
            left -= 1
            raise DriverError("netlink: the kernel did not answer within 10 s")
        return await real(changes)

    async with world.node() as node:
        await announced(world)
        world.kernel.apply = failing  # type: ignore[method-assign]
        world.kernel.rows["services"].clear()
        world.kernel.rows["destinations"].clear()
        node.inbox.wake()
        if lasting:
            assert await until(lambda: VIP not in world.announced, within=3) > 1.6, "0.2 + 0.5 + 1 s"
        else:
            await until(lambda: world.kernel.rows["services"], within=0.3)
            await asyncio.sleep(10)
            assert not withdrawals(world) and set(world.weights().values()) == {100}
