"""The driver of a table in a record store: it shows the table from memory and writes to the store in the background.

``observe`` and ``apply`` never wait. The changes of one cycle are all that is to be done: the next cycle hands them
over again, or not. So a store that does not answer costs nothing and nothing piles up; when it returns it is read
first, and gets what is wanted then.

The driver emits its own events, since a cycle ends long before a change is made. It acts only while the reconciler
gives signs of life: it must not keep the names of a node that hangs (docs/decisions/0008).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from anycastlb.adapters.drivers.names import RACED, RecordStore
from anycastlb.adapters.system.clock import SYSTEM, Clock
from anycastlb.core.backoff import Backoff
from anycastlb.core.events import Event
from anycastlb.core.model import Change, DnsKey, DriverError, Failure, Reason, Registrar, Rows, Table

BACKOFF = Backoff(first=1.0, longest=60.0)
"""Between the attempts to use a record store that fails."""
AGAIN = 30.0
"""Seconds until a row that was refused is tried again."""
STUCK = 15.0
"""Seconds without a sign of life from the reconciler after which nothing is kept fresh or written any more, unless
given."""
TIMEOUT = 120.0
"""Seconds one look, or one batch of changes, may take."""


class RecordDriver:
    """``on_change`` is called whenever there is news: it must only set a flag. ``alive_at``: when the reconciler last
    gave a sign of life."""

    def __init__(
        self,
        store: RecordStore,
        emit: Callable[[Event], None] = lambda event: None,
        on_change: Callable[[], None] = lambda: None,
        alive_at: Callable[[], float] | None = None,
        stuck: float = STUCK,
        clock: Clock = SYSTEM,
    ) -> None:
        self.tables: tuple[Table, ...] = (store.table,)
        self._store, self._emit, self._on_change = store, emit, on_change
        self._clock, self._chance = clock.monotonic, clock.chance
        self._rows: Rows | None = None
        """As last seen, and written since; None before the first look."""
        self._wanted: frozenset[str] = frozenset()
        """The names that may have records."""
        self._names: frozenset[str] = frozenset()
        """Those that the store is asked for: also former ones, until a look has shown that they have no record."""
        self._asked: dict[Any, Change] = {}
        """What the current cycle wants changed."""
        self._refused: dict[Any, tuple[Change, Reason, float]] = {}
        """By row: what was refused, why, and when to try again."""
        self._error, self._since = "", self._clock()
        self._alive_at, self._stuck = alive_at or self._clock, stuck
        self._look_at = self._clock()
        self._failures = 0
        self._stir = asyncio.Event()
        self._writing = asyncio.Lock()

    # ------------------------------------------------------------ for the reconciler

    async def observe(self) -> Mapping[Table, Rows]:
        """What is there as far as is known; no table at all before it was looked at once."""
        self._asked = {}
        return {} if self._rows is None else {self._store.table: self._rows}

    async def apply(self, changes: Sequence[Change]) -> Sequence[Failure]:
        """Hand the changes over. ``registrar`` and events show what became of them."""
        self._asked.update((change.key, change) for change in changes)
        self._stir.set()
        return ()

    def registrar(self) -> Registrar:
        refused = {key: reason for key, (_, reason, _) in self._refused.items()}
        seen = self._rows is not None
        return Registrar(self._store.table, self._store.where, seen, self._error, self._since, refused)

    def want(self, names: Collection[str]) -> None:
        """The names that may have records from now on."""
        self._wanted = frozenset(names)
        if self._wanted - self._names:
            self._look_at = self._clock()
            self._stir.set()
        self._names |= self._wanted

    # ------------------------------------------------------------ in the background

    async def run(self) -> None:
        """Look and write until cancelled."""
        try:
            while True:
                self._stir.clear()
                await self._turn()
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, self._look_at - self._clock())):
                        await self._stir.wait()
                await self._held_back()
        finally:
            await self._store.close()

    async def flush(self, patience: float = 3.0) -> None:
        """Write what is still to be written, once, for at most ``patience`` seconds."""
        with suppress(TimeoutError, DriverError):
            async with asyncio.timeout(patience), self._writing:
                await self._write()

    async def _held_back(self) -> None:
        """While the store fails, it is left alone for longer and longer."""
        if self._failures:
            await asyncio.sleep(BACKOFF.delay(self._failures - 1, self._chance()))

    async def _turn(self) -> None:
        """Look if it is time to, then write."""
        if self._clock() - self._alive_at() > self._stuck:
            self._look_at = self._clock() + 1.0
            return
        try:
            async with self._writing, asyncio.timeout(TIMEOUT):
                if self._clock() >= self._look_at or self._error:
                    await self._look()
                await self._write()
            self._trouble("")
        except TimeoutError:
            self._trouble(f"{self._store.where}: not done within {TIMEOUT:.0f} s; expected a place that answers")
        except DriverError as exc:
            self._trouble(str(exc))
        except Exception as exc:  # a fault of ours here must not stop a node that serves
            self._trouble(f"{self._store.where}: please report: {exc!r:.300}")

    async def _look(self) -> None:
        asked = self._names
        rows = await self._store.look(asked)
        now = self._clock()
        self._look_at = now + self._store.period if self._wanted <= asked else now
        self._names = self._wanted | {key.name for key in rows if isinstance(key, DnsKey)}
        self._refused = {key: item for key, item in self._refused.items() if now < item[2] + AGAIN}
        self._show(rows)

    async def _write(self) -> None:
        now = self._clock()
        due = [change for change in self._asked.values() if self._due(change, now)]
        if not due or self._rows is None:
            return
        async for change, reason in self._store.write(due):
            if self._asked.get(change.key) == change:
                del self._asked[change.key]
            if reason:
                self._refuse(change, reason)
            else:
                self._done(change)

    def _due(self, change: Change, now: float) -> bool:
        assert self._rows is not None
        if self._rows.get(change.key) != change.old:
            return False  # a change of what is there no longer; the next cycle knows better
        before = self._refused.get(change.key)
        return before is None or before[0] != change or now >= before[2]

    def _done(self, change: Change) -> None:
        self._refused.pop(change.key, None)
        rows = dict(self._rows or {})
        if change.new is None:
            rows.pop(change.key, None)
        else:
            rows[change.key] = change.new
        texts = ["" if row is None else str(row) for row in (change.old, change.new)]
        self._emit(Event(f"{change.table}.{change.verb}", str(change.key), before=texts[0], after=texts[1]))
        self._show(rows)

    def _refuse(self, change: Change, reason: str) -> None:
        now, before = self._clock(), self._refused.get(change.key)
        if reason == RACED:
            self._look_at = min(self._look_at, now + 0.5)
            return
        why = Reason("name_refused", reason, str(change.key))
        if before is None or before[:2] != (change, why):
            self._emit(Event("failure", str(change), why.text, level="error", code=why.code))
            self._on_change()
        self._refused[change.key] = (change, why, now + AGAIN)

    def _show(self, rows: Rows) -> None:
        if rows != self._rows:
            self._rows = rows
            self._on_change()

    def _trouble(self, error: str) -> None:
        """The store cannot be used, or, with an empty text, can be again."""
        self._failures = self._failures + 1 if error else 0
        if error != self._error:
            self._error, self._since = error, self._clock()
            after = "away" if error else "answers"
            level: Any = "error" if error else "info"
            self._emit(Event("names", self._store.where, reason=error, after=after, level=level))
            self._on_change()
