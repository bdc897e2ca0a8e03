"""Run the right checks at the right times, and publish their folded results.

The wanted checks are a set of values: a check that stays in the set keeps running undisturbed, whatever else is
reloaded. Each check has its own timer; a slow target delays only itself (``engine.places``). A check through IPVS
waits for its probe path: the firewall mark whose rows the kernel has. Nothing is decided here.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from anycastlb.adapters.checks import CheckType, Down
from anycastlb.adapters.checks.probe.path import find_path
from anycastlb.adapters.checks.probe.sockets import error_text, own_lack
from anycastlb.adapters.system.clock import SYSTEM, Clock
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.decision import health, weights
from anycastlb.core.events import Event
from anycastlb.core.model import AnycastlbError, Check, CheckState, ForwardPath, Health, ProbePath, Result
from anycastlb.engine.observer import NOBODY, Observer
from anycastlb.engine.places import Habit, Places

MAX_AT_ONCE = 1000
"""Probes under way at one time: a bound on sockets, far above what healthy backends need."""
COMPLAINTS = 60.0
"""Seconds between two events that say that this node lacks the means to probe."""
PROMPT = 0.9
"""The share of its time-out within which a check was answered; else it counts as hanging."""
UNPROVEN = 300.0
"""Seconds that a verdict stands although this node lacks the means to probe; then that counts as a failure."""
SHORTEST = 0.9
"""The share of a check's interval that jitter leaves at least."""


class OwnLack(AnycastlbError):
    """This node could not send a probe, for want of descriptors, memory or ports: nothing is known of the target."""


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
        self._types, self._publish, self._journal = types, publish, journal
        self._clock, self._chance = clock.monotonic, clock.chance
        self._probe_path, self._observer = probe_path, observer
        self._states: dict[Check, CheckState] = {}
        self._tasks: dict[Check, asyncio.Task[None]] = {}
        self._wanted: frozenset[Check] = frozenset()
        self._marks: Mapping[ForwardPath, int | str] = {}
        self._marked = asyncio.Event()
        self._stirred: defaultdict[Hashable, asyncio.Event] = defaultdict(asyncio.Event)
        """By kind of check: is set when one of the kind that was down answers again."""
        self._resettle = asyncio.Event()
        self._turned = asyncio.Event()
        self._fresh = False
        self._places = Places(MAX_AT_ONCE)
        self._habits: dict[Check, Habit] = {}
        self._proven: dict[Check, float] = {}
        """When each check was last answered, or not answered in time."""
        self._complain_at = self._clock()
        """When the next event may say that this node lacks the means to probe."""

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
                    self._states.pop(check, None)
                    self._habits.pop(check, None)
                    self._proven.pop(check, None)
                    self._turned.set()  # what is not checked any more must not be believed when it returns
                for check in sorted(self._wanted - self._tasks.keys(), key=str):
                    self._tasks[check] = tasks.create_task(self._repeat(check), name=f"check {check}")

    async def _publish_changes(self) -> None:
        """Publish: a turned verdict at once (many in one go), mere fresh evidence every second."""
        while True:
            try:
                async with asyncio.timeout(1.0):
                    await self._turned.wait()
            except TimeoutError:
                if not self._fresh:
                    continue
            turned = self._turned.is_set()
            self._turned.clear()
            self._fresh = False
            self._publish(MappingProxyType(dict(self._states)), turned)

    async def _repeat(self, check: Check) -> None:
        """Probe at absolute times, ``interval`` apart; the first at a random point of the first interval."""
        due = self._clock()
        if check.type != "none":
            due += self._chance() * min(check.interval, 60.0)
        while True:
            await asyncio.sleep(due - self._clock())
            state = await self._attempt(check)
            due = max(due + self._pause(check, state), self._clock())  # a probe that took longer skips a turn
            if check.down_interval is not None and state.up is False and not state.streak:
                due = await self._stirred_or(due, check)

    async def _stirred_or(self, due: float, check: Check) -> float:
        """When to probe a target that is down: when it is due, or soon after another one of its kind answers again.

        Targets that went down together may be back together, and this node must not announce long before it knows.
        """
        try:
            async with asyncio.timeout(due - self._clock()):
                await self._stirred[_kind(check)].wait()
        except TimeoutError:
            return due
        return self._clock() + self._chance() * check.interval * (1 - SHORTEST)

    def _pause(self, check: Check, state: CheckState) -> float:
        """Seconds from one probe to the next.

        Jitter keeps the checks of all nodes from marching in step. It only ever shortens an interval, so that
        ``interval * fall + timeout`` stays a promise.
        """
        if check.type == "none":
            return 3600.0
        return health.pause(check, state) * (SHORTEST + (1 - SHORTEST) * self._chance())

    async def _attempt(self, check: Check) -> CheckState:
        """Run one probe. A check through IPVS waits until it has a path."""
        probe_path = None
        if check.via is not None:
            while (mark := self._marks.get(check.via)) is None:
                await self._marked.wait()
            if isinstance(mark, str):
                self._observer.observe_result(check.type, "withheld", None)
                return self._withheld(check, mark)
            try:
                probe_path = self._probe_path(check.via, mark)
            except OSError as exc:
                if own_lack(exc):
                    return self._unknown(check, error_text(exc))
                self._observer.observe_result(check.type, "withheld", None)
                detail = f"no way to {check.via.address}: {error_text(exc)}"
                return self._fold(check, Result(False, detail, 0.0, self._clock()))
        async with self._places.take(self._habits.get(check, "untried")):
            try:
                result = await self._result(check, probe_path)
            except OwnLack as exc:
                return self._unknown(check, str(exc))
        self._proven[check] = result.at
        self._habits[check] = "answered" if result.duration < PROMPT * check.timeout else "hanging"
        return self._fold(check, result)

    def _unknown(self, check: Check, lack: str) -> CheckState:
        """The probe says nothing of the target. No verdict changes, unless it has been unproven for too long."""
        self._observer.observe_result(check.type, "unknown", None)
        now = self._clock()
        detail = f"not known: this node could not probe: {lack}"
        if now >= self._complain_at:
            self._complain_at = now + COMPLAINTS
            self._journal.emit(Event("check", str(check), reason=detail, after="unknown", level="error"))
        before = self._states.get(check, health.UNKNOWN)
        result = Result(False, detail, 0.0, now)
        if before.up is None:
            after = self._states[check] = replace(before, last=result)
            self._fresh = True
            return after
        if now - self._proven.setdefault(check, now) > UNPROVEN:
            return self._fold(check, result)
        return before

    def _withheld(self, check: Check, reason: str) -> CheckState:
        """Record that this node cannot run the check. Without any verdict this says nothing of the backend; with one it
        counts as a failure, since a verdict must not stand unproven for ever."""
        before = self._states.get(check, health.UNKNOWN)
        result = Result(False, f"cannot be checked: {reason}", 0.0, self._clock())
        if before.up is not None:
            return self._fold(check, result)
        if before.last is None or before.last.detail != result.detail:
            self._journal.emit(Event("check", str(check), reason=result.detail, after="unknown", level="error"))
            self._turned.set()  # no verdict has changed, but what is shown of the check has
        after = self._states[check] = replace(before, last=result)
        self._fresh = True
        return after

    async def _result(self, check: Check, probe_path: ProbePath | None) -> Result:
        """One probe. Raises ``OwnLack``."""
        started, finding, outcome = self._clock(), None, "good"
        try:
            async with asyncio.timeout(check.timeout):
                finding = await self._types[check.type].probe(check, probe_path)
        except Down as exc:
            if lack := own_lack(exc):
                raise OwnLack(error_text(lack)) from exc
            detail, outcome = str(exc), "bad"
        except TimeoutError:
            detail, outcome = f"no answer within {check.timeout:g} s", "timeout"
        except Exception as exc:  # a fault of the probe must not end the check
            if lack := own_lack(exc):
                raise OwnLack(error_text(lack)) from exc
            detail, outcome = f"the probe failed: {type(exc).__name__}: {exc}", "error"
        ended = self._clock()
        self._observer.observe_result(check.type, outcome, ended - started)
        if finding is None:
            return Result(False, detail, ended - started, ended)
        return Result(True, finding.detail, ended - started, ended, finding.weight, finding.drain)

    def _fold(self, check: Check, result: Result) -> CheckState:
        before = self._states.get(check, health.UNKNOWN)
        after = self._states[check] = health.step(before, result, check.rise, check.fall)
        self._fresh = True
        if check.down_interval is not None and before.up is False and result.ok and not before.streak:
            self._stirred.pop(_kind(check), asyncio.Event()).set()
        if after.up != before.up:
            words = {None: "unknown", True: "up", False: "down"}
            self._journal.emit(
                Event(
                    "check",
                    str(check),
                    reason=result.detail,
                    before=words[before.up],
                    after=words[after.up],
                    level="info" if after.up else "warning",
                )
            )
        if _matters(before) != _matters(after):
            self._turned.set()
        return after


def _kind(check: Check) -> Hashable:
    """Checks that differ in nothing but their target are of one kind, as those of one pool are."""
    return check.type, check.params, check.interval, check.timeout, check.rise, check.fall, check.down_interval


def _matters(state: CheckState) -> tuple[object, ...]:
    """What of a state a decision depends on: the verdict, and the weight that the target asks for or has earned."""
    return state.up, state.asks, weights.earned(*state.record)
