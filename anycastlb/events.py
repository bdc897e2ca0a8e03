"""What happened, as values, and the journal that keeps them.

Code that does something worth telling emits an ``Event``; what becomes of it (a log line, a counter, an entry in
the ring that readers see) is decided here and nowhere else. Emitting never fails and never waits.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

Level = Literal["info", "warning", "error"]
LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
log = logging.getLogger("anycastlb")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to one object.

    ``kind`` is a stable word for scripts (``gate``, ``check``, ``change``, ``failure``, ``catalog``, ``bgp``, ...);
    ``subject`` the object's name; ``before`` and ``after`` its state in words, empty where there is none.
    """

    kind: str
    subject: str
    reason: str = ""
    before: str = ""
    after: str = ""
    level: Level = "info"


@dataclass(frozen=True, slots=True)
class Record:
    """An event with its place in the journal: a number that only grows, and the wall-clock time."""

    id: int
    at_wall: float
    event: Event


class Journal:
    """The one place events go: log line, counters, and two rings, so that failures outlive the routine."""

    def __init__(self, routine: int = 1000, failures: int = 1000) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        """How often each (kind, level) was seen."""
        self._rings: dict[bool, deque[Record]] = {False: deque(maxlen=routine), True: deque(maxlen=failures)}
        self._last = 0

    def emit(self, event: Event) -> None:
        self._last += 1
        self.counts[event.kind, event.level] += 1
        self._rings[event.level != "info"].append(Record(self._last, time.time(), event))
        log.log(LEVELS[event.level], event.kind, extra={"event": event})

    @property
    def last(self) -> int:
        """The id of the newest record; 0 before the first."""
        return self._last

    def records(self, after: int = 0) -> list[Record]:
        """Everything still kept with an id above ``after``, oldest first."""
        both: Iterable[Record] = (record for ring in self._rings.values() for record in ring if record.id > after)
        return sorted(both, key=lambda record: record.id)


class LogFormatter(logging.Formatter):
    """One line a record: logfmt (``level=info kind=gate subject=192.0.2.10 ...``) or JSON."""

    def __init__(self, style: Literal["logfmt", "json"] = "logfmt") -> None:
        super().__init__()
        self._json = style == "json"

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        fields: dict[str, str] = {"time": stamp, "level": record.levelname.lower()}
        event = getattr(record, "event", None)
        if isinstance(event, Event):
            fields.update({key: str(value) for key, value in asdict(event).items() if value and key != "level"})
        else:
            fields.update(logger=record.name, message=record.getMessage())
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        if self._json:
            return json.dumps(fields)
        return " ".join(f"{key}={_quoted(value)}" for key, value in fields.items())


def _quoted(value: str) -> str:
    plain = value.isprintable() and not any(char in value for char in ' "=')
    return value if plain and value else json.dumps(value)
