"""Keep the journal of the daemon: every event becomes a log line, a counter and an entry in a ring that readers see.

Emitting never fails and never waits. ``core.events`` has the events as values.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any, Literal

from anycastlb.core.events import Event

LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


log = logging.getLogger("anycastlb")


@dataclass(frozen=True, slots=True)
class EventRecord:
    """An event with its place in the journal: a number that only grows, and the wall-clock time."""

    id: int
    at_wall: float
    event: Event


def epoch() -> int:
    """Where a daemon's event ids begin: microseconds since 1970, so that they grow over its restarts too.

    Below 2**53 until the year 2255, so every JSON reader can hold them. A node emits far less than a million events a
    second, so ids meet those of a former life only if the clock was set back by more than that life lasted.
    """
    return time.time_ns() // 1000


class Journal:
    """The one place events go: log line, counters, and two rings, so that failures outlive the routine.

    Ids are whole and follow each other without a gap, from ``start`` on. For the thread of the event loop only.
    """

    def __init__(self, routine: int = 1000, failures: int = 1000, *, start: int = 0) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        """How often each (kind, level) was seen."""
        self.observers: list[Callable[[Event], None]] = []
        """Called with every event, at once. They never raise."""
        self._rings: dict[bool, deque[EventRecord]] = {False: deque(maxlen=routine), True: deque(maxlen=failures)}
        self._start = self._last = start

    @property
    def last(self) -> int:
        """The id of the latest event; before the first one, where ids begin."""
        return self._last

    def emit(self, event: Event) -> None:
        self._last += 1
        self.counts[event.kind, event.level] += 1
        self._rings[event.level != "info"].append(EventRecord(self._last, time.time(), event))
        for observe in self.observers:
            observe(event)
        log.log(LEVELS[event.level], event.kind, extra={"event": event, "event_id": self._last})

    def records(self, after: int = 0) -> list[EventRecord]:
        """Everything still kept with an id above ``after``, oldest first."""
        both: Iterable[EventRecord] = (record for ring in self._rings.values() for record in ring if record.id > after)
        return sorted(both, key=lambda record: record.id)

    def missed(self, after: int) -> int:
        """How many events above ``after`` are kept no longer: what a reader who stopped there will never see."""
        return self._last - max(self._start, min(after, self._last)) - len(self.records(after))


def under_journald(stream: Any) -> bool:
    """Does the stream lead straight into systemd's journal (systemd.exec(5), ``$JOURNAL_STREAM``)?"""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(stream.fileno())
        return (status.st_dev, status.st_ino) == (int(device), int(inode))
    except (AttributeError, OSError, ValueError):
        return False


PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.NOTSET, 7))
"""From which level on, and its syslog priority (sd-daemon(3))."""


class LogFormatter(logging.Formatter):
    """One line a record: logfmt (``level=info kind=gate subject=192.0.2.10 ...``) or JSON.

    For systemd's ``journal`` it begins with the priority (``<4>``) instead of the time, which the journal keeps itself.
    """

    def __init__(self, style: Literal["logfmt", "json"] = "logfmt", journal: bool = False) -> None:
        super().__init__()
        self._json = style == "json"
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        line = self._line(record)
        if not self._journal:
            return line
        return f"<{next(number for level, number in PRIORITIES if record.levelno >= level)}>{line}"

    def _line(self, record: logging.LogRecord) -> str:
        pairs: dict[str, Any] = {}
        if not self._journal:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            pairs["time"] = f"{stamp}.{int(record.msecs):03d}Z"
        pairs["level"] = record.levelname.lower()
        event = getattr(record, "event", None)
        if isinstance(event, Event):
            pairs.update((item.name, value) for item in fields(event) if (value := getattr(event, item.name)))
            pairs.update(level=record.levelname.lower(), id=getattr(record, "event_id", 0))
        else:
            pairs.update(logger=record.name, message=record.getMessage())
        if record.exc_info:
            pairs["exception"] = self.formatException(record.exc_info)
        if self._json:
            return json.dumps(pairs)
        return " ".join(f"{key}={_quoted(str(value))}" for key, value in pairs.items())


def _quoted(value: str) -> str:
    plain = value.isprintable() and not any(char in value for char in ' "=')
    return value if plain and value else json.dumps(value, ensure_ascii=not value.isprintable())
