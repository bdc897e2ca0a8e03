"""HAProxy's driver beside the reconciler, which waits for it no longer than for a kernel.

A reload takes half a second, and a HAProxy that is stopped answers never; meanwhile the routes of all other VIPs must
go on being decided. So what takes longer than ``WAIT`` goes on in the background: its changes are *pending*, and
the reconciler is woken when it is done. What failed before counts as failed until it is known to have worked.

HAProxy is asked every second, over a connection of its own, whether it lives. That it is dead is known some ms after
its death by the end of the driver's connection; that it is stopped, or that nobody can reach it any more, by this.
It is not asked by a request through a frontend: one at its ``maxconn`` would not answer, and is not dead. If another
worker answers than the driver has looked at, somebody else has reloaded HAProxy, and the driver looks again. Silence
while the driver waits for a reload says nothing: the new worker may be slow to run. That the socket refuses does; if
the master's refuses too, there is nothing left to wait for, whatever is under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from anycastlb.adapters.drivers.haproxy.driver import HaproxyDriver
from anycastlb.adapters.drivers.haproxy.errors import Away, HaproxyError
from anycastlb.adapters.drivers.haproxy.sockets import Runtime
from anycastlb.core.decision.containment import internal_error
from anycastlb.core.model import EMPTY, Change, Failure, Reason, Rows, Table

WAIT = 0.25
"""Seconds that the reconciler waits."""
INTERVAL = 1.0
"""Seconds between two questions whether HAProxy lives."""
AGAIN = 0.2
"""Seconds to the next one after the first without an answer."""
FALL = 3
"""So many in a row without an answer, and it counts as dead."""
UNDER_WAY = Reason("haproxy_under_way", "it is under way: HAProxy is being changed")
T = TypeVar("T")


class HaproxyBeside:
    """A ``Driver``. ``on_change`` must only set a flag. ``run`` has to be run."""

    tables: tuple[Table, ...] = HaproxyDriver.tables

    def __init__(self, driver: HaproxyDriver, runtime: Runtime, on_change: Callable[[], None]) -> None:
        self._driver, self._runtime, self._on_change = driver, runtime, on_change
        self._todo: asyncio.Queue[tuple[Coroutine[Any, Any, Any], asyncio.Future[Any]]] = asyncio.Queue()
        self._work: asyncio.Future[Any] | None = None
        """The outcome of what is under way, or was last."""
        self._rows: Mapping[Table, Rows] | None = None
        """As last seen; None before the first look."""
        self._just_seen = False
        """A look has ended that nobody has waited for."""
        self._failed: dict[tuple[Table, Any], Failure] = {}
        """The changes that have failed, and were not tried since."""
        self._unanswered = False
        """So many questions whether it lives were without an answer that it counts as dead."""
        self._ended = asyncio.Event()
        """A connection has ended, so HAProxy is to be asked at once whether it lives."""
        runtime.on_end = self._end

    # ------------------------------------------------------------ for the reconciler

    async def observe(self) -> Mapping[Table, Rows]:
        if self._silent:
            return dict.fromkeys(self.tables, EMPTY)
        if self._rows is None:  # what it has is adopted, so that is waited for
            self._rows = await self._contained(self._driver.observe(), self._nothing())
        elif self._just_seen or self._busy:
            self._just_seen = False
        else:
            await self._soon(self._look())
            self._just_seen = False
        return self._rows

    async def apply(self, changes: Sequence[Change]) -> Sequence[Failure]:
        if not self._busy:
            outcome = await self._soon(self._write(changes))
            if outcome is not None:
                return outcome
        return [self._pending(change) for change in changes]

    def absence(self) -> Reason | None:
        """Why HAProxy was not there when it was looked at last; None if it was."""
        return self._driver.absence if self._driver.away else None

    # ------------------------------------------------------------ work

    @property
    def _busy(self) -> bool:
        return self._work is not None and not self._work.done()

    @property
    def _silent(self) -> bool:
        """It counts as dead, and nothing was heard of it since: a look that finds it is as good as an answer."""
        return self._unanswered and self._driver.away

    def _nothing(self) -> Mapping[Table, Rows]:
        return dict.fromkeys(self.tables, EMPTY)

    async def _soon(self, work: Coroutine[Any, Any, T]) -> T | None:
        """What the work results in; None if that is not known yet."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._work = done
        self._todo.put_nowait((work, done))
        await asyncio.wait({done}, timeout=WAIT)
        if done.done():
            return done.result()
        done.add_done_callback(lambda _: self._on_change())
        return None

    async def _do(self) -> None:
        while True:
            work, done = await self._todo.get()
            done.set_result(await work)

    async def _look(self) -> None:
        was_away = self._driver.away
        rows = await self._contained(self._driver.observe(), self._nothing())
        if (was_away or self._unanswered) and not self._driver.away:
            self._failed.clear()  # for its absence
        if not self._silent:
            self._rows, self._just_seen = rows, True

    async def _write(self, changes: Sequence[Change]) -> Sequence[Failure]:
        failures = await self._driver_applies(changes)
        for change in changes:
            self._failed.pop((change.table, change.key), None)
        for failure in failures:
            if not failure.pending:
                self._failed[failure.change.table, failure.change.key] = failure
        return failures

    async def _driver_applies(self, changes: Sequence[Change]) -> Sequence[Failure]:
        try:
            return await self._driver.apply(changes)
        except Exception as exc:  # a fault of ours about HAProxy must not end the cycles of the node
            why = internal_error("HAProxy", exc, "keeps what it had")
            return [Failure(change, why) for change in changes]

    async def _contained(self, work: Coroutine[Any, Any, T], otherwise: T) -> T:
        try:
            return await work
        except Exception:  # what is to be written then says why it fails
            return otherwise

    def _pending(self, change: Change) -> Failure:
        failed = self._failed.get((change.table, change.key))
        if failed is not None and (failed.change.new == change.new or self._driver.away):
            return Failure(change, failed.reason)
        if change.table == "http_engine" and (why := self.absence()) is not None:
            return Failure(change, why)  # what it is to start with is under way, and it does not listen meanwhile
        return Failure(change, UNDER_WAY, pending=True)

    # ------------------------------------------------------------ its life

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._driver.run())
            tasks.create_task(self._do())
            tasks.create_task(self._watch())

    def _end(self) -> None:
        self._ended.set()
        self._on_change()

    async def _watch(self) -> None:
        misses = 0
        while True:
            await self._pause(misses)
            try:
                worker = await self._runtime.probe()
            except HaproxyError as exc:
                if self._driver.reloading and isinstance(exc, Away) and exc.silent:
                    continue
                gone = self._busy and self._runtime.gone()
                misses = FALL if gone else misses + 1
                if misses >= FALL and not self._silent:
                    self._silence(exc)
            else:
                misses = 0
                self._speaks(worker)

    async def _pause(self, misses: int) -> None:
        """Until HAProxy is asked again."""
        if 0 < misses < FALL:
            await asyncio.sleep(AGAIN)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(INTERVAL):
                await self._ended.wait()
        self._ended.clear()

    def _silence(self, exc: HaproxyError) -> None:
        self._unanswered = True
        if self._rows is not None:
            self._rows = self._nothing()
        self._driver.lose(exc)
        self._on_change()

    def _speaks(self, worker: int) -> None:
        was_silent, self._unanswered = self._silent, False
        if was_silent or self._driver.worker != worker:
            self._on_change()
