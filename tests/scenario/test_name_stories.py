"""Whole nodes and the names they publish, in virtual time: each test is a story."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from anycastlb.adapters.cluster.memory import MemoryRegistry
from anycastlb.adapters.drivers.names.memory import Board, MemoryRecordStore
from anycastlb.core.events import Event
from anycastlb.core.model import ConsulService, DnsKey, DnsRecord
from anycastlb.engine.node import Node
from tests.support.world import VIP, WEB, World, until

NAMES = """
[dns]
server = "127.0.0.1"
zone = "example.net"
subdomain = "lb"
tsig_key_file = "/nowhere"
"""
WWW = "www.lb.example.net."
A = DnsKey(WWW, "A", "192.0.2.10")
SRV = DnsKey(f"_http._tcp.{WWW}", "SRV", f"0 0 80 {WWW}")
NAMED = {**WEB, "dns": {"name": "www", "srv": "_http._tcp"}}
EVERY = {"10.1.0.1", "10.1.0.2", "10.1.0.3"}


@pytest.fixture
def board() -> Board:
    return Board()


def named(tmp_path: Path, board: Board, name: str = "lb1", registry: MemoryRegistry | None = None) -> World:
    world = World(str(tmp_path / name), NAMES, name=name)
    world.places = [MemoryRecordStore(board)]
    world.registry = registry
    world.put("services/web", NAMED)
    return world


def both(tmp_path: Path, board: Board, registry: MemoryRegistry) -> tuple[World, World]:
    one, two = (named(tmp_path, board, name, registry) for name in ("lb1", "lb2"))
    two.source = one.source
    return one, two


def told(node: Node, kind: str) -> list[Event]:
    return [record.event for record in node.journal.records() if record.event.kind == kind]


async def test_a_name_follows_the_gate(tmp_path: Path, board: Board) -> None:
    world = named(tmp_path, board)
    async with world.node() as node:
        await until(lambda: world.announced == {VIP}, within=10)
        await until(lambda: board.rows == {A: DnsRecord(30, "web"), SRV: DnsRecord(30, "web")}, within=1)
        assert [str(event.subject) for event in told(node, "dns_records.create")] == [str(A), str(SRV)]
        world.dead = EVERY
        await until(lambda: not world.announced, within=10)
        await until(lambda: not board.rows, within=1)
        world.dead = set()
        await until(lambda: len(board.rows) == 2, within=10)
        world.put("services/web", {**NAMED, "dns": {"name": "web", "ttl": "1m"}})
        await until(lambda: board.rows == {DnsKey("web.lb.example.net.", "A", "192.0.2.10"): DnsRecord(60, "web")}, 2)
        world.put("services/web", WEB)
        await until(lambda: not board.rows, within=2)


async def test_a_node_that_stops_takes_its_names_along(tmp_path: Path, board: Board) -> None:
    world = named(tmp_path, board)
    async with world.node() as node:
        await until(lambda: len(board.rows) == 2, within=10)
        node.stop()
        await until(lambda: not board.rows, within=1)


async def test_a_restart_changes_no_name(tmp_path: Path, board: Board) -> None:
    world = named(tmp_path, board)
    async with world.node():
        await until(lambda: len(board.rows) == 2, within=10)
    written = list(world.places[0].writes)
    world.router.connected = False  # the bridge comes a little later
    kept, world.router.rows["routes"] = world.router.rows["routes"], {}
    async with world.node() as node:
        await until(lambda: node.snapshot.cycle, within=5)
        await asyncio.sleep(3)
        world.router.connected, world.router.rows["routes"] = True, kept
        await asyncio.sleep(60)
        assert len(board.rows) == 2 and world.places[0].writes == written


async def test_the_name_stays_while_one_node_announces_it(
    tmp_path: Path, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = MemoryRegistry()
    one, two = both(tmp_path, board, registry)
    async with one.node() as first:
        async with two.node() as second:
            await until(lambda: one.announced == two.announced == {VIP}, within=10)
            await until(lambda: len(board.rows) == 2, within=2)
            await until(lambda: _announcers(first) and _announcers(second), within=5)
            one.dead = EVERY
            await until(lambda: not one.announced, within=10)
            for _ in range(300):
                await asyncio.sleep(0.2)
                assert len(board.rows) == 2
            two.dead = EVERY
            await until(lambda: not two.announced, within=10)
            await until(lambda: not board.rows, within=5)
            two.dead = set()
            await until(lambda: len(board.rows) == 2 and _announcers(first), within=10)
        # The second one is dead now, as by kill -9: the first one clears up after it.
        took = await until(lambda: not board.rows, within=25)
        assert took >= 9, "its session lives that long"


def _announcers(node: Node) -> bool:
    peers = node.snapshot.inputs.cluster.peers.values()
    return any(peer.status and VIP in peer.status.vips and peer.status.vips[VIP].announced for peer in peers)


async def test_while_consul_is_away_a_name_that_others_may_serve_stays(tmp_path: Path, board: Board) -> None:
    registry = MemoryRegistry()
    one, two = both(tmp_path, board, registry)
    async with one.node() as first, two.node():
        await until(lambda: len(board.rows) == 2 and _announcers(first), within=15)
        registry.fail("no route to host")
        await until(lambda: not first.snapshot.inputs.cluster.connected, within=10)
        one.dead = two.dead = EVERY
        await until(lambda: not one.announced and not two.announced, within=10)
        await asyncio.sleep(300)
        assert len(board.rows) == 2
        registry.heal()
        await until(lambda: not board.rows, within=20)


async def test_a_node_that_was_always_alone_decides_alone_while_consul_is_away(tmp_path: Path, board: Board) -> None:
    registry = MemoryRegistry()
    world = named(tmp_path, board, registry=registry)
    async with world.node() as node:
        await until(lambda: len(board.rows) == 2, within=10)
        registry.fail("no route to host")
        await until(lambda: not node.snapshot.inputs.cluster.connected, within=10)
        world.dead = EVERY
        await until(lambda: not board.rows, within=10)


@pytest.mark.parametrize("trouble", [{"fault": "REFUSED"}, {"delay": 1000.0}])
async def test_a_name_server_in_trouble_delays_no_route(tmp_path: Path, board: Board, trouble: dict[str, Any]) -> None:
    world = named(tmp_path, board)

    def set_trouble(values: dict[str, Any]) -> None:
        for name, value in values.items():
            setattr(board, name, value)

    async with world.node() as node:
        set_trouble(trouble)
        await until(lambda: world.announced == {VIP}, within=1.2)
        await asyncio.sleep(10)
        heartbeats = len(world.router.heartbeats)
        world.dead = EVERY
        await until(lambda: not world.announced, within=3.6)
        await asyncio.sleep(120)
        assert len(world.router.heartbeats) >= heartbeats + 120, "the dead man's switch was not fed"
        assert not board.rows
        (event,) = [event for event in told(node, "names") if event.after == "away"]
        assert board.fault in event.reason
        world.dead = set()
        await until(lambda: world.announced == {VIP}, within=3)
        set_trouble({"fault": "", "delay": 0.0})
        await until(lambda: len(board.rows) == 2, within=200)
        assert [event.after for event in told(node, "names")] == ["away", "answers"]


async def test_somebody_elses_name_is_left_alone_and_named(tmp_path: Path, board: Board) -> None:
    world = named(tmp_path, board)
    board.foreign = {WWW}
    async with world.node() as node:
        await until(lambda: SRV in board.rows, within=10)
        await asyncio.sleep(100)
        (event,) = told(node, "failure")
        assert WWW in event.subject and "did not make" in event.reason
        assert A not in board.rows
        (registrar,) = node.snapshot.registrars
        assert list(registrar.refused) == [A]
        assert [(change.verb, change.key) for change in node.snapshot.pending] == [("create", A)]
        board.foreign = set()
        await until(lambda: A in board.rows, within=40)
        await until(lambda: not node.snapshot.registrars[0].refused, within=6)


async def test_what_was_deleted_while_the_node_was_down_is_cleared_up(tmp_path: Path, board: Board) -> None:
    world = named(tmp_path, board)
    world.put("services/other", {**WEB, "vip": "192.0.2.11"})
    async with world.node():
        await until(lambda: len(board.rows) == 2, within=10)
    world.source.delete("services/web")
    async with world.node():
        await until(lambda: not board.rows, within=10)


async def test_a_record_that_somebody_deleted_or_added_is_repaired(tmp_path: Path, board: Board) -> None:
    world = named(tmp_path, board)
    strange = DnsKey(WWW, "A", "198.51.100.1")
    async with world.node():
        await until(lambda: len(board.rows) == 2, within=10)
        del board.rows[A]
        board.rows[strange] = DnsRecord(30, "web")
        await until(lambda: A in board.rows and strange not in board.rows, within=40)


async def test_a_consul_service_follows_the_gate_and_goes_with_the_node(tmp_path: Path) -> None:
    board = Board()
    world = World(str(tmp_path / "lb1"), "[consul]\nregister_services = true")
    world.places = [MemoryRecordStore(board, "consul_services", period=5.0)]
    world.put("services/web", WEB)

    def now() -> ConsulService | None:
        return next(iter(board.rows.values()), None)

    async with world.node() as node:
        await until(lambda: (row := now()) and row.passing, within=10)
        row = now()
        assert row and (row.name, row.port, row.reason) == ("anycastlb-web", 80, "3/3 backends up")
        world.dead = EVERY
        await until(lambda: (row := now()) and not row.passing, within=10)
        row = now()
        assert row and row.reason == "0/3 backends up, needs 1"
        world.dead = set()
        await until(lambda: (row := now()) and row.passing, within=10)
        world.put("services/web", {**WEB, "consul": {"name": "shop", "tags": ["public"]}})
        await until(lambda: (row := now()) and row.name == "shop" and row.tags == ("public",), within=2)
        world.put("services/web", {**WEB, "consul": False})
        await until(lambda: not board.rows, within=2)
        world.put("services/web", WEB)
        await until(lambda: (row := now()) and row.passing, within=10)
        node.stop()
        await until(lambda: not board.rows, within=1)
