"""Run the right checks at the right times, and publish their folded results.

The wanted checks are a set of values: a check that stays in the set keeps running undisturbed, whatever else is
reloaded. Each check has its own timer; a slow target delays only itself (``engine.places``). A check through IPVS
waits for its probe path: the firewall mark whose rows the kernel has. What a probe proves is said by
``engine.attempt``, and what follows from it by ``engine.verdicts``. Nothing is decided here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from anycastlb.adapters.checks import CheckType
from anycastlb.adapters.checks.probe.path import find_path
from anycastlb.adapters.checks.probe.sockets import error_text, own_lack
from anycastlb.adapters.system.clock import SYSTEM, Clock
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.decision import health
from anycastlb.core.model import Check, CheckState, ForwardPath, Health, ProbePath, Result
from anycastlb.engine.attempt import Attempt, attempt
from anycastlb.engine.observer import NOBODY, Observer
from anycastlb.engine.places import Habit, Places
from anycastlb.engine.verdicts import Verdicts

MAX_AT_ONCE = 1000
"""Probes under way at one time: a bound on sockets, far above what healthy backends need."""
PROMPT = 0.9
"""The share of its time-out within which a check was answered; else it counts as hanging."""
SHORTEST = 0.9
"""The share of a check's interval that jitter leaves at least."""


class Prober:
    """``publish(health, turned)`` is called with all states: at once if a verdict turned, else once a second.

    ``probe_path(via, mark)`` finds how a probe through IPVS goes now; it may raise OSError.
    """

    def __init__(
        self,
        types: Mapping[str, CheckType],
        publish: Callable[[Health, bool], None],
        journal: Journal,
        clock: Clock = SYSTEM,
        probe_path: Callable[[ForwardPath, int], ProbePath] = find_path,
        observer: Observer = NOBODY,
    ) -> None:
        self._types, self._publish = types, publish
        self._clock, self._chance = clock.monotonic, clock.chance
        self._probe_path, self._observer = probe_path, observer
        self._verdicts = Verdicts(journal, clock, observer)
        self._tasks: dict[Check, asyncio.Task[None]] = {}
        self._wanted: frozenset[Check] = frozenset()
        self._marks: Mapping[ForwardPath, int | str] = {}
        self._marked = asyncio.Event()
        self._resettle = asyncio.Event()
        self._places = Places(MAX_AT_ONCE)
        self._habits: dict[Check, Habit] = {}

    @property
    def running(self) -> int:
        """How many checks are running."""
        return len(self._tasks)

    @property
    def load(self) -> tuple[int, int, int]:
        """Probes under way, probes that wait for a place among them, and how many places there are."""
        return self._places.taken, self._places.waiting, self._places.limit

    def want(self, checks: Iterable[Check]) -> None:
        """Run these checks from now on, and stop all others."""
        wanted = frozenset(checks)
        if wanted != self._wanted:
            self._wanted = wanted
            self._resettle.set()

    def mark(self, marks: Mapping[ForwardPath, int | str]) -> None:
        """Take the firewall mark of each forward path, or why it has none. A path that is missing is not known yet."""
        if marks != self._marks:
            self._marks = marks
            self._marked.set()  # every check that waits looks again
            self._marked = asyncio.Event()

    async def run(self) -> None:
        """Run for ever, in the daemon's task group; ends all checks when cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._publish_changes())
            while True:
                await self._resettle.wait()
                self._resettle.clear()
                for check in self._tasks.keys() - self._wanted:
                    self._tasks.pop(check).cancel()
                    self._habits.pop(check, None)
                    self._verdicts.forget(check)
                for check in sorted(self._wanted - self._tasks.keys(), key=str):
                    self._tasks[check] = tasks.create_task(self._repeat(check), name=f"check {check}")

    async def _publish_changes(self) -> None:
        """Publish: a turned verdict at once (many in one go), mere fresh evidence every second."""
        verdicts = self._verdicts
        while True:
            try:
                async with asyncio.timeout(1.0):
                    await verdicts.turned.wait()
            except TimeoutError:
                if not verdicts.fresh:
                    continue
            turned = verdicts.turned.is_set()
            verdicts.turned.clear()
            verdicts.fresh = False
            self._publish(MappingProxyType(dict(verdicts.states)), turned)

    async def _repeat(self, check: Check) -> None:
        """Probe at absolute times, ``interval`` apart; the first at a random point of the first interval.

        A probe that was late is repeated at once, but only once: a node that is late all the time needs no more work.
        """
        due = self._clock()
        late = False
        if check.type != "none":
            due += self._chance() * min(check.interval, 60.0)
        while True:
            await asyncio.sleep(due - self._clock())
            ended = await self._probe(check)
            again = late = ended is not None and ended.outcome == "late" and not late
            state = self._verdicts.states[check]
            pause = 0.0 if again else self._pause(check, state)
            due = max(due + pause, self._clock())  # a probe that took longer skips a turn
            if check.down_interval is not None and state.up is False and not state.streak and not again:
                due = await self._stirred_or(due, check)

    async def _stirred_or(self, due: float, check: Check) -> float:
        """When to probe a target that is down: when it is due, or soon after another one of its kind answers again."""
        stirred = asyncio.Event()
        cancel = self._verdicts.on_stir(check, stirred.set)
        try:
            async with asyncio.timeout(due - self._clock()):
                await stirred.wait()
        except TimeoutError:
            return due
        finally:
            cancel()
        return self._clock() + self._chance() * check.interval * (1 - SHORTEST)

    def _pause(self, check: Check, state: CheckState) -> float:
        """Seconds from one probe to the next.

        Jitter keeps the checks of all nodes from marching in step. It only ever shortens an interval, so that
        ``interval * fall + timeout`` stays a promise.
        """
        if check.type == "none":
            return 3600.0
        return health.pause(check, state) * (SHORTEST + (1 - SHORTEST) * self._chance())

    async def _probe(self, check: Check) -> Attempt | None:
        """Run one probe and fold what it proves; None if this node could not send it."""
        probe_path = None
        if check.via is not None:
            while (mark := self._marks.get(check.via)) is None:
                await self._marked.wait()
            probe_path = self._path(check, check.via, mark)
            if probe_path is None:
                return None
        async with self._places.take(self._habits.get(check, "untried")):
            ended = await attempt(self._types, check, probe_path, self._clock)
        self._conclude(check, ended)
        return ended

    def _path(self, check: Check, via: ForwardPath, mark: int | str) -> ProbePath | None:
        """The path of a probe through IPVS. None if there is none, which is then already folded."""
        if isinstance(mark, str):
            self._verdicts.withhold(check, mark)
            return None
        try:
            return self._probe_path(via, mark)
        except OSError as exc:
            if own_lack(exc):
                self._verdicts.learn_nothing(check, f"this node could not probe: {error_text(exc)}", "unknown")
                return None
            self._observer.observe_result(check.type, "withheld", None)
            detail = f"no way to {via.address}: {error_text(exc)}"
            self._verdicts.fold(check, Result(False, detail, 0.0, self._clock()))
            return None

    def _conclude(self, check: Check, ended: Attempt) -> None:
        """Fold what a probe proves."""
        if not ended.proves:
            self._verdicts.learn_nothing(check, ended.result.detail, ended.outcome)
            return
        self._observer.observe_result(check.type, ended.outcome, ended.result.duration)
        prompt = ended.result.duration - ended.lost < PROMPT * check.timeout
        self._habits[check] = "answered" if prompt else "hanging"
        self._verdicts.prove(check, ended.result)
