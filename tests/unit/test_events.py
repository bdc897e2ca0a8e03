"""The journal keeps failures longer than routine, and every record is one line."""

import json
import logging

import pytest

from anycastlb.events import Event, Journal, LogFormatter


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


@pytest.mark.parametrize("style", ["logfmt", "json"])
def test_a_record_is_one_line(style, capsys: pytest.CaptureFixture[str]) -> None:
    record = logging.LogRecord("anycastlb", logging.WARNING, "", 0, "gate", (), None)
    record.event = Event("gate", "192.0.2.1", reason='1/4 "up"\nneeds 2', before="open", after="closed")
    line = LogFormatter(style).format(record)
    assert "\n" not in line
    if style == "json":
        assert json.loads(line)["after"] == "closed"
    else:
        assert "level=warning kind=gate subject=192.0.2.1" in line and r"\nneeds" in line


def test_foreign_records_and_exceptions_are_one_line_too() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError as exc:
        record = logging.LogRecord("asyncio", logging.ERROR, "", 0, "odd %s", ("thing",), (type(exc), exc, None))
    line = LogFormatter().format(record)
    assert "\n" not in line and 'message="odd thing"' in line and "ValueError" in line
