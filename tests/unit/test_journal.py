"""The journal keeps failures longer than routine, wakes its readers, and every record is one line."""

from __future__ import annotations

import ast
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from anycastlb.adapters.system.journal import Journal, LogFormatter, epoch, under_journald
from anycastlb.core.events import KINDS, Event
from anycastlb.core.model import ALL_TABLES

ROOT = Path(__file__).resolve().parents[2]


def test_failures_outlive_the_routine() -> None:
    journal = Journal(routine=10, failures=10)
    journal.emit(Event("failure", "192.0.2.1", reason="refused", level="error"))
    for number in range(100):
        journal.emit(Event("check", str(number)))
    records = journal.records()
    assert records[0].event.kind == "failure" and len(records) == 11
    assert [record.id for record in records] == sorted(record.id for record in records)
    assert journal.records(after=records[-2].id) == records[-1:]
    assert journal.counts["check", "info"] == 100


def test_ids_grow_over_restarts_and_stay_exact_in_json() -> None:
    first = Journal(start=epoch())
    for _ in range(3):
        first.emit(Event("check", "x"))
    second = Journal(start=epoch())
    second.emit(Event("check", "y"))
    ids = [record.id for journal in (first, second) for record in journal.records()]
    assert ids == sorted(set(ids))
    assert ids[:3] == [ids[0], ids[0] + 1, ids[0] + 2]
    assert float(ids[-1]) == ids[-1] < 2**53
    assert [record.event.subject for record in second.records(after=first.last)] == ["y"]


def test_a_reader_learns_how_much_it_has_missed() -> None:
    journal = Journal(routine=10, failures=10, start=1000)
    assert journal.last == 1000 and journal.missed(0) == journal.missed(5000) == 0
    for number in range(25):
        journal.emit(Event("check", str(number)))
    assert journal.missed(0) == journal.missed(1000) == 15
    assert journal.missed(1010) == 5
    assert journal.missed(1015) == journal.missed(journal.last) == 0


def test_observers_see_every_event() -> None:
    journal, seen = Journal(), []
    journal.observers.append(seen.append)
    journal.emit(Event("gate", "192.0.2.1"))
    assert seen == [Event("gate", "192.0.2.1")]


# ---------------------------------------------------------------- kinds


def emitted() -> Iterator[tuple[str, ast.expr]]:
    """(file, first argument) of every ``Event(...)`` in the package."""
    for path in sorted((ROOT / "anycastlb").rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Event":
                kind = [*call.args, *(item.value for item in call.keywords if item.arg == "kind")][0]
                yield str(path.relative_to(ROOT)), kind


def test_every_kind_that_is_emitted_is_known() -> None:
    found = list(emitted())
    words = {kind.value for _, kind in found if isinstance(kind, ast.Constant)}
    computed = {path for path, kind in found if not isinstance(kind, ast.Constant)}
    assert words <= set(KINDS), f"add to KINDS in events.py, and to docs/EVENTS.md: {sorted(words - set(KINDS))}"
    assert computed <= {"anycastlb/engine/cycle_events.py", "anycastlb/adapters/drivers/names/background.py"}, (
        "only changes make up their kind: TABLE.VERB"
    )
    rows = {f"{table}.{verb}" for table in ALL_TABLES for verb in ("create", "update", "delete")}
    assert words | rows == set(KINDS), "a kind nobody emits"


def test_every_kind_is_documented_with_its_object() -> None:
    section = (ROOT / "docs/EVENTS.md").read_text().partition("## Kinds")[2]
    rows = re.findall(r"^\| (`.*?) \| (\w+) \|", section, re.MULTILINE)
    documented = {kind: noun for cell, noun in rows for kind in re.findall(r"`([^`]+)`", cell)}
    assert documented == dict(KINDS)
    assert Event("gate", "192.0.2.1").object == "vip"


# ---------------------------------------------------------------- log lines


def line(style: str = "logfmt", journal: bool = False, level: int = logging.WARNING, **more: str) -> str:
    told = Event("gate", "192.0.2.1", **{"reason": '1/4 "up"\nneeds 2', "before": "open", "after": "closed", **more})
    record = logging.LogRecord("anycastlb", level, "", 0, "gate", (), None)
    record.event, record.event_id = told, 17
    return LogFormatter(style, journal).format(record)  # type: ignore[arg-type]


@pytest.mark.parametrize("style", ["logfmt", "json"])
def test_a_record_is_one_line(style: str) -> None:
    text = line(style, by="token deploy")
    assert "\n" not in text
    if style == "json":
        record = json.loads(text)
        assert (record["after"], record["by"], record["id"], record["level"]) == (
            "closed",
            "token deploy",
            17,
            "warning",
        )
    else:
        assert "level=warning kind=gate subject=192.0.2.1" in text and r"\nneeds" in text
        assert text.endswith('by="token deploy" id=17')


def test_what_is_readable_stays_readable() -> None:
    assert 'reason="größer als 5 µs"' in line(reason="größer als 5 µs")
    assert "\\u202e" in line(reason="a\u202eb")


@pytest.mark.parametrize(
    ("level", "priority"), [(logging.DEBUG, 7), (logging.INFO, 6), (logging.WARNING, 4), (logging.CRITICAL, 3)]
)
def test_for_systemds_journal_a_line_has_a_priority_and_no_time(level: int, priority: int) -> None:
    assert line(journal=True, level=level).startswith(f"<{priority}>level=")
    assert line("json", journal=True, level=level).startswith(f'<{priority}>{{"level"')
    assert "time=" not in line(journal=True, level=level)


def test_the_journal_is_known_by_its_device_and_inode(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log, (tmp_path / "other").open("w") as other:
        stat = (tmp_path / "log").stat()
        monkeypatch.setenv("JOURNAL_STREAM", f"{stat.st_dev}:{stat.st_ino}")
        assert under_journald(log)
        assert not under_journald(other), "redirected: nobody would take the priority away"
        monkeypatch.setenv("JOURNAL_STREAM", "odd")
        assert not under_journald(log)
        monkeypatch.delenv("JOURNAL_STREAM")
        assert not under_journald(log) and not under_journald(None)


def test_foreign_records_and_exceptions_are_one_line_too() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError as exc:
        record = logging.LogRecord("asyncio", logging.ERROR, "", 0, "odd %s", ("thing",), (type(exc), exc, None))
    text = LogFormatter().format(record)
    assert "\n" not in text and 'message="odd thing"' in text and "ValueError" in text
