"""What is published of the states of all checks."""

from __future__ import annotations

from ipaddress import ip_address

from anycastlb.adapters.system.clock import SYSTEM
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.delta import delta
from anycastlb.core.model import Check, Result
from anycastlb.engine.observer import NOBODY
from anycastlb.engine.verdicts import Course, Verdicts

CHECKS = [Check("tcp", ip_address(f"10.0.0.{number}"), 80, (), 10, 1, 2, 2) for number in range(1, 41)]


def known() -> tuple[Verdicts, list[Course]]:
    """Every check has had one good result."""
    verdicts, courses = Verdicts(Journal(), SYSTEM, NOBODY), [Course(check) for check in CHECKS]
    for course in courses:
        verdicts.fold(course, result(1.0))
    return verdicts, courses


def result(at: float, ok: bool = True) -> Result:
    return Result(ok, "connected", 0.01, at)


def test_what_is_published_is_what_was_known_then() -> None:
    verdicts, courses = known()
    before = verdicts.snapshot()
    verdicts.fold(courses[3], result(2.0, ok=False))
    assert before[CHECKS[3]].last == result(1.0) and verdicts.fresh
    after = verdicts.snapshot()
    assert after[CHECKS[3]].last == result(2.0, ok=False) and not verdicts.fresh
    assert delta(before, after).keys == (CHECKS[3],) and dict(after) == verdicts.states
    assert verdicts.snapshot() is after, "nothing is new"


def test_what_is_not_new_is_not_copied() -> None:
    verdicts, courses = known()
    whole = verdicts.snapshot().parts[0]
    for course in courses[:5]:
        verdicts.fold(course, result(2.0))
        assert verdicts.snapshot().parts[0] is whole


def test_checks_that_come_and_go() -> None:
    verdicts, _ = known()
    first = verdicts.snapshot()
    verdicts.forget(CHECKS[0])
    verdicts.forget(CHECKS[0])
    second = verdicts.snapshot()
    assert list(first) == CHECKS and list(second) == CHECKS[1:]
    again = Course(CHECKS[0])
    verdicts.fold(again, result(3.0))
    verdicts.forget(CHECKS[1])
    third = verdicts.snapshot()
    assert list(third) == [*CHECKS[2:], CHECKS[0]] and third[CHECKS[0]].last == result(3.0)
    verdicts.fold(again, result(4.0))
    verdicts.forget(CHECKS[0])
    assert list(verdicts.snapshot()) == CHECKS[2:] and not verdicts.fresh, "what it found is forgotten with it"
