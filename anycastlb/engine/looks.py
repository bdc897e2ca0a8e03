"""What a cycle looks at beside the tables, and puts into the inputs of the decision."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace

from anycastlb.adapters.drivers import Driver, Inspected
from anycastlb.adapters.system.clock import Clock
from anycastlb.core.decision import drain_traffic, sessions
from anycastlb.core.model import (
    NAMES,
    Address,
    Change,
    DestinationKey,
    DriverError,
    Failure,
    Memory,
    Rows,
    ServiceKey,
    Speaker,
    State,
    Table,
)
from anycastlb.engine.inbox import Inbox
from anycastlb.engine.machine import Machine
from anycastlb.engine.observation import Observation, observe

STEP = 0.5
"""Seconds that the wall clock must have jumped before a decision learns of it."""
WHOLE = 12
"""Where slices are looked at all the time, the kernel's services are looked at as a whole every so many ``resync``."""
EARLY = 30.0
"""Seconds after the start in which a route that is missing may only not have been reported yet."""


class Looks:
    """Each method takes one look, and puts what is new into the inbox."""

    def __init__(self, inbox: Inbox, machine: Machine, resync: float, clock: Clock) -> None:
        """``resync``: seconds between two looks at the whole machine."""
        self._inbox, self._machine, self._resync = inbox, machine, resync
        self._clock, self._wall = clock.monotonic, clock.wall
        self.due = self._clock()
        """When the next look at the machine is due."""
        self._whole_due = self._clock()
        """When the next one is due that includes what is looked at in slices meanwhile."""
        self._skipped: list[Driver] = []
        """Those whose tables this cycle has not looked at."""
        self._early = self._clock() + EARLY
        self._speaker = Speaker()

    def known_as_they_are(self, known: State | None, doubtful: bool) -> bool:
        """Choose which tables are looked at next. Is that none but those that their drivers know anyway?

        ``known``: the machine as it was last known. ``doubtful``: it may not be as it was, though nobody says where.
        """
        now, stale, inspected = self._clock(), self._inbox.stale, self._machine.inspected
        skip = [driver for driver in self._machine.drivers if stale.isdisjoint(driver.tables)]
        if doubtful or now >= self.due:
            self.due = now + self._resync
            whole = doubtful or now >= self._whole_due
            skip = [driver for driver in skip if driver is inspected and not whole]
        self._skipped = skip
        if inspected not in skip:
            self._whole_due = now + WHOLE * self._resync
        self._inbox.stale = set()
        return known is not None and len(skip) == len(self._machine.drivers)

    async def tables(self, known: State | None, read_once: Callable[[Mapping[Table, str]], None]) -> Observation:
        """What is there now of everything that is ours. ``known``: the machine as it was last known.

        Routes and names are looked at every time, since their drivers know them.
        """
        seen = await observe(self._machine.all_drivers, known, self._skipped, read_once)
        names = {table: rows for table in NAMES if (rows := seen.tables.get(table)) is not None}
        if names != self._inbox.inputs.names:
            self._inbox.put(names=names)
        return seen

    async def before_writing(self, known: State, changes: Iterable[Change]) -> Observation | None:
        """The machine anew, if what is about to be changed or announced may not be as it was last known.

        No VIP is announced by what was known of its address and its services some time ago.
        """
        inspected, services, announced = self._machine.inspected, set[ServiceKey](), set[Address]()
        written: set[Table] = set()
        for change in changes:
            if change.table == "routes" and change.old is None:
                announced.add(change.key)
            elif inspected is None:  # nobody can compare, so that what is written is looked at as a whole
                written.add(change.table)
            elif change.table in inspected.tables:
                services.add(change.key if change.table == "services" else change.key.service)
        if announced:
            services.update(key for key in known.services if key.protocol == "fwmark" or key.address in announced)
        others = [driver for driver in self._skipped if driver is not inspected]
        again = [driver for driver in others if announced or not written.isdisjoint(driver.tables)]
        if inspected is not None and inspected in self._skipped and await _differs(inspected, services):
            again.append(inspected)
        if not again:
            return None
        self._skipped = [driver for driver in self._skipped if driver not in again]
        seen = await observe(again, known)
        self._inbox.stale.update(seen.errors)
        tables: dict[str, Rows] = {str(table): rows for table, rows in seen.tables.items()}
        return Observation(seen.tables, replace(known, **tables), seen.errors)

    async def idle(self, actual: State, memory: Memory | None) -> None:
        """Which leaving backends, in the kernel at weight 0 already, have no connection left."""
        leaving = memory.leaving if memory else {}
        waiting = [key for table, key in leaving if table == "destinations" and _at_rest(actual, key)]
        try:
            idle = await self._machine.unused(waiting) if waiting else frozenset()
        except DriverError:
            return  # the next look asks again; the drain time does not depend on it
        if idle != self._inbox.inputs.idle:
            self._inbox.put(idle=idle)

    async def traffic(self, memory: Memory | None, now: float) -> None:
        """What still comes to a node that leaves, once a second; the decision looks again by itself."""
        counters, leaving = self._machine.counters, memory.node_drain if memory else None
        if counters is None or leaving is None or leaving.stage not in ("graceful", "withdrawn"):
            return
        last = self._inbox.inputs.traffic
        if last is None or now - last.at >= 0.9 * drain_traffic.LOOK:
            with suppress(DriverError):  # the deadline does not depend on it
                traffic = drain_traffic.count(await counters(), now, self._inbox.inputs.policy.marks)
                self._inbox.put(wake=False, traffic=traffic)

    def haproxy(self, actual: State, wanted: Rows) -> bool:
        """Is it news that HAProxy is not there? This very cycle is to decide by that: a plan that fails for it may have
        as many changes as there are servers. ``wanted``: its configuration, as it was decided last."""
        companion, failures = self._machine.haproxy, self._inbox.inputs.failures
        reason = companion.absence() if companion is not None and not actual.http_engine else None
        if reason is None or any(one.change.table == "http_engine" and one.change.old is None for one in failures):
            return False
        others = [one for one in failures if one.change.table != "http_engine"]
        absent = [Failure(Change("http_engine", key, None, row), reason) for key, row in wanted.items()]
        if absent:
            self._inbox.put(failures=(*others, *absent))
        return bool(absent)

    def originals(self) -> None:
        """What the drivers have remembered of settings, or struck out."""
        with suppress(DriverError):
            if (originals := self._machine.originals()) != self._inbox.inputs.originals:
                self._inbox.put(originals=originals)

    def clock(self) -> None:
        """Wall time, as far as decisions need it: its steps, not its drift."""
        wall = self._wall() - self._clock()
        if abs(wall - self._inbox.inputs.wall) > STEP:
            self._inbox.put(wake=False, wall=wall)

    def routes(self, actual: State) -> None:
        """Names follow the routes that reach a router."""
        inputs = self._inbox.inputs
        if not (inputs.policy.naming.dns or inputs.policy.naming.consul):
            return
        speaker = self.speaker()
        announced: frozenset[Address] | None = sessions.carried(actual.routes, speaker)
        if self._clock() < self._early and not speaker.connected:
            announced = announced or None
        if announced != inputs.announced:
            self._inbox.put(announced=announced)

    def speaker(self) -> Speaker:
        """What the BGP bridge reports; as it was last known where the driver cannot say."""
        with suppress(DriverError):
            self._speaker = self._machine.announcer.speaker()
        return self._speaker


async def _differs(inspected: Inspected, services: Collection[ServiceKey]) -> bool:
    """Are these services not as last seen or written? Also where nobody can say: the look that follows reports it."""
    try:
        return bool(services) and await inspected.differ(services)
    except DriverError:
        return True


def _at_rest(actual: State, key: DestinationKey) -> bool:
    row = actual.destinations.get(key)
    return row is not None and not row.weight
