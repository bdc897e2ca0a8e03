"""The four tables of the HTTP tier: what HAProxy does, changed at run time wherever HAProxy can.

*Nothing is lost by a reload or a restart.* A reload forgets servers, states and certificates that were set at run time.
So the files that HAProxy starts with are kept at what it has, a reload is asked for only after they are written with
what is wanted and checked, and what HAProxy has then is looked at before the same ``apply`` goes on.

*A hostname changes in one step.* The entries of a new graph are added beside those of the old one; then one command
switches the hostname. What nothing leads to any more is deleted a second later, when the requests that are under way
have left it. A hostname whose graph needs a new pool, header or parameter is switched after the reload, and what the
old graph needs stays in the configuration over that reload.

*HAProxy away is no failure of this driver.* Its tables are empty then, and what is to be created is refused, so that
only gates of gateways close. The files are written nevertheless, for HAProxy cannot start without them.

*A removed server* stays in HAProxy, in maintenance and at an address of its own (``work.REMOVED``): HAProxy 2.6 ends if
a server is deleted that a request waits for. From 3.0 on it is deleted once it has no connection, and everywhere it is
gone after the next reload.

Decision record: docs/decisions/0019-http-tier.md.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from anycastlb.adapters.drivers.haproxy import commands, entries, start, work
from anycastlb.adapters.drivers.haproxy.engine import INTERVAL, NOTHING, WAITS, Engine
from anycastlb.adapters.drivers.haproxy.errors import Away, HaproxyError
from anycastlb.adapters.drivers.haproxy.files import Files
from anycastlb.adapters.drivers.haproxy.installation import Installation
from anycastlb.adapters.drivers.haproxy.inventory import Inventory
from anycastlb.adapters.drivers.haproxy.observed import AWAY, Observed
from anycastlb.adapters.drivers.haproxy.sockets import Runtime
from anycastlb.adapters.drivers.haproxy.writer import ARRIVE, Key, Refusals, Writer
from anycastlb.core.model import Change, Failure, HttpEngine, Reason, Rows, Table

LINGER = 1.0
"""Seconds for which a graph stays that no hostname leads to any more, and between two tries to delete a server."""
SETTLE = 0.2
"""Seconds after a change by which the files are written."""
AWAY_REASON = Reason("haproxy_away", "HAProxy is not running: systemctl status anycastlb-haproxy")
SILENT = Reason("haproxy_silent", "HAProxy does not answer: systemctl restart anycastlb-haproxy")
OTHERWISE = Reason("haproxy_otherwise", "HAProxy is not as it was when this was decided; it is decided again")
LATER = (WAITS, OTHERWISE.code)
"""Reasons that are no failure: the change is asked for again."""
ENGINE: Key = ("http_engine", "config")


class HaproxyDriver:
    """``on_change`` must only set a flag. ``run`` does what can wait; without it, call ``tend`` now and then."""

    tables: tuple[Table, ...] = ("http_engine", "http_certificates", "http_servers", "http_sites")

    def __init__(
        self,
        installation: Installation,
        runtime: Runtime,
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._installation, self._runtime, self._on_change, self._clock = installation, runtime, on_change, clock
        files = Files(installation)
        self._inventory = Inventory(installation, files, runtime, clock)
        self._engine = Engine(installation, files, self._inventory, runtime, clock)
        self._writer = Writer(installation, runtime, self._inventory, self._engine)
        self._lock = asyncio.Lock()
        self._seen: Observed = AWAY
        self.absence = AWAY_REASON
        """Why it is away, if it is."""
        self._left: list[tuple[float, str]] = []
        """Roots that hostnames were switched away from, and when."""
        self._due: dict[Callable[[], Any], float] = {}
        """When each piece of work is due that can wait."""
        self._news = asyncio.Event()

    # ------------------------------------------------------------ for the reconciler

    async def observe(self) -> Mapping[Table, Rows]:
        """What HAProxy has; nothing if it is away. Raises no ``DriverError``."""
        async with self._lock:
            try:
                await self._look()
            except HaproxyError as exc:
                self.lose(exc)
            return {table: self._seen.rows(table) for table in self.tables}

    async def apply(self, changes: Sequence[Change]) -> Sequence[Failure]:
        """Make the changes. Raises no ``DriverError``.

        Of a HAProxy that is away one failure says enough; all else waits for it.
        """
        async with self._lock:
            refusals = await self._apply(changes) if changes else {}
            return [
                Failure(change, reason, pending=reason.code in LATER or (self.away and change.table != "http_engine"))
                for change in changes
                if (reason := refusals.get((change.table, change.key))) and not (self.away and change.new is None)
            ]

    async def run(self) -> None:
        """Do for ever what can wait. The files are written at the end too."""
        try:
            while True:
                self._news.clear()
                wait = max(0.0, min(self._due.values()) - self._clock()) if self._due else None
                try:
                    async with asyncio.timeout(wait):
                        await self._news.wait()
                except TimeoutError:
                    await self.tend()
        finally:
            if self._write in self._due:
                self._write()

    async def tend(self) -> None:
        """Do what can wait, as far as it is due: write files, delete what is not used any more."""
        async with self._lock:
            now = self._clock()
            for work_due in [one for one, at in self._due.items() if at <= now]:
                del self._due[work_due]
                try:
                    if (doing := work_due()) is not None:
                        await doing
                except HaproxyError as exc:
                    self.lose(exc)
                    self._on_change()

    def _postpone(self, work_due: Callable[[], Any], seconds: float) -> None:
        self._due[work_due] = self._clock() + seconds
        self._news.set()

    # ------------------------------------------------------------ looking

    async def _look(self) -> None:
        self._inventory.load()
        known, expected = self._inventory.maps is not None, self._inventory.digest
        self._seen = await self._inventory.look()
        if self._inventory.digest != expected:
            self._postpone(self._write, SETTLE)
        if not known:  # what was to be cleaned up by whoever was here before
            self._postpone(self._clean, LINGER)
        if self._seen.out_of_use:
            self._due.setdefault(self._delete_servers, self._clock() + LINGER)
            self._news.set()

    @property
    def away(self) -> bool:
        """Was it not there at the last look?"""
        return self._seen.info is None

    @property
    def worker(self) -> int | None:
        """The pid of the worker that was looked at last; None: none was there."""
        return self._seen.info.pid if self._seen.info else None

    @property
    def reloading(self) -> bool:
        """Is it waiting for a reload?"""
        return self._engine.reloading

    def lose(self, exc: HaproxyError) -> None:
        """It is away."""
        if isinstance(exc, Away):
            self.absence = SILENT if exc.silent else AWAY_REASON
        else:
            self.absence = Reason("haproxy_unknown_answer", str(exc))
        self._runtime.close()
        self._inventory.forget()
        self._seen = AWAY

    # ------------------------------------------------------------ changing

    async def _apply(self, changes: Sequence[Change]) -> Refusals:
        wanted = _folded(self._seen, changes)
        self._inventory.load()
        if self._decided_otherwise(changes):
            self._on_change()
            return dict.fromkeys(((change.table, change.key) for change in changes), OTHERWISE)
        if self._seen.info is None:
            return await self._prepare_start(changes, wanted)
        refusals: Refusals = {}
        try:
            todo = list(changes)
            if any(change.table == "http_engine" for change in changes):
                if reason := await self._renew(wanted):
                    refusals[ENGINE] = reason
                    todo = [change for change in changes if change.table != "http_engine"]
                else:
                    await self._look()
                    todo = _differences(self._seen, wanted)
                    if self._other_has_come(wanted):
                        text = "HAProxy came up with the configuration before; it is reloaded again in a moment"
                        refusals[ENGINE] = Reason(WAITS, text)
                        self._postpone(self._on_change, INTERVAL)
            if self._seen.foreign:
                why = refusals.get(ENGINE, self._other_configuration())
                return dict.fromkeys(((change.table, change.key) for change in changes), why)
            refusals |= await self._writer.write(todo, self._seen, refusals.get(ENGINE))
        except HaproxyError as exc:
            self.lose(exc)
            return {(change.table, change.key): self.absence for change in changes}
        self._wrote([one for one in todo if (one.table, one.key) not in refusals])
        return refusals

    def _wrote(self, changes: Sequence[Change]) -> None:
        now = self._clock()
        for change in changes:
            if change.table == "http_sites" and change.key in self._seen.sites:
                self._left.append((now, self._seen.sites[change.key].root))
        self._seen = _folded(self._seen, changes)
        self._due.setdefault(self._clean, now + LINGER)
        self._due.setdefault(self._delete_servers, now + LINGER)
        self._postpone(self._write, SETTLE)

    def _decided_otherwise(self, changes: Iterable[Change]) -> bool:
        """Has HAProxy gone, returned or been reloaded since what these changes were decided from?

        One that returns has all that it had, and to create that once more would be a reload for nothing; for one that
        is gone, the little that was to be changed is not what it is to start with.
        """
        return any(
            (change.table, change.key) == ENGINE and change.old != self._seen.engine.get(change.key)
            for change in changes
        )

    def _other_has_come(self, wanted: Observed) -> bool:
        row = self._seen.engine.get("config")
        return row != wanted.engine.get("config") and self._inventory.knows(row)

    def _other_configuration(self) -> Reason:
        text = f"the HAProxy at {self._installation.socket} does not run with {self._installation.config}"
        return Reason("haproxy_other_config", f"{text}: systemctl status anycastlb-haproxy")

    async def _prepare_start(self, changes: Sequence[Change], wanted: Observed) -> Refusals:
        """HAProxy is away: write what it is to start with."""
        reason = await start.write(self._engine, self._installation, wanted, self._inventory.wanted or {})
        return dict.fromkeys(((change.table, change.key) for change in changes), reason or self.absence)

    async def _renew(self, wanted: Observed) -> Reason | None:
        """Reload with the wanted configuration and servers, and with the sites as they are."""
        if self._clock() < self._engine.next_reload():
            self._postpone(self._on_change, self._engine.next_reload() - self._clock())
            return Reason(WAITS, "HAProxy was reloaded a moment ago; it is reloaded again in a moment")
        row: HttpEngine = wanted.engine.get("config", NOTHING)
        reason = await self._engine.reload(row, replace(wanted, sites=self._seen.sites))
        if reason is not None and reason.code in (WAITS, "haproxy_master_away"):
            self._postpone(self._on_change, INTERVAL)
        return reason

    # ------------------------------------------------------------ what can wait

    def _write(self) -> None:
        """Let the files say what HAProxy has."""
        if self._seen.info is None or "config" not in self._seen.engine:
            return
        try:
            self._engine.write(self._seen)
        except OSError:
            self._postpone(self._write, LINGER)

    async def _clean(self) -> None:
        """Delete what no hostname leads to any more."""
        maps = self._inventory.maps
        if self._seen.info is None or maps is None:
            return
        now = self._clock()
        self._left = [(at, root) for at, root in self._left if now - at < LINGER]
        roots = {*(site.root for site in self._seen.sites.values()), *(root for _, root in self._left)}
        alive = entries.live(maps, roots)
        if self._left:
            self._postpone(self._clean, LINGER)
        gone = list(entries.stale(maps, alive))
        await self._writer.do(work.deletions(gone, self._installation))
        if gone:
            self._inventory.deleted(gone)
            self._write()

    async def _delete_servers(self) -> None:
        """Delete servers that are out of use, where that is safe, and as soon as they have no connection."""
        info = self._seen.info
        if info is None or not info.deletes_servers:
            return
        before = self._seen
        await self._look()
        if any(before.rows(table) != self._seen.rows(table) for table in self.tables):
            self._on_change()  # the reconciler has not seen that, and would not look before its next resync
        keys = sorted(self._seen.out_of_use, key=str)
        if any(await self._writer.do(map(commands.delete_server, keys))):
            self._postpone(self._delete_servers, LINGER)


def _folded(rows: Observed, changes: Iterable[Change]) -> Observed:
    """The rows after the changes."""
    tables: dict[str, dict[Any, Any]] = {}
    for change in changes:
        name = change.table.removeprefix("http_")
        if name not in tables:
            tables[name] = dict(rows.rows(change.table))
        if change.new is None:
            tables[name].pop(change.key, None)
        else:
            tables[name][change.key] = change.new
    return replace(rows, **tables)  # type: ignore[arg-type]


def _differences(seen: Observed, wanted: Observed) -> list[Change]:
    """What is not as it is wanted, but for the engine."""
    changes = []
    for table in ARRIVE:
        old, new = seen.rows(table), wanted.rows(table)
        changes += [Change(table, key, old.get(key), row) for key, row in new.items() if old.get(key) != row]
        changes += [Change(table, key, row, None) for key, row in old.items() if key not in new]
    return changes
