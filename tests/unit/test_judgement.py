"""What one service on one VIP is judged to be, one row for each side of each threshold.

Backend ``b1`` has weight 10, interval 10 s, timeout 1 s and rise 2; ``b2`` has 20, 20 s, 2 s and 3; and so on.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from anycastlb.core.decision.gate import NEVER
from anycastlb.core.decision.judgement import WELL, Judgement, Observed, judge
from anycastlb.core.decision.member import ObservedBackend
from anycastlb.core.model import (
    Announce,
    Backend,
    Check,
    CheckState,
    Condition,
    DestinationKey,
    Reason,
    Result,
    Service,
    Share,
    VirtualService,
)

VIP, NOW = ip_address("192.0.2.1"), 100.0
REFUSAL = Reason("refused", "the kernel refused it")


def state(up: bool | None, since: float = 90.0, last: float = 95.0, **more: Any) -> CheckState:
    return CheckState(up, since=since, last=None if up is None else Result(up, "seen", 0.1, last), **more)


UP, DOWN, UNKNOWN = state(True), state(False), state(None)
SIGHTS = {
    "+": ObservedBackend(UP),
    "-": ObservedBackend(DOWN),
    "?": ObservedBackend(UNKNOWN),
    "so far": ObservedBackend(UNKNOWN, up_since=50.0),
    "asks": ObservedBackend(state(True, asks=(0, False))),
    "refused": ObservedBackend(UP, refusal=REFUSAL),
    "new and refused": ObservedBackend(UNKNOWN, refusal=REFUSAL),
    "since 95": ObservedBackend(UNKNOWN, unproven=95.0),
    "since 77.5": ObservedBackend(UNKNOWN, unproven=77.5),
    "since 77": ObservedBackend(UNKNOWN, unproven=77.0),
    "up at 80": ObservedBackend(state(True, since=80.0)),
    "failed at 89": ObservedBackend(state(False, last=89.0)),
    "failed at 90": ObservedBackend(state(False, last=90.0)),
    "failed at 91": ObservedBackend(state(False, last=91.0)),
    "rising": ObservedBackend(CheckState(False, since=80.0, last=Result(True, "seen", 0.1, 95.0), streak=1)),
    "down since ever": ObservedBackend(CheckState(False)),
}
"""What is known of a backend."""
KINDS: dict[str, dict[str, Any]] = {
    "fallback": {"fallback": True},
    "drained": {"drain": True},
    "weightless": {"weight": 0},
    "set to 0": {"override": 0},
}
"""What its document says of it."""
ANY, TWO, REOPEN = Announce(), Announce(Share(2)), Announce(Share(1), Share(2))
KEEP, KEEP_TWO, WITHDRAW = Announce(fail="keep"), Announce(Share(2), fail="keep"), Announce(fallback="withdraw")


def judged(backends: str = "", announce: Announce = ANY, scheduler: str = "wrr", **observed: Any) -> Judgement:
    """Judge these backends, with commas between them: each one is of ``SIGHTS``, and may have one of ``KINDS`` before
    it."""
    members, seen = [], []
    for number, text in enumerate(backends.split(", ") if backends else (), 1):
        kind, _, sight = text.rpartition(": ")
        address = ip_address(f"10.0.0.{number}")
        check = Check("tcp", address, 80, (), 10 * number, number, 1 + number, 1)
        document = {"weight": 10 * number, **KINDS.get(kind, {})}
        members.append(Backend(f"b{number}", address, 80, check, **document))
        seen.append(SIGHTS[sight])
    service = Service("web", (VIP,), "tcp", 80, VirtualService(scheduler), tuple(members), announce=announce)
    return judge(service, VIP, Observed(tuple(seen), **observed), NOW)


def key(number: int) -> DestinationKey:
    return DestinationKey(judged().service.key(VIP), ip_address(f"10.0.0.{number}"), 80)


@pytest.mark.parametrize(
    ("seen", "followed", "up", "code", "since"),
    [
        (ObservedBackend(), False, False, "not_checked", NOW),
        (ObservedBackend(up_since=50.0), False, True, "not_checked", 50.0),
        (ObservedBackend(up_since=0.0), False, True, "not_checked", 0.0),
        (ObservedBackend(UP), False, True, "check_passed", NOW),
        (ObservedBackend(UP, up_since=50.0), True, True, "check_passed", 50.0),
        (ObservedBackend(UP, weight=100), True, True, "check_passed", NEVER),
        (ObservedBackend(UP, weight=100), False, True, "check_passed", NOW),
        (ObservedBackend(UP, weight=0), True, True, "check_passed", NOW),
        (ObservedBackend(DOWN, up_since=50.0), False, False, "check_failed", 50.0),
        (ObservedBackend(UP, refusal=REFUSAL), False, False, "refused", NOW),
    ],
)
def test_which_backend_counts_as_up_and_since_when(
    seen: ObservedBackend, followed: bool, up: bool, code: str, since: float
) -> None:
    service = judged("+").service
    verdict = judge(service, VIP, Observed((seen,), followed=followed), NOW)
    (member,) = verdict.members
    assert (member.up, member.reason.code, member.since) == (up, code, since)
    assert verdict.up_since == ({key(1): since} if up else {})
    if code == "refused":
        assert member.reason.text == "down: the kernel refused it"


@pytest.mark.parametrize(
    ("backend", "asks", "up", "drained", "used"),
    [
        ({}, (None, False), True, False, True),
        ({}, (40, False), True, False, True),
        ({}, (0, False), True, True, False),
        ({}, (0, False), False, False, True),
        ({}, (None, True), True, True, False),
        ({}, (None, True), False, False, True),
        ({"drain": True}, (None, False), True, True, False),
        ({"drain": True}, (None, False), False, True, False),
        ({"weight": 0}, (None, False), True, False, False),
        ({"weight": 1}, (None, False), True, False, True),
        ({"override": 0}, (None, False), True, False, False),
        ({"override": 1}, (None, False), True, False, True),
    ],
)
def test_which_backends_operators_want_flows_on(
    backend: dict[str, Any], asks: tuple[int | None, bool], up: bool, drained: bool, used: bool
) -> None:
    service = judged("+").service
    service = replace(service, backends=(replace(service.backends[0], **backend),))
    verdict = judge(service, VIP, Observed((ObservedBackend(state(up, asks=asks)),)), NOW)
    (member,) = verdict.members
    assert (member.drained, member.used) == (drained, used)
    assert verdict.verdict.total == used


def test_weights_are_those_of_the_scheduler() -> None:
    assert [member.nominal for member in judged("+, -, +").members] == [10, 20, 30]
    assert [member.nominal for member in judged("+, -, +", scheduler="mh").members] == [9, 21, 30]


@pytest.mark.parametrize(
    ("backends", "announce", "was_open", "needed", "code", "text"),
    [
        ("+, -", ANY, False, 1, "backends_up", "1/2 backends up"),
        ("-, -", ANY, False, 1, "too_few_backends", "0/2 backends up, needs 1"),
        ("+, -", TWO, False, 2, "too_few_backends", "1/2 backends up, needs 2"),
        ("+, +", TWO, False, 2, "backends_up", "2/2 backends up"),
        ("+, drained: +, weightless: +", TWO, False, 2, "too_few_backends", "1/1 backends up, needs 2"),
        ("set to 0: +, asks", ANY, False, 1, "too_few_backends", "0/0 backends up, needs 1"),
        # What it takes to stay open, and to open again.
        ("+, -", REOPEN, True, 1, "backends_up", "1/2 backends up"),
        ("+, -", REOPEN, False, 2, "too_few_backends", "1/2 backends up, needs 2 to open again"),
        ("-, -", REOPEN, False, 2, "too_few_backends", "0/2 backends up, needs 2"),
        ("-, -", REOPEN, True, 1, "too_few_backends", "0/2 backends up, needs 1"),
        ("+, -", Announce(Share(2), Share(1)), True, 2, "too_few_backends", "1/2 backends up, needs 2"),
        # A sum of weights.
        ("+, +", Announce(Share(weight=30)), False, 30, "backends_up", "2/2 backends up, weight 30/30"),
        ("-, +", Announce(Share(weight=21)), False, 21, "too_few_backends", "1/2 backends up, weight 20/30, needs 21"),
        # All backends are down, and the service is kept open.
        ("-, -", KEEP, False, 1, "kept_fail_open", "0/2 backends up; kept open (fail = keep)"),
        ("+, -", KEEP_TWO, False, 2, "too_few_backends", "1/2 backends up, needs 2"),
        ("weightless: -", KEEP, False, 1, "too_few_backends", "0/0 backends up, needs 1"),
        # Fallback backends serve alone.
        ("-, fallback: +", ANY, False, 1, "fallback_serving", "0/1 backends up; 1 fallback serving"),
        ("-, fallback: +, fallback: +", KEEP, False, 1, "fallback_serving", "0/1 backends up; 2 fallback serving"),
        ("-, fallback: +", WITHDRAW, False, 1, "too_few_backends", "0/1 backends up, needs 1"),
        ("-, fallback: -", ANY, False, 1, "too_few_backends", "0/1 backends up, needs 1"),
        ("-, fallback: asks", ANY, False, 1, "too_few_backends", "0/1 backends up, needs 1"),
        ("+, -, fallback: +", TWO, False, 2, "too_few_backends", "1/2 backends up, needs 2"),
    ],
)
def test_whether_a_service_can_be_served(
    backends: str, announce: Announce, was_open: bool, needed: int, code: str, text: str
) -> None:
    verdict = judged(backends, announce, was_open=was_open).verdict
    assert (verdict.needed, verdict.reason.code, verdict.reason.text) == (needed, code, text)
    assert verdict.open == (code != "too_few_backends")
    assert text.startswith(f"{verdict.up}/{verdict.total} backends up")


@pytest.mark.parametrize("announce", [ANY, KEEP])
@pytest.mark.parametrize("backends", ["+", "-", "-, fallback: +"])
def test_nothing_opens_a_service_that_the_machine_refuses(backends: str, announce: Announce) -> None:
    verdict = judged(backends, announce, refusal=REFUSAL, announced=True, replaced=True).verdict
    assert (verdict.open, verdict.reason, verdict.proving) == (False, REFUSAL, 0.0)
    assert not verdict.condition.well and not verdict.condition.able


@pytest.mark.parametrize(
    ("backends", "unsettled", "returning"),
    [
        ("+, +", 0.0, 0.0),
        ("-, -", 0.0, 0.0),
        # Those that were never checked, the slowest of them.
        ("?, +", 11.0, 0.0),
        ("?, ?", 22.0, 0.0),
        ("?, ?, -", 22.0, 0.0),
        ("so far, +", 0.0, 0.0),
        ("weightless: ?, +", 0.0, 0.0),
        ("fallback: ?, +", 0.0, 0.0),
        ("refused, +", 0.0, 0.0),
        # Those that may follow the last that came up, which was at 90.
        ("+, failed at 89", 0.0, 22.0),
        ("+, failed at 90", 0.0, 22.0),
        ("+, failed at 91", 0.0, 0.0),
        ("+, rising", 0.0, 22.0),
        ("+, down since ever", 0.0, 22.0),
        ("failed at 89, +, failed at 89", 0.0, 33.0),
        ("failed at 89, +, failed at 91", 0.0, 11.0),
        ("up at 80, +, failed at 89", 0.0, 33.0),
        ("up at 80, failed at 89", 0.0, 0.0),
        ("so far, failed at 89", 0.0, 0.0),
        ("so far, rising", 0.0, 0.0),
        ("weightless: +, failed at 89", 0.0, 0.0),
        ("?, +, failed at 89", 11.0, 33.0),
    ],
)
def test_what_a_closed_gate_waits_for(backends: str, unsettled: float, returning: float) -> None:
    verdict = judged(backends).verdict
    assert (verdict.unsettled, verdict.returning) == (unsettled, returning)


@pytest.mark.parametrize(
    ("backends", "announce", "observed", "seconds"),
    [
        # Nothing was ever known of it: its first results are waited for, each 1 s longer than it may take.
        ("?, ?", ANY, {}, 23.0),
        ("?, ?", ANY, {"announced": False}, 0.0),
        ("?, ?", ANY, {"refusal": REFUSAL}, 0.0),
        ("?, so far", TWO, {}, 12.0),
        ("new and refused", ANY, {}, 0.0),
        # Something is known to be dead: then something must serve meanwhile.
        ("-, ?", ANY, {}, 0.0),
        ("-, ?", ANY, {"replaced": True}, 23.0),
        ("+, ?", TWO, {}, 23.0),
        ("+, ?", ANY, {}, 0.0),
        ("+, ?", ANY, {"replaced": True}, 0.0),
        # The new ones must suffice.
        ("+, ?, -", TWO, {}, 23.0),
        ("+, ?, -", Announce(Share(3)), {}, 0.0),
        ("+, ?", Announce(Share(weight=30)), {}, 23.0),
        ("+, ?", Announce(Share(weight=31)), {}, 0.0),
        ("+, ?, -", Announce(Share(percent=66)), {}, 23.0),
        ("+, ?, -", Announce(Share(percent=67)), {}, 0.0),
        ("+, ?", REOPEN, {}, 23.0),
        ("+, weightless: ?", TWO, {}, 0.0),
        # Until they are overdue.
        ("+, since 95", TWO, {}, 18.0),
        ("+, since 77.5", TWO, {}, 0.5),
        ("+, since 77", TWO, {}, 0.0),
    ],
)
def test_how_long_the_backends_of_an_edit_are_waited_for(
    backends: str, announce: Announce, observed: dict[str, Any], seconds: float
) -> None:
    judgement = judged(backends, announce, **{"announced": True, **observed})
    assert judgement.verdict.proving == seconds
    assert judgement.replaced == bool(seconds and observed.get("replaced"))
    assert seconds == 0.0 or (judgement.verdict.condition.well and not judgement.verdict.open)


@pytest.mark.parametrize(
    ("backends", "since", "proving"),
    [
        ("+, -", {}, 0.0),
        ("", {}, 0.0),
        ("?", {1: NOW}, 12.0),
        ("since 95, ?", {1: 95.0, 2: NOW}, 23.0),
        ("?, so far, new and refused", {1: NOW}, 12.0),
        ("?, weightless: ?, fallback: ?", {1: NOW, 2: NOW, 3: NOW}, 12.0),
        ("+, since 77", {2: 77.0}, 0.0),
    ],
)
def test_which_backends_wait_for_their_first_result(backends: str, since: dict[int, float], proving: float) -> None:
    judgement = judged(backends)
    assert judgement.unproven == {key(number): at for number, at in since.items()}
    assert judgement.proving == proving


@pytest.mark.parametrize(
    ("backends", "announce", "observed", "condition"),
    [
        ("+, +", ANY, {}, WELL),
        ("+, fallback: -", ANY, {}, WELL),
        ("+, -", ANY, {}, Condition(True, False, True, 22.0, 86.0)),
        ("-, +", ANY, {}, Condition(True, False, True, 22.0, 86.0)),
        ("+, -", TWO, {}, Condition(False, False, True, 22.0, 86.0)),
        ("+", TWO, {}, Condition(False, False, True, 11.0, 32.0)),
        ("-, -", ANY, {}, Condition(False, True, True, 22.0, 86.0)),
        ("-, -", KEEP, {}, Condition(False, True, True, 22.0, 86.0)),
        ("-, ?", ANY, {}, Condition(False, False, True, 22.0, 86.0)),
        ("?", ANY, {"announced": True}, Condition(True, False, True, 11.0, 32.0)),
        # Fallback backends stand in.
        ("-, fallback: +", ANY, {}, Condition(True, False, True, 11.0, 32.0)),
        ("-, fallback: +", WITHDRAW, {}, Condition(False, False, True, 11.0, 32.0)),
        ("-, fallback: -", ANY, {}, Condition(False, True, True, 11.0, 32.0)),
        ("+, -, fallback: +", TWO, {}, Condition(False, False, True, 22.0, 86.0)),
        # The machine refuses some, or all.
        ("-, refused", ANY, {}, Condition(False, True, True, 22.0, 86.0)),
        ("refused", ANY, {}, Condition(False, False, False, 11.0, 32.0)),
        ("refused, fallback: +", WITHDRAW, {}, Condition(False, False, True, 11.0, 32.0)),
        ("+", ANY, {"refusal": REFUSAL}, Condition(False, False, False, 11.0, 32.0)),
        ("-, fallback: +", ANY, {"refusal": REFUSAL}, Condition(False, False, False, 11.0, 32.0)),
        # Operators want flows on none.
        ("weightless: +", ANY, {}, Condition(False, False, False, 0.0, 0.0)),
    ],
)
def test_the_condition_of_a_service(
    backends: str, announce: Announce, observed: dict[str, Any], condition: Condition
) -> None:
    assert judged(backends, announce, **observed).verdict.condition == condition
