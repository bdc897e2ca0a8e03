"""Follow discoveries, and decide how much of their answers is believed.

A new instance is in force at once. A loss is not, if all instances, or too many at once, have vanished: they are kept
until they have been away for the grace period and a fresh answer confirms it, or until an operator confirms it. An
instance that is known but unfit has not vanished. A discovery that fails keeps its last answer. Nothing is parsed or
saved here (docs/decisions/0002).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from anycastlb.adapters.discovery import Discovery, DiscoveryAnswer, Kind, endpoint, ordered
from anycastlb.adapters.system.clock import SYSTEM, Clock
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.backoff import Backoff
from anycastlb.core.catalog.discovery import Instances
from anycastlb.core.catalog.shrink import shrunk
from anycastlb.core.events import Event
from anycastlb.core.model import Discover, Instance, SourceError

BACKOFF = Backoff(first=0.1, longest=5.0)
"""Between the attempts to reach a discovery that fails."""
MAX_SHOWN = 10
"""Instances named in one event."""
Kinds = Callable[[Discover], Kind]


@dataclass(frozen=True, slots=True)
class _HeldLoss:
    """An answer that is not wholly believed."""

    answer: DiscoveryAnswer
    lost: frozenset[str]
    """Names of the instances that it does not know."""
    of: int
    """How many there were before the loss: those that come meanwhile make it no smaller."""
    since: float


class Watch:
    """One discovery at work. ``changed`` is called on the loop whenever ``instances`` or ``problems`` have changed."""

    def __init__(
        self,
        wanted: Discover,
        kind: Kind,
        known: tuple[Instance, ...] | None,
        changed: Callable[[], None],
        journal: Journal,
        clock: Clock,
    ) -> None:
        self.instances = known
        """In force; None while nothing is known."""
        self.problems: tuple[str, ...] = ()
        """What an operator should know: why there are none, why they are kept, what was left out."""
        self.answered = False
        self._wanted, self._kind = wanted, kind
        self._changed, self._journal, self._clock, self._chance = changed, journal, clock.monotonic, clock.chance
        self._answer: DiscoveryAnswer | None = None
        """The last one; None: the next must be fresh."""
        self._held: _HeldLoss | None = None
        self._failures = 0

    async def run(self) -> None:
        """Follow until cancelled."""
        discovery = self._kind.make()
        try:
            while True:
                await self._step(discovery)
        finally:
            await discovery.close()

    def confirm(self) -> bool:
        """Believe the loss that is held back. False if there is none."""
        held = self._held
        if held is not None:
            self._believe(held.answer)
        return held is not None

    async def _step(self, discovery: Discovery) -> None:
        now, due = self._clock(), self._due()
        persisted = due is not None and now >= due
        try:
            async with asyncio.timeout(None if due is None or persisted else due - now) as alarm:
                answer = await discovery.read(None if persisted else self._answer)
        except TimeoutError:
            if not alarm.expired():
                raise
            return  # the loss has persisted: look again, afresh
        except SourceError as exc:
            await self._fail(str(exc))
            return
        except Exception as exc:  # a fault of ours in one discovery must not stop a node that serves
            await self._fail(f"please report: {exc!r:.300}")
            return
        self._failures, self._answer = 0, answer
        self._weigh(answer)
        if not self.answered:
            self.answered = True
            self._changed()

    def _due(self) -> float | None:
        """When the loss that is held back will have persisted."""
        grace = self._kind.doubt.grace
        return None if self._held is None or grace is None else self._held.since + grace

    def _weigh(self, answer: DiscoveryAnswer) -> None:
        now, held, due = self._clock(), self._held, self._due()
        lost = _vanished(self.instances or (), answer)
        names = frozenset(instance.name for instance in lost)
        before = held.of if held else len(self.instances or ())
        same = held is not None and names <= held.lost  # a loss is believed at its own age, not at another's
        if not self._doubted(answer, len(lost), before) or (same and due is not None and now >= due):
            self._believe(answer)
            return
        self._held = _HeldLoss(answer, names, before, held.since if held and same else now)
        grace = self._kind.doubt.grace
        until = "until it is confirmed" if grace is None else f"for {grace:g} s, or until it is confirmed"
        if self.instances is None:
            self._put(None, (*answer.problems, f"not believed {until} (anycastlb confirm)"))
            return
        of = _counted(before)
        kept_text = f"{len(lost)} of {of} vanished at once: kept {until} (anycastlb confirm)"
        self._put(ordered((*answer.instances, *lost)), (*answer.problems, kept_text))

    def _doubted(self, answer: DiscoveryAnswer, lost: int, of: int) -> bool:
        if self.instances is None:
            return not answer.instances and not answer.unfit
        emptied = lost > 0 and not answer.instances and not answer.unfit
        return shrunk(lost, of, self._kind.doubt.share, emptied)

    def _believe(self, answer: DiscoveryAnswer) -> None:
        self._held = None
        self._put(answer.instances, answer.problems)

    async def _fail(self, error: str) -> None:
        known = self.instances
        kept = "no instance is known" if known is None else f"the last answer ({_counted(len(known))}) is kept"
        self._put(known, (f"{error}; {kept}",))
        self._answer = self._held = None  # a grace is one of steady answers: it begins anew
        delay = BACKOFF.delay(self._failures, self._chance())
        self._failures += 1
        await asyncio.sleep(delay)

    def _put(self, instances: tuple[Instance, ...] | None, problems: tuple[str, ...]) -> None:
        before, self.instances = self.instances, instances
        problems_before, self.problems = self.problems, problems
        if instances != before:
            reason = _difference(before or (), instances or ())
            self._journal.emit(Event("discovery", str(self._wanted), reason, after="found"))
        if instances != before or problems != problems_before:
            self._changed()


def _vanished(force: Collection[Instance], answer: DiscoveryAnswer) -> tuple[Instance, ...]:
    """Those in force that the answer does not know any more: neither by name nor by place."""
    names = {instance.name for instance in answer.instances}
    places = {endpoint(instance) for instance in answer.instances} | answer.unfit
    return tuple(one for one in force if one.name not in names and endpoint(one) not in places)


def _difference(before: Collection[Instance], now: Collection[Instance]) -> str:
    old, new = {one.name: one for one in before}, {one.name: one for one in now}
    marks = [f"+{name}" for name in new if name not in old] + [f"-{name}" for name in old if name not in new]
    marks += [f"~{name}" for name in new if name in old and new[name] != old[name]]
    more = f" and {len(marks) - MAX_SHOWN} more" if len(marks) > MAX_SHOWN else ""
    return f"{_counted(len(now))}: {' '.join(marks[:MAX_SHOWN])}{more}"


def _counted(instances: int) -> str:
    return f"{instances} instance" + ("" if instances == 1 else "s")


class Watches:
    """One running watch for each discovery that is asked for. ``changed``: as of a watch."""

    def __init__(
        self,
        kinds: Kinds,
        changed: Callable[[], None],
        journal: Journal,
        clock: Clock = SYSTEM,
    ) -> None:
        self._kinds, self._journal, self._clock = kinds, journal, clock
        self._watches: dict[Discover, Watch] = {}
        self._saved: dict[Discover, tuple[Instance, ...]] = {}
        self._crowded = False
        self._asked = asyncio.Event()
        self._news = asyncio.Event()
        self._changed_to = changed

    def recall(self, saved: Instances) -> None:
        """What was known before a restart."""
        self._saved = dict(saved)

    def want(self, discovers: Collection[Discover]) -> None:
        """From now on these are asked for, and no others."""
        if set(discovers) == self._watches.keys():
            return
        self._watches = {wanted: self._watches.get(wanted) or self._made(wanted) for wanted in discovers}
        self._asked.set()
        self._count(discovers)

    @property
    def instances(self) -> Instances:
        """What each has found; those of which nothing is known are missing."""
        current = {wanted: watch.instances for wanted, watch in self._watches.items()}
        return {**self._saved, **{wanted: instances for wanted, instances in current.items() if instances is not None}}

    @property
    def problems(self) -> Mapping[Discover, tuple[str, ...]]:
        return {wanted: watch.problems for wanted, watch in self._watches.items() if watch.problems}

    def confirm(self) -> bool:
        """Believe every loss that is held back. False if there is none."""
        confirmed = [watch.confirm() for watch in self._watches.values()]
        return any(confirmed)

    async def answered(self, patience: float, afresh: bool = False) -> None:
        """Wait until each has answered once (or has something from before, unless ``afresh``), at most so long."""
        try:
            async with asyncio.timeout(patience):
                while any(not w.answered and (afresh or w.instances is None) for w in self._watches.values()):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as group:
            running: dict[Watch, asyncio.Task[None]] = {}
            while True:
                self._asked.clear()
                wanted = set(self._watches.values())
                for watch in running.keys() - wanted:
                    running.pop(watch).cancel()
                for watch in wanted - running.keys():
                    running[watch] = group.create_task(watch.run())
                await self._asked.wait()

    def _count(self, discovers: Collection[Discover]) -> None:
        """Report once when there are more than can be followed at a time, and once when there no longer are."""
        limited = [kind for kind in map(self._kinds, discovers) if kind.at_once]
        crowded = bool(limited) and len(limited) > limited[0].at_once
        if crowded and not self._crowded:
            reason = (
                f"{len(limited)} services are discovered in Consul, and {limited[0].at_once} at a time are followed "
                f"there: a change of any other is seen within about {limited[0].pause:g} s"
            )
            self._journal.emit(Event("discovery", "consul", reason, after="in turn", level="warning"))
        elif self._crowded and not crowded:
            self._journal.emit(Event("discovery", "consul", "all discovered services are followed", after="followed"))
        self._crowded = crowded

    def _made(self, wanted: Discover) -> Watch:
        known = self._saved.pop(wanted, None)
        return Watch(wanted, self._kinds(wanted), known, self._changed, self._journal, self._clock)

    def _changed(self) -> None:
        self._news.set()
        self._changed_to()


async def survey(
    kinds: Kinds, discovers: Collection[Discover], saved: Instances, patience: float
) -> tuple[Instances, Mapping[Discover, tuple[str, ...]]]:
    """What a node started now would discover, and its problems; it takes at most ``patience`` seconds."""
    watches = Watches(kinds, lambda: None, Journal())
    watches.recall(saved)
    watches.want(discovers)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(watches.run())
        await watches.answered(patience, afresh=True)
        running.cancel()
    return watches.instances, watches.problems
