"""What is noted of a step that fails, and how an operator reads it."""

from __future__ import annotations

import pytest

from anycastlb.core.decision.containment import Containment, internal_error


def failing(text: str) -> None:
    raise ZeroDivisionError(text)


def test_a_step_that_fails_is_noted_and_the_first_fault_stays() -> None:
    contained = Containment()
    assert contained.of("web", max, 1, 2) == 2 and not contained.faults
    assert contained.of("web", failing, "first") is contained.of("web", failing, text="second") is None
    assert contained.of("api", failing, "third") is None
    assert [(subject, reason.code, reason.object) for subject, reason in contained.faults.items()] == [
        ("web", "internal_error", "web"),
        ("api", "internal_error", "api"),
    ]
    assert "first" in contained.faults["web"].text


def test_what_ends_the_program_is_not_contained() -> None:
    with pytest.raises(SystemExit):
        Containment().of("web", exit)


def test_how_it_reads() -> None:
    try:
        failing("division by zero")
    except ZeroDivisionError as exc:
        caught = exc
    line = failing.__code__.co_firstlineno + 1
    assert internal_error("service web", caught, "is left out").text == (
        f"internal error about service web, which is left out: ZeroDivisionError in test_containment.py:{line}: "
        "division by zero; please report it"
    )
    assert internal_error("192.0.2.1", ValueError("no")).text == (
        "internal error about 192.0.2.1, which keeps what it had in the kernel: ValueError: no; please report it"
    )
