"""The stages of a drain, one look at a time. What whole drains do is in the laws and the stories."""

from __future__ import annotations

from dataclasses import replace

import pytest

from anycastlb.core.decision.drain_traffic import LOOK, QUIET
from anycastlb.core.decision.node_drain import KEPT, STEADY, STRAY, DrainFacts, step
from anycastlb.core.model import DrainRules, NodeDrain, Reason, Traffic

NOW = 1000.0
RULES = DrainRules(graceful=10.0, settle=20.0, deadline=60.0)
DRAINED = DrainFacts("drained", RULES, deadline=60.0, has_peers=True)
STOPPING = replace(DRAINED, cause="stopping")
SETTLING = Reason("settling", "it waits for a stable table: nothing may change for 3 s")
DIFFERS = Reason("tables_differ", "the tables of web differ", "web")


def begun(facts: DrainFacts) -> NodeDrain:
    return step(None, facts, NOW)[0]


def withdrawn(**facts: object) -> NodeDrain:
    return begun(replace(DRAINED, announced=False, **facts))  # type: ignore[arg-type]


def counted(drain: NodeDrain, facts: DrainFacts, *samples: tuple[float, int]) -> NodeDrain:
    """The drain after a look at each of these samples: seconds from its beginning, and packets."""
    for seconds, packets in samples:
        traffic = Traffic(NOW + seconds, packets, 1)
        drain, _ = step(drain, replace(facts, traffic=traffic), NOW + seconds)
    return drain


@pytest.mark.parametrize(
    ("facts", "stage", "until"),
    [
        (DRAINED, "waiting", 20.0),
        (replace(DRAINED, marked=True), "graceful", 10.0),  # its former process has put the community there
        (replace(DRAINED, has_peers=False), "graceful", 10.0),  # nobody else has a table
        (STOPPING, "graceful", 10.0),
        (replace(DRAINED, announced=False), "withdrawn", 60.0),
        (replace(STOPPING, announced=False), "withdrawn", None),
        (replace(DRAINED, announced=False, marked=True), "withdrawn", 60.0),
        (replace(STOPPING, rules=DrainRules()), "withdrawn", None),  # stages without time are passed at once
        (replace(DRAINED, rules=DrainRules(), deadline=0.0), "drained", None),
    ],
)
def test_where_it_begins(facts: DrainFacts, stage: str, until: float | None) -> None:
    drain = begun(facts)
    assert (drain.stage, drain.cause, drain.since) == (stage, facts.cause, NOW)
    assert drain.until == (None if until is None else NOW + until)


def test_it_waits_for_a_table_that_is_stable() -> None:
    drain, wake = step(None, DRAINED, NOW)
    assert drain.reason == SETTLING and drain.unchanged == (0, NOW) and wake == NOW + LOOK
    drain, wake = step(drain, DRAINED, NOW + 2.5)
    assert drain.stage == "waiting" and drain.unchanged == (0, NOW) and wake == NOW + STEADY
    assert step(drain, DRAINED, NOW + STEADY)[0].stage == "graceful"


def test_another_table_and_every_trouble_make_it_wait_anew() -> None:
    drain = begun(DRAINED)
    drain, _ = step(drain, replace(DRAINED, table=7), NOW + 2.0)
    assert drain.unchanged == (7, NOW + 2.0)
    drain, wake = step(drain, replace(DRAINED, table=7, trouble=DIFFERS), NOW + 4.0)
    assert drain.unchanged is None and wake == NOW + 4.0 + LOOK
    assert drain.reason == Reason("tables_differ", f"it waits for a stable table: {DIFFERS}", "web")
    drain, _ = step(drain, replace(DRAINED, table=7), NOW + 5.0)
    assert drain.unchanged == (7, NOW + 5.0) and drain.reason == SETTLING
    assert step(drain, replace(DRAINED, table=7), NOW + 7.9)[0].stage == "waiting"
    assert step(drain, replace(DRAINED, table=7), NOW + 8.0)[0].stage == "graceful"


def test_it_waits_no_longer_than_settle() -> None:
    facts = replace(DRAINED, trouble=DIFFERS)
    drain = begun(facts)
    drain, wake = step(drain, facts, NOW + 19.5)
    assert drain.stage == "waiting" and wake == NOW + 20.0
    drain, _ = step(drain, facts, NOW + 20.0)
    assert drain.stage == "graceful" and drain.overdue and drain.reason.code == "unsettled"
    assert drain.reason.text == (
        "its routes carry 65535:0 for 10 s, so that routers prefer other nodes; "
        f"it waited no longer than 20 s for a stable table: {DIFFERS}"
    )
    unseen, _ = step(begun(DRAINED), DRAINED, NOW + 20.0)  # a late look
    assert unseen.reason.text.endswith("it waited no longer than 20 s for a stable table")


def test_without_settle_nothing_is_waited_for() -> None:
    drain = begun(replace(DRAINED, rules=replace(RULES, settle=0.0), trouble=DIFFERS))
    assert drain.stage == "graceful" and not drain.overdue and drain.reason.code == "graceful"


def test_a_node_that_stops_waits_for_no_table() -> None:
    drain, _ = step(begun(DRAINED), replace(STOPPING, trouble=DIFFERS), NOW + 1.0)
    assert (drain.stage, drain.cause, drain.until) == ("graceful", "stopping", NOW + 11.0)


def test_the_routes_are_withdrawn_when_graceful_is_over() -> None:
    drain = counted(begun(STOPPING), STOPPING, (1.0, 10), (2.0, 30))
    assert [sample.packets for sample in drain.samples] == [10, 30] and drain.calm is None
    assert step(drain, STOPPING, NOW + 9.9) == (drain, NOW + 10.0)
    drain, wake = step(drain, STOPPING, NOW + 10.0)
    assert (drain.stage, drain.until, wake) == ("withdrawn", None, None)
    assert [sample.packets for sample in drain.samples] == [10, 30]


def test_a_node_that_is_stopped_after_its_routes_are_gone_counts_no_packets() -> None:
    drain, wake = step(withdrawn(), replace(STOPPING, announced=False), NOW + 1.0)
    assert (drain.stage, drain.cause, drain.until, wake) == ("withdrawn", "stopping", None, None)
    assert drain.reason.text == "its routes are withdrawn; what it serves ends when its drain time is over"
    assert counted(drain, STOPPING, (2.0, 0), (90.0, 0)).stage == "withdrawn"
    graceful, _ = step(begun(replace(DRAINED, marked=True)), STOPPING, NOW + 1.0)
    assert (graceful.stage, graceful.cause, graceful.until) == ("graceful", "stopping", NOW + 10.0)


def test_it_is_drained_once_almost_nothing_comes() -> None:
    drain = counted(withdrawn(), DRAINED, (1.0, 100), (2.0, 200), (3.0, 200 + STRAY), (5.0, 200 + STRAY))
    assert drain.calm is not None and drain.calm.at == NOW + 2.0 and drain.stage == "withdrawn"
    assert counted(drain, DRAINED, (6.9, 200 + STRAY)).stage == "withdrawn"
    drained = counted(drain, DRAINED, (2.0 + QUIET, 200 + STRAY))
    assert (drained.stage, drained.until, drained.overdue) == ("drained", None, False)
    assert drained.reason == Reason("drained", "nothing comes any more") and len(drained.samples) == 5
    assert step(drained, DRAINED, NOW + 100.0) == (drained, None)
    assert counted(drained, DRAINED, (100.0, 1000)) == drained, "what comes later is not its own"


@pytest.mark.parametrize("packets", [100 + STRAY + 1, 99])
def test_more_packets_than_strays_and_a_counter_that_began_anew_are_not_quiet(packets: int) -> None:
    drain = counted(withdrawn(), DRAINED, (1.0, 100), (6.0, packets))
    assert drain.stage == "withdrawn" and drain.calm is not None and drain.calm.at == NOW + 6.0


def test_it_is_quiet_from_the_moment_its_routes_are_withdrawn() -> None:
    drain = withdrawn()
    assert drain.reason.text == f"its routes are withdrawn; it waits until almost no packet came for {QUIET:g} s"
    drain = counted(drain, DRAINED, (0.0, 100), (1.0, 100))
    assert drain.calm is not None and drain.calm.at == NOW


def test_samples_are_counted_once_and_the_last_few_are_kept() -> None:
    drain = withdrawn()
    assert counted(drain, DRAINED, (-LOOK, 1)).samples == ()
    before = counted(drain, DRAINED, (-0.5, 1))
    assert len(before.samples) == 1 and before.calm is None  # it was taken while the routes were up
    drain = counted(drain, DRAINED, (1.0, 10), (1.0, 20))
    assert [sample.packets for sample in drain.samples] == [10]
    drain = counted(drain, DRAINED, *((float(second), 1000 * second) for second in range(2, 12)))
    assert [sample.packets for sample in drain.samples] == [1000 * second for second in range(12 - KEPT, 12)]


def test_it_is_drained_at_the_deadline_whatever_comes() -> None:
    drain = counted(withdrawn(), DRAINED, (58.0, 0), (59.0, 1000))
    late, _ = step(drain, DRAINED, NOW + 60.0)
    assert late.stage == "drained" and late.overdue and late.samples == drain.samples
    assert late.reason == Reason("overdue", "its time is over, and 1000 packets/s still came")
    blind, wake = step(withdrawn(), DRAINED, NOW + 60.0)
    assert blind.reason == Reason("overdue", "its time is over; nobody counts what still comes") and wake is None


def test_it_looks_every_second_while_something_may_change() -> None:
    assert step(withdrawn(), DRAINED, NOW + 1.0)[1] == NOW + 1.0 + LOOK
    assert step(withdrawn(), DRAINED, NOW + 59.5)[1] == NOW + 60.0
