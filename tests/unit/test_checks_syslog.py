"""``syslog``: the message as RFC 5424 and 6587 want it."""

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from anycastlb.adapters.checks.syslog import Params, framed, message

NOW = datetime(2026, 2, 3, 4, 5, 6, 789000, UTC)


def test_the_message() -> None:
    given = Params.model_validate({"level": "warn", "facility": "local7", "message": "hello"})
    line = message(given, NOW, "lb1", 42)
    assert line == b"<188>1 2026-02-03T04:05:06.789Z lb1 anycastlb 42 check - hello"
    assert framed(line, "newline") == line + b"\n"
    assert framed(line, "octets") == b"62 " + line and len(line) == 62


def test_it_stays_one_line_of_its_form_whatever_the_host_is_called() -> None:
    assert b"Z - anycastlb" in message(Params(), NOW, "\n ", 1)
    assert b"Z ab anycastlb" in message(Params(message=""), NOW, "a b\n", 1)
    assert message(Params(message=""), NOW, "a", 1).endswith(b" check -")


@pytest.mark.parametrize(
    ("level", "facility", "priority"),
    [("emerg", "kern", 0), (7, 23, 191), ("5", "1", 13), ("ERROR", "Mail", 19), ("debug", "authpriv", 87)],
)
def test_priorities(level: object, facility: object, priority: int) -> None:
    given = Params.model_validate({"level": level, "facility": facility})
    assert message(given, NOW, "a", 1).startswith(f"<{priority}>1 ".encode())


@pytest.mark.parametrize(
    "document",
    [
        {"level": 8}, {"level": "loud"}, {"level": True}, {"level": -1}, {"facility": 24}, {"facility": "local8"},
        {"message": "two\nlines"}, {"message": "x" * 1025}, {"framing": "tls"}, {"protocol": "relp"}, {"quiet": "0s"},
    ],
)  # fmt: skip
def test_what_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Params.model_validate(document)
