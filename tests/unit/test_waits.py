"""Waits that go on from one call to the next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from anycastlb.adapters.consul.waits import Waits


class Things:
    """What is waited for: each by its name, with how often somebody began to, and how often he was broken off."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.broken_off: list[str] = []
        self.news: dict[str, asyncio.Event] = {}
        self.error: Exception | None = None

    def wait(self, name: str) -> Callable[[], Coroutine[Any, Any, None]]:
        async def begin() -> None:
            self.begun.append(name)
            event = self.news.setdefault(name, asyncio.Event())
            try:
                await event.wait()
            except asyncio.CancelledError:
                self.broken_off.append(name)
                raise
            event.clear()
            if self.error is not None:
                raise self.error

        return begin

    def all(self, *names: str) -> dict[Any, Callable[[], Coroutine[Any, Any, None]]]:
        return {name: self.wait(name) for name in names}

    async def tell(self, name: str) -> None:
        while name not in self.news:
            await asyncio.sleep(0)
        self.news[name].set()


async def first(waits: Waits, things: Things, *names: str, news: str) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(waits.first(things.all(*names)))
        tasks.create_task(things.tell(news))


async def test_what_has_not_come_is_waited_for_further() -> None:
    waits, things = Waits(), Things()
    await first(waits, things, "a", "b", news="a")
    await first(waits, things, "a", "b", news="b")
    assert things.begun == ["a", "b", "a"] and not things.broken_off
    await waits.end()
    assert things.broken_off == ["a"]


async def test_what_has_come_between_two_calls_is_waited_for_anew() -> None:
    waits, things = Waits(), Things()
    await first(waits, things, "a", "b", news="a")
    await things.tell("b")
    await asyncio.sleep(0.01)
    await first(waits, things, "a", "b", news="a")
    assert things.begun == ["a", "b", "a", "b"]
    await waits.end()


async def test_what_is_not_wanted_any_more_is_broken_off() -> None:
    waits, things = Waits(), Things()
    await first(waits, things, "a", "b", news="a")
    await first(waits, things, "c", news="c")
    assert things.broken_off == ["b"]
    await waits.end()


async def test_an_error_ends_all() -> None:
    waits, things = Waits(), Things()
    things.error = ValueError("it is gone")
    with pytest.raises(ExceptionGroup):
        await first(waits, things, "a", "b", news="a")
    assert things.broken_off == ["b"]


async def test_whoever_is_cancelled_breaks_off_all() -> None:
    waits, things = Waits(), Things()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await waits.first(things.all("a", "b"))
    assert sorted(things.broken_off) == ["a", "b"]
