"""The whole daemon on fakes in virtual time: each test is a story an operator could tell."""

from __future__ import annotations

import asyncio
import itertools
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from anycastlb.core.model import Change, DriverError, State, VirtualService
from anycastlb.engine.schedule import SHORTEST
from tests.support.world import FALL, INTERVAL, TIMEOUT, VIP, WEB, World, until

SEEDS = range(25)
NO_DESTINATIONS: dict[str, int] = {}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(str(tmp_path))


async def test_a_service_is_put_and_announced(world: World) -> None:
    async with world.node() as node:
        await asyncio.sleep(1)
        assert not world.writes, "an empty catalog asks for nothing"
        world.put("services/web", WEB)
        await until(lambda: VIP in world.announced, within=1.1)
        assert set(world.weights()) == {"10.1.0.1", "10.1.0.2", "10.1.0.3"}
        tables = [change.table for change in world.kernel.writes]
        assert tables.index("addresses") < tables.index("services") < tables.index("destinations")
        await asyncio.sleep(2)
        assert world.weights() == {"10.1.0.1": 100, "10.1.0.2": 100, "10.1.0.3": 100}
        assert node.snapshot.decision.verdicts[VIP].reason.text == "3/3 backends up"


async def test_a_starting_node_announces_only_what_it_has_checked(world: World) -> None:
    """Else the flows of a backend that is not checked yet would go elsewhere on this node, unlike on its peers."""
    world.put("services/web", WEB)
    async with world.node():
        await until(lambda: VIP in world.announced, within=3)
        assert all(world.weights().values())


async def test_a_node_that_was_cut_off_announces_again_with_every_backend_that_is_back(world: World) -> None:
    """One of them is always the first to be found up; it must not get the flows of all the others."""
    world.put("services/web", WEB)
    async with world.node():
        await until(lambda: VIP in world.announced, within=3)
        world.dead.update({"10.1.0.1", "10.1.0.2", "10.1.0.3"})
        await until(lambda: VIP not in world.announced, within=5)
        await asyncio.sleep(20)
        world.dead.discard("10.1.0.1")
        world.dead.discard("10.1.0.2")
        await until(lambda: VIP in world.announced, within=5)
        assert sorted(world.weights().values()) == [0, 100, 100], "it waits for no one who is still away"


async def test_an_edited_check_takes_nobody_out(world: World) -> None:
    world.put("services/web", WEB)
    async with world.node():
        await until(lambda: list(world.weights().values()) == [100] * 3, within=3)
        world.forget()
        world.put("services/web", {**WEB, "check": {"interval": "9s", "timeout": "1s"}})
        await asyncio.sleep(30)
        assert not world.writes


async def test_a_service_that_returns_is_checked_anew(world: World) -> None:
    world.put("services/web", WEB)
    world.put("services/api", {**WEB, "vip": "192.0.2.11", "backends": {"a": {"address": "10.1.0.9"}}})
    async with world.node() as node:
        await until(lambda: len(world.announced) == 2, within=3)
        world.source.delete("services/api")
        await asyncio.sleep(60)
        assert len(node.snapshot.inputs.health) == 3, "results of dropped checks are dropped"
        world.dead.add("10.1.0.9")
        world.forget()
        world.put("services/api", {**WEB, "vip": "192.0.2.11", "backends": {"a": {"address": "10.1.0.9"}}})
        await asyncio.sleep(5)
        assert not [change for change in world.writes if change.table == "routes"]


@pytest.mark.parametrize("seed", SEEDS)
async def test_one_backend_dies_and_the_route_stays(tmp_path: Path, seed: int) -> None:
    world = World(str(tmp_path), seed=seed)
    world.put("services/web", WEB)
    async with world.node():
        await until(lambda: list(world.weights().values()) == [100] * 3, within=3)
        world.forget()
        world.dead.add("10.1.0.2")
        took = await until(lambda: world.weights()["10.1.0.2"] == 0, within=5)
        assert (FALL - 1) * SHORTEST * INTERVAL <= took <= FALL * INTERVAL + TIMEOUT
        await asyncio.sleep(60)
        assert [(c.table, str(c.key.address)) for c in world.writes] == [("destinations", "10.1.0.2")]
        world.dead.clear()
        await until(lambda: world.weights()["10.1.0.2"] == 100, within=3)
        assert len(world.writes) == 2


@pytest.mark.parametrize("seed", SEEDS)
async def test_all_backends_die_and_return(tmp_path: Path, seed: int) -> None:
    world = World(str(tmp_path), seed=seed)
    world.put("services/web", WEB)
    async with world.node() as node:
        await until(lambda: list(world.weights().values()) == [100] * 3, within=3)
        world.dead |= {"10.1.0.1", "10.1.0.2", "10.1.0.3"}
        took = await until(lambda: VIP not in world.announced, within=10)
        assert (FALL - 1) * SHORTEST * INTERVAL <= took <= FALL * INTERVAL + TIMEOUT
        verdict = node.snapshot.decision.verdicts[VIP]
        assert not verdict.open and verdict.reason.text == "0/3 backends up, needs 1"
        assert VIP in world.kernel.rows["addresses"], "only the route leaves"
        world.dead.clear()
        await until(lambda: VIP in world.announced, within=3)


async def test_a_flapping_backend_below_its_threshold_is_not_heard(world: World) -> None:
    world.put("services/web", WEB)
    async with world.node():
        await until(lambda: list(world.weights().values()) == [100] * 3, within=3)
        world.forget()
        for _ in range(20):
            world.dead.add("10.1.0.1")
            await asyncio.sleep(1.7)
            world.dead.clear()
            await asyncio.sleep(2)
        assert not world.writes


async def test_a_hundred_reloads_of_an_unchanged_catalog_write_nothing(world: World) -> None:
    world.put("services/web", WEB)
    async with world.node() as node:
        await until(lambda: list(world.weights().values()) == [100] * 3, within=3)
        world.forget()
        tasks = asyncio.all_tasks()
        before, started = dict(world.probes), asyncio.get_running_loop().time()
        for _ in range(100):
            world.put("services/web", WEB)
            node.follower.reread()
            await asyncio.sleep(0.1)
        assert not world.writes
        assert node.prober.running == 3 and len(asyncio.all_tasks()) == len(tasks)
        passed = asyncio.get_running_loop().time() - started
        for name, count in world.probes.items():
            assert count - before[name] <= passed / 0.9 + 2, "no check was restarted"


async def test_the_daemon_is_killed_and_restarted_without_a_trace(world: World) -> None:
    world.put("services/web", WEB)
    async with world.node():
        await until(lambda: list(world.weights().values()) == [100] * 3, within=3)
    world.forget()
    async with world.node() as node:
        await asyncio.sleep(30)
        assert not world.writes
        assert node.snapshot.decision.verdicts[VIP].open


async def test_a_backend_that_died_while_the_daemon_was_away_is_found(world: World) -> None:
    world.put("services/web", WEB)
    async with world.node():
        await until(lambda: list(world.weights().values()) == [100] * 3, within=3)
    world.dead.add("10.1.0.1")
    world.forget()
    async with world.node():
        await until(lambda: world.weights()["10.1.0.1"] == 0, within=2)
        assert [change.table for change in world.writes] == ["destinations"]


async def test_a_removed_backend_drains_at_weight_0_and_keeps_its_place(world: World) -> None:
    world.put("services/web", WEB)
    async with world.node():
        await until(lambda: list(world.weights().values()) == [100] * 3, within=3)
        world.forget()
        world.put("services/web", {**WEB, "backends": {k: v for k, v in WEB["backends"].items() if k != "web1"}})
        await until(lambda: world.weights()["10.1.0.1"] == 0, within=1)
        took = await until(lambda: "10.1.0.1" not in world.weights(), within=15)
        assert 9.9 <= took <= 10.5
        assert [change.verb for change in world.writes] == ["update", "delete"]


async def test_a_backend_that_returns_during_its_drain_is_taken_back(world: World) -> None:
    world.put("services/web", WEB)
    async with world.node():
        await until(lambda: list(world.weights().values()) == [100] * 3, within=3)
        world.put("services/web", {**WEB, "backends": {k: v for k, v in WEB["backends"].items() if k != "web3"}})
        await until(lambda: world.weights()["10.1.0.3"] == 0, within=1)
        await asyncio.sleep(5)
        world.put("services/web", WEB)
        await until(lambda: world.weights()["10.1.0.3"] == 100, within=3)
        await asyncio.sleep(60)
        assert list(world.weights().items()) == [("10.1.0.1", 100), ("10.1.0.2", 100), ("10.1.0.3", 100)]


async def test_a_deleted_service_is_withdrawn_at_once_and_served_until_drained(world: World) -> None:
    world.put("services/web", WEB)
    for number in (11, 12):
        world.put(f"services/s{number}", {**WEB, "vip": f"192.0.2.{number}"})
    async with world.node():
        await until(lambda: len(world.announced) == 3, within=3)
        await asyncio.sleep(3)
        world.source.delete("services/web")
        await until(lambda: VIP not in world.announced, within=1)
        await asyncio.sleep(9)
        assert VIP in world.kernel.rows["addresses"] and len(world.kernel.rows["services"]) == 3
        assert all(world.weights().values()), "what still comes is served"
        await until(lambda: len(world.kernel.rows["services"]) == 2, within=2)
        assert VIP not in world.kernel.rows["addresses"]


async def test_the_last_service_is_not_lost_by_an_empty_read(world: World) -> None:
    world.put("services/web", WEB)
    async with world.node() as node:
        await until(lambda: VIP in world.announced, within=3)
        world.source.delete("services/web")
        await asyncio.sleep(60)
        assert VIP in world.announced and node.snapshot.inputs.feed.held
        assert node.follower.confirm()
        await until(lambda: VIP not in world.announced, within=1)


async def test_while_a_catalog_is_held_drains_are_obeyed_and_a_further_loss_is_not_believed_sooner(
    world: World,
) -> None:
    for number in range(10, 20):
        world.put(f"services/s{number}", {**WEB, "vip": f"192.0.2.{number}"})
    async with world.node() as node:
        await until(lambda: len(world.announced) == 10, within=10)
        for number in range(14, 20):
            world.source.delete(f"services/s{number}")
        await until(lambda: bool(node.snapshot.inputs.feed.held), within=5)
        began = asyncio.get_running_loop().time()
        drained = {**WEB["backends"], "web1": {"address": "10.1.0.1", "drain": True}}
        for number in range(10, 14):
            world.put(f"services/s{number}", {**WEB, "vip": f"192.0.2.{number}", "backends": drained})
        rows = world.kernel.rows["destinations"]
        web1 = ip_address("10.1.0.1")
        await until(lambda: sum(row.weight > 0 for key, row in rows.items() if key.address == web1) == 6, within=2)
        world.put("drain/lb1", "the machine burns")
        await until(lambda: not world.announced, within=15)  # a drain waits for the rows of web1 to leave
        world.source.delete("drain/lb1")
        await until(lambda: len(world.announced) == 10, within=2)
        await asyncio.sleep(began + 299 - asyncio.get_running_loop().time())
        for number in range(10, 14):
            world.source.delete(f"services/s{number}")
        await asyncio.sleep(60)
        assert len(world.announced) == 10, "the last four have been away for a minute"
        await until(lambda: not world.announced, within=300)


async def test_a_drained_node_withdraws_and_goes_on_serving(world: World) -> None:
    world.put("services/web", WEB)
    async with world.node() as node:
        await until(lambda: list(world.weights().values()) == [100] * 3, within=3)
        world.forget()
        world.put("drain/lb1", "")
        await until(lambda: VIP not in world.announced, within=1)
        assert node.snapshot.decision.verdicts[VIP].reason.text == "this node is drained (drain/lb1)"
        await asyncio.sleep(100)
        assert [change.table for change in world.writes] == ["routes"], "the kernel is untouched"
        world.source.delete("drain/lb1")
        await until(lambda: VIP in world.announced, within=1)


async def test_a_stopping_node_withdraws_serves_until_drained_and_leaves_nothing(world: World) -> None:
    world.put("services/web", WEB)
    async with world.node() as node:
        await until(lambda: list(world.weights().values()) == [100] * 3, within=3)
        node.stop()
        await until(lambda: not world.announced, within=0.1)
        await asyncio.sleep(9.5)
        assert list(world.weights().values()) == [100] * 3
        await until(lambda: not world.kernel.rows["services"], within=1)
        assert not world.kernel.rows["addresses"] and world.weights() == NO_DESTINATIONS


async def test_nothing_is_torn_down_under_a_route_that_cannot_be_withdrawn(world: World) -> None:
    world.put("services/web", WEB)
    async with world.node() as node:
        await until(lambda: VIP in world.announced, within=3)
        world.router.refuse = lambda change: "no answer" if change.verb == "delete" else None
        node.stop()
        await asyncio.sleep(60)
        assert VIP in world.kernel.rows["addresses"] and world.kernel.rows["services"] and world.weights()
        world.router.refuse = lambda change: None
        await until(lambda: not world.kernel.rows["addresses"], within=6)


async def test_drift_is_repaired_within_one_resync(world: World) -> None:
    world.put("services/web", WEB)
    async with world.node():
        await until(lambda: list(world.weights().values()) == [100] * 3, within=3)
        rows = world.kernel.rows
        wanted = {table: dict(content) for table, content in rows.items()}
        for table in ("addresses", "destinations", "services"):
            rows[table].popitem()
            if table == "services":
                rows["destinations"].clear()
            await until(lambda: rows == wanted, within=5.1)
            assert [str(k.address) for k in rows["destinations"]] == ["10.1.0.1", "10.1.0.2", "10.1.0.3"]
        world.router.rows["routes"].clear()
        await until(lambda: VIP in world.announced, within=5.1)


async def test_one_service_the_kernel_refuses_stops_no_other(world: World) -> None:
    def refuse(change: Change) -> str | None:
        bad = change.table == "services" and isinstance(change.new, VirtualService) and change.new.scheduler == "fo"
        return 'scheduler "fo": the kernel has no such scheduler' if bad else None

    world.kernel.refuse = refuse
    world.put("services/bad", {**WEB, "vip": "192.0.2.66", "scheduler": "fo"})
    world.put("services/web", WEB)
    async with world.node() as node:
        await until(lambda: VIP in world.announced, within=3)
        await asyncio.sleep(20)
        bad = ip_address("192.0.2.66")
        assert world.announced == {VIP}
        assert "no such scheduler" in node.snapshot.decision.verdicts[bad].reason.text
        told = [r for r in node.journal.records() if r.event.kind == "failure"]
        assert len(told) <= 6, "a lasting failure is told once, not every cycle"
        waiting = {(change.table, change.verb) for change in node.snapshot.pending}
        assert ("services", "create") in waiting and len(node.snapshot.pending) == len(node.snapshot.failures)
        world.kernel.refuse = lambda change: None
        await until(lambda: bad in world.announced, within=10)
        assert node.snapshot.pending == ()


async def test_a_destination_the_kernel_refuses_counts_as_down_and_moves_nobody(world: World) -> None:
    world.kernel.refuse = lambda c: "refused" if c.table == "destinations" and "10.1.0.1" in str(c.key) else None
    world.put("services/web", WEB)
    async with world.node() as node:
        await until(lambda: VIP in world.announced, within=3)
        await asyncio.sleep(10)
        world.forget()
        await asyncio.sleep(60)
        assert not world.writes
        assert node.snapshot.decision.verdicts[VIP].reason.text == "2/3 backends up"


async def test_a_node_that_cannot_see_its_kernel_stops_proving_that_it_lives(world: World) -> None:
    world.put("services/web", WEB)
    async with world.node():
        await until(lambda: VIP in world.announced, within=3)
        observe = world.kernel.observe

        async def blind() -> Any:
            raise DriverError("netlink is gone")

        world.kernel.observe = blind  # type: ignore[method-assign]
        await asyncio.sleep(10)
        count = len(world.router.heartbeats)
        await asyncio.sleep(30)
        assert len(world.router.heartbeats) == count
        world.kernel.observe = observe  # type: ignore[method-assign]
        await until(lambda: len(world.router.heartbeats) > count, within=5.1)


async def test_life_is_proven_every_second(world: World) -> None:
    async with world.node():
        await asyncio.sleep(60)
        heartbeats = world.router.heartbeats
        assert max(b - a for a, b in itertools.pairwise(heartbeats)) <= 1.01


async def test_without_any_catalog_nothing_is_touched(world: World) -> None:
    world.put("services/web", WEB)
    async with world.node():
        await until(lambda: list(world.weights().values()) == [100] * 3, within=3)
    for saved in world.saved():
        saved.unlink()
    world.source.fail()
    world.forget()
    async with world.node():
        count = len(world.router.heartbeats)
        await asyncio.sleep(120)
        assert not world.writes and len(world.router.heartbeats) == count


async def test_a_node_starts_from_its_saved_catalog(world: World) -> None:
    world.put("services/web", WEB)
    async with world.node():
        await until(lambda: list(world.weights().values()) == [100] * 3, within=3)
    world.source.fail()
    world.kernel.rows = {table: {} for table in world.kernel.tables}
    world.router.rows["routes"].clear()
    async with world.node() as node:
        await until(lambda: VIP in world.announced, within=5)
        assert node.snapshot.inputs.feed.cached


async def test_garbage_in_the_catalog_harms_nobody(world: World) -> None:
    world.put("services/web", WEB)
    async with world.node() as node:
        await until(lambda: list(world.weights().values()) == [100] * 3, within=3)
        world.forget()
        garbage: list[Any] = ["{", b"\xff" * 2**20, 7, [], {**WEB, "vip": "198.51.100.1"}, {**WEB, "port": "x"}]
        for number, document in enumerate(garbage):
            world.put(f"services/bad{number}", document)
            world.put("services/web", document)
        world.put("services/thief", WEB)
        await asyncio.sleep(10)
        assert not world.writes
        named = {problem.key for problem in node.snapshot.inputs.catalog.problems}
        assert named == {f"services/bad{n}" for n in range(len(garbage))} | {"services/web", "services/thief"}


async def test_hold_up_and_hold_down(world: World) -> None:
    world.put("services/web", {**WEB, "announce": {"hold_up": "20s", "hold_down": "60s"}})
    async with world.node() as node:
        took = await until(lambda: VIP in world.announced, within=30)
        assert 20 <= took <= 22
        world.dead |= {"10.1.0.1", "10.1.0.2", "10.1.0.3"}
        await until(lambda: VIP not in world.announced, within=5)
        world.dead.clear()
        await asyncio.sleep(5)
        assert "hold_down: opens in" in node.snapshot.decision.verdicts[VIP].reason.text
        took = await until(lambda: VIP in world.announced, within=60)
        assert took >= 50


async def test_slow_start_ramps_in_tenths(world: World) -> None:
    world.put("services/web", {**WEB, "slow_start": "100s"})
    async with world.node():
        await until(lambda: VIP in world.announced, within=3)
        await asyncio.sleep(120)
        world.dead.add("10.1.0.1")
        await until(lambda: world.weights()["10.1.0.1"] == 0, within=5)
        world.dead.clear()
        world.forget()
        await until(lambda: world.weights()["10.1.0.1"] == 10, within=5)
        await asyncio.sleep(105)
        ramp = [change.new.weight for change in world.writes]
        assert ramp == list(range(10, 101, 10))


async def test_the_state_of_a_world_is_plain_data(world: World) -> None:
    """The fake kernel holds exactly what a State holds: the stories above speak of the same tables as the laws."""
    world.put("services/web", WEB)
    async with world.node() as node:
        await until(lambda: list(world.weights().values()) == [100] * 3, within=3)
        await asyncio.sleep(6)
        assert node.snapshot.actual == State(**world.kernel.rows, **world.router.rows)  # type: ignore[arg-type]
