"""The driver that never waits, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

import pytest

from anycastlb.adapters.drivers.names.background import RecordDriver
from anycastlb.adapters.drivers.names.memory import Board, MemoryRecordStore
from anycastlb.adapters.system.clock import Clock
from anycastlb.core.events import Event
from anycastlb.core.model import Change, DnsKey, DnsRecord, Rows

pytestmark = pytest.mark.virtual_time

A, ROW = DnsKey("www.", "A", "192.0.2.1"), DnsRecord(30, "web")
CREATE = Change("dns_records", A, None, ROW)


class Desk:
    """A driver over a board in memory, and what it said."""

    def __init__(self, period: float = 30.0) -> None:
        loop = asyncio.get_running_loop()
        self.board, self.events, self.news, self.alive_at = Board(), list[Event](), 0, loop.time()
        self.place = MemoryRecordStore(self.board, period=period)
        self.hangs = False
        self.driver = RecordDriver(
            self.place, self.events.append, self._changed, self._alive, clock=Clock(loop.time, chance=lambda: 1.0)
        )
        self.driver.want(["www."])

    def _changed(self) -> None:
        self.news += 1

    def _alive(self) -> float:
        if not self.hangs:
            self.alive_at = asyncio.get_running_loop().time()
        return self.alive_at

    async def cycle(self, *changes: Change) -> Any:
        """What a reconciler does; it must take no time."""
        before = asyncio.get_running_loop().time()
        seen = await self.driver.observe()
        assert await self.driver.apply(changes) == ()
        assert asyncio.get_running_loop().time() == before
        return seen

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.driver.run())
            await asyncio.sleep(0.01)
            yield
            task.cancel()


async def test_it_is_seen_once_it_was_looked_at_and_tells_what_was_done() -> None:
    desk = Desk()
    assert await desk.cycle() == {} and not desk.driver.registrar().seen
    async with desk.running():
        assert await desk.cycle(CREATE) == {"dns_records": {}}
        await asyncio.sleep(0.01)
        assert await desk.cycle() == {"dns_records": {A: ROW}} and desk.board.rows == {A: ROW}
        assert [(event.kind, event.subject) for event in desk.events] == [("dns_records.create", str(A))]
        assert desk.news


async def test_what_is_wanted_no_more_is_not_written_when_the_place_returns() -> None:
    desk = Desk()
    async with desk.running():
        desk.board.fault = "down"
        await desk.cycle(CREATE)
        await asyncio.sleep(10)
        assert desk.driver.registrar().error.endswith("down")
        await desk.cycle()
        desk.board.fault = ""
        await asyncio.sleep(100)
        assert desk.place.writes == [] and desk.driver.registrar().error == ""
        assert [event.after for event in desk.events] == ["away", "answers"]


async def test_a_place_that_is_away_is_asked_less_and_less() -> None:
    desk = Desk()
    desk.board.fault = "down"
    async with desk.running():
        for _ in range(600):
            await desk.cycle(CREATE)
            await asyncio.sleep(1)
        assert 10 <= desk.place.looks <= 20


async def test_a_reconciler_that_hangs_keeps_nothing_fresh() -> None:
    desk = Desk(period=1.0)
    async with desk.running():
        await desk.cycle(CREATE)
        await asyncio.sleep(5)
        desk.hangs = True
        await asyncio.sleep(20)
        looks = desk.place.looks
        await asyncio.sleep(60)
        assert desk.place.looks == looks
        desk.hangs = False
        await asyncio.sleep(5)
        assert desk.place.looks > looks


async def test_a_lost_race_is_looked_at_soon_and_is_no_failure() -> None:
    desk = Desk()
    async with desk.running():
        desk.board.rows[A] = ROW  # somebody was faster
        await desk.cycle(CREATE)
        await asyncio.sleep(1)
        assert await desk.cycle() == {"dns_records": {A: ROW}}
        assert desk.events == [] and not desk.driver.registrar().refused


async def test_the_last_wishes_are_written_at_the_end_but_not_for_long() -> None:
    desk = Desk()
    loop = asyncio.get_running_loop()
    async with desk.running():
        await desk.cycle(CREATE)
        await asyncio.sleep(0.01)
        await desk.cycle(Change("dns_records", A, ROW, None))
        await desk.driver.flush()
        assert desk.board.rows == {}
        desk.board.delay = 100.0
        await desk.cycle(CREATE)
        await asyncio.sleep(0.01)
        before = loop.time()
        await desk.driver.flush(3.0)
        assert loop.time() - before <= 3.01


async def test_names_are_forgotten_once_nobody_wants_them_and_their_records_are_gone() -> None:
    desk = Desk(period=30.0)
    asked: list[set[str]] = []
    look = desk.place.look

    async def noted(names: Collection[str]) -> Rows:
        asked.append(set(names))
        return await look(names)

    desk.place.look = noted  # type: ignore[method-assign]
    key, row = DnsKey("kept.", "A", "192.0.2.1"), DnsRecord(30, "kept")
    desk.board.rows[key] = row
    desk.driver.want({"kept."})
    async with desk.running():
        for day in range(50):
            desk.driver.want({f"job-{day}-{number}." for number in range(10)})
            await asyncio.sleep(60)
        assert asked[-1] == {f"job-49-{number}." for number in range(10)} | {"kept."}
        await desk.cycle(Change("dns_records", key, row, None))
        await asyncio.sleep(100)
        assert asked[-1] == {f"job-49-{number}." for number in range(10)}


async def test_a_name_that_comes_during_a_look_is_looked_at_next() -> None:
    desk = Desk(period=30.0)
    desk.board.delay = 2.0
    key, row = DnsKey("new.", "A", "192.0.2.1"), DnsRecord(30, "new")
    desk.board.rows[key] = row
    async with desk.running():
        await asyncio.sleep(1)
        desk.driver.want({"www.", "new."})
        await asyncio.sleep(4)
        assert await desk.cycle() == {"dns_records": {key: row}}
