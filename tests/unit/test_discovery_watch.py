"""The watch: what of a discovery is believed, and when."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import Any

import pytest

from anycastlb.adapters.discovery import DiscoveryAnswer, Kind, LossRule, endpoint
from anycastlb.adapters.discovery.memory import MemoryDiscovery, nowhere
from anycastlb.adapters.discovery.watch import Watch, Watches, survey
from anycastlb.adapters.system.clock import Clock
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.events import Event
from anycastlb.core.model import ConsulInstances, Discover, Instance, Share

pytestmark = pytest.mark.virtual_time

WANTED = ConsulInstances("web")
GRACE = 5.0
HALF = Share(percent=50.0)
WHOLE = Share(percent=100.0)


def some(*numbers: int) -> tuple[Instance, ...]:
    return tuple(Instance(f"web{n}", ip_address(f"10.1.0.{n}"), 8080, created=n) for n in numbers)


def unfit(*numbers: int) -> tuple[Any, ...]:
    return tuple(endpoint(instance) for instance in some(*numbers))


class Desk:
    """A watch at work in virtual time, over a discovery in memory."""

    def __init__(
        self, known: tuple[Instance, ...] | None = None, share: Share = HALF, grace: float | None = GRACE
    ) -> None:
        self.discovery = MemoryDiscovery()
        self.journal = Journal()
        self.changes = 0
        self.history: list[int] = []
        clock = asyncio.get_running_loop().time
        kind = Kind(lambda: self.discovery, LossRule(share, grace))
        self.watch = Watch(WANTED, kind, known, self._changed, self.journal, Clock(clock, chance=lambda: 1.0))

    def _changed(self) -> None:
        self.changes += 1
        self.history.append(len(self.watch.instances or ()))

    async def __aenter__(self) -> Desk:
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        self._task = self._group.create_task(self.watch.run())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *error: Any) -> None:
        self._task.cancel()
        await self._group.__aexit__(*error)

    async def put(self, *numbers: int, unfit: tuple[Any, ...] = (), after: float = 0.01) -> None:
        self.discovery.put(*some(*numbers), unfit=unfit)
        await asyncio.sleep(after)

    @property
    def numbers(self) -> list[int] | None:
        found = self.watch.instances
        return None if found is None else [int(instance.name[3:]) for instance in found]

    def events(self) -> list[Event]:
        return [record.event for record in self.journal.records()]


async def test_what_comes_and_leaves_one_by_one_is_believed_at_once() -> None:
    async with Desk() as desk:
        await desk.put(1, 2, 3, 4)
        assert desk.numbers == [1, 2, 3, 4]
        for left in ((1, 2, 4), (2, 4), (2,)):
            await desk.put(*left)
            assert desk.numbers == list(left)
        assert not desk.watch.problems
        assert desk.events()[-1].reason == "1 instance: -web4"
        assert desk.events()[0].subject == "consul service web"


async def test_too_many_at_once_are_kept_and_new_ones_come_in() -> None:
    async with Desk() as desk:
        await desk.put(1, 2, 3, 4)
        await desk.put(4, 5)
        assert desk.numbers == [1, 2, 3, 4, 5]
        assert "3 of 4 instances vanished at once: kept for 5 s" in desk.watch.problems[0]
        await asyncio.sleep(GRACE - 0.1)
        assert desk.numbers == [1, 2, 3, 4, 5]
        sure = desk.discovery.sure
        await asyncio.sleep(0.2)
        assert desk.numbers == [4, 5] and not desk.watch.problems
        assert desk.discovery.sure == sure + 1, "believed of a fresh answer only"


async def test_a_loss_that_is_undone_leaves_no_trace() -> None:
    async with Desk() as desk:
        await desk.put(1, 2)
        desk.history.clear()
        await desk.put(after=3)
        assert desk.numbers == [1, 2] and desk.watch.problems
        await desk.put(1, 2)
        assert not desk.watch.problems
        await desk.put(after=3)
        assert desk.numbers == [1, 2], "a new loss has a grace of its own"
        assert min(desk.history) == 2


async def test_the_grace_begins_anew_after_a_failure() -> None:
    async with Desk() as desk:
        await desk.put(1, 2)
        await desk.put(after=3)
        desk.discovery.fail()
        await asyncio.sleep(10)
        assert desk.numbers == [1, 2]
        assert desk.watch.problems == ("the discovery is down; the last answer (2 instances) is kept",)
        desk.discovery.heal()
        await asyncio.sleep(5.1)  # the longest back-off
        assert desk.numbers == [1, 2], "the server may have just become leader"
        await asyncio.sleep(GRACE)
        assert desk.numbers == []


async def test_who_is_unfit_has_not_vanished() -> None:
    async with Desk() as desk:
        await desk.put(1, 2, 3)
        await desk.put(unfit=unfit(1, 2, 3))
        assert desk.numbers == [], "all at once, and at once"
        await desk.put(1, 2, 3)
        await desk.put(3, unfit=unfit(1))
        assert desk.numbers == [3]
        await desk.put(unfit=unfit(1))
        assert desk.numbers == [3], "but the last one is missing"


async def test_who_moves_or_is_renamed_has_not_vanished() -> None:
    async with Desk() as desk:
        await desk.put(1, 2)
        moved = [Instance(f"web{n}", ip_address(f"10.2.0.{n}"), 8080, created=n) for n in (1, 2)]
        desk.discovery.put(*moved)
        await asyncio.sleep(0.01)
        assert desk.watch.instances == tuple(moved)
        renamed = [Instance(f"new{n}", ip_address(f"10.2.0.{n}"), 8080, created=n) for n in (1, 2)]
        desk.discovery.put(*renamed)
        await asyncio.sleep(0.01)
        assert desk.watch.instances == tuple(renamed)


async def test_another_whole_answer_may_be_believed() -> None:
    """As of DNS: what it says is said in one piece."""
    async with Desk(share=WHOLE, grace=None) as desk:
        await desk.put(1, 2)
        await desk.put(3)
        assert desk.numbers == [3]
        await desk.put(after=1e6)
        assert desk.numbers == [3] and "kept until it is confirmed" in desk.watch.problems[0]
        assert desk.watch.confirm() and desk.numbers == []
        assert not desk.watch.confirm()
        await asyncio.sleep(10)
        assert desk.numbers == [] and not desk.watch.problems


async def test_a_first_answer_of_nothing_is_doubted_too() -> None:
    async with Desk() as desk:
        await asyncio.sleep(GRACE - 0.1)
        assert desk.numbers is None and desk.watch.answered
        assert desk.watch.problems == ("not believed for 5 s, or until it is confirmed (anycastlb confirm)",)
        await asyncio.sleep(0.2)
        assert desk.numbers == [] and not desk.watch.problems
    async with Desk() as desk:
        await desk.put(unfit=unfit(1))
        assert desk.numbers == []


async def test_what_was_saved_is_in_force_before_any_answer() -> None:
    async with Desk(known=some(1, 2)) as desk:
        await asyncio.sleep(1)
        assert desk.numbers == [1, 2], "an empty answer is doubted against it"
        await desk.put(2, 3)
        assert desk.numbers == [2, 3]


async def test_it_tries_ever_less_often_and_tells_once() -> None:
    async with Desk(known=some(1)) as desk:
        desk.discovery.fail()
        await asyncio.sleep(1)
        changes = desk.changes
        await asyncio.sleep(60)
        assert desk.changes == changes and 15 <= desk.discovery.reads <= 25
        desk.discovery.heal()
        await desk.put(1, 2, after=5.1)
        assert desk.numbers == [1, 2] and not desk.watch.problems


async def test_a_fault_of_ours_stops_nothing() -> None:
    class Faulty(MemoryDiscovery):
        faulty = True

        async def read(self, after: DiscoveryAnswer | None) -> DiscoveryAnswer:
            if self.faulty:
                raise ZeroDivisionError("a bug")
            return await super().read(after)

    desk = Desk(known=some(1))
    desk.discovery = faulty = Faulty(*some(1, 2))
    async with desk:
        await asyncio.sleep(1)
        assert "please report" in desk.watch.problems[0] and "a bug" in desk.watch.problems[0]
        faulty.faulty = False
        await asyncio.sleep(5)
        assert desk.numbers == [1, 2]


class TestWatches:
    async def test_each_runs_once_and_ends_when_nobody_asks(self) -> None:
        made: dict[Discover, list[MemoryDiscovery]] = {}

        def kinds(wanted: Discover) -> Kind:
            def make() -> MemoryDiscovery:
                made.setdefault(wanted, []).append(MemoryDiscovery(*some(1)))
                return made[wanted][-1]

            return Kind(make, LossRule(HALF, GRACE))

        a, b = ConsulInstances("a"), ConsulInstances("b")
        watches = Watches(kinds, lambda: None, Journal(), Clock(asyncio.get_running_loop().time))
        watches.recall({a: some(7), b: some(8)})
        assert watches.instances == {a: some(7), b: some(8)}
        async with asyncio.TaskGroup() as group:
            running = group.create_task(watches.run())
            watches.want({a, b})
            await asyncio.sleep(1)
            watches.want({b})
            watches.want({a, b})  # asked for again before it has ended
            await asyncio.sleep(1)
            assert [len(made[key]) for key in (a, b)] == [2, 1]
            assert [one.closed for one in made[a]] == [True, False]
            watches.want({a})
            await asyncio.sleep(1)
            assert made[b][0].closed and watches.instances.keys() == {a}
            watches.want({a, b})
            assert b not in watches.instances, "what was saved long ago says nothing now"
            running.cancel()
        assert all(one.closed for ones in made.values() for one in ones)

    async def test_it_waits_for_the_first_answers_but_not_for_ever(self) -> None:
        clock = asyncio.get_running_loop().time
        discovery = MemoryDiscovery(*some(1))
        discovery.fail()
        kind = Kind(lambda: discovery, LossRule(HALF, GRACE))
        watches = Watches(lambda wanted: kind, lambda: None, Journal(), Clock(clock, chance=lambda: 1.0))
        watches.want({WANTED})
        async with asyncio.TaskGroup() as group:
            running = group.create_task(watches.run())
            start = clock()
            await watches.answered(2.0)
            assert clock() - start == 2.0
            discovery.heal()
            await watches.answered(60.0)
            assert watches.instances == {WANTED: some(1)} and clock() - start < 10
            await watches.answered(60.0)
            running.cancel()

    async def test_a_survey(self) -> None:
        found = Kind(lambda: MemoryDiscovery(*some(2)), LossRule(HALF, GRACE))
        a, b = ConsulInstances("a"), ConsulInstances("b")
        kinds = {a: found, b: nowhere(b)}
        instances, problems = await survey(kinds.__getitem__, {a, b}, {a: some(1, 2), b: some(9)}, 3.0)
        assert instances == {a: some(2), b: some(9)}
        assert problems.keys() == {b} and "discovers nothing" in problems[b][0]


async def test_a_loss_is_believed_at_its_own_age() -> None:
    async with Desk() as desk:
        await desk.put(1, 2, 3, 4)
        await desk.put(1, after=GRACE - 1)
        await desk.put(after=2)
        assert desk.numbers == [1, 2, 3, 4], "the first had been away for 2 s only"
        await asyncio.sleep(GRACE)
        assert desk.numbers == []


async def test_instances_that_come_meanwhile_make_a_loss_no_smaller() -> None:
    async with Desk() as desk:
        await desk.put(1, 2, 3, 4)
        await desk.put(1, after=1)
        await desk.put(1, 5, 6, 7, 8)
        assert desk.numbers == [1, 2, 3, 4, 5, 6, 7, 8] and "3 of 4 instances" in desk.watch.problems[0]
        await asyncio.sleep(GRACE)
        assert desk.numbers == [1, 5, 6, 7, 8]


async def test_more_than_can_be_followed_at_a_time_is_told_once() -> None:
    def kind(wanted: Discover) -> Kind:
        return Kind(MemoryDiscovery, LossRule(HALF, GRACE), at_once=2, pause=10.0)

    journal = Journal()
    watches = Watches(kind, lambda: None, journal)
    wanted = [ConsulInstances(f"web{number}") for number in range(4)]
    for count in (2, 3, 4, 2):
        watches.want(wanted[:count])
    events = [record.event for record in journal.records()]
    assert [(event.subject, event.after, event.level) for event in events] == [
        ("consul", "in turn", "warning"),
        ("consul", "followed", "info"),
    ]
    assert "3 services are discovered in Consul, and 2 at a time are followed there" in events[0].reason
