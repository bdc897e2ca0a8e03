"""Notice that an operator has replaced files of secrets or certificates while the node runs.

It compares their dates, sizes and inodes, at most once a second, so that it can be asked at every request.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

Mark = tuple[int, int, int]


class FileWatch:
    """Watches some files. ``changed`` is true the first time, and whenever one of them is no longer what it was."""

    def __init__(self, paths: Iterable[str], every: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._paths = tuple(Path(path) for path in paths)
        self._every, self._clock = every, clock
        self._seen: tuple[Mark | None, ...] | None = None
        self._next = clock()

    def changed(self) -> bool:
        now = self._clock()
        if now < self._next:
            return False
        self._next = now + self._every
        before, self._seen = self._seen, tuple(_mark(path) for path in self._paths)
        return self._seen != before

    def forget(self) -> None:
        """The files count as changed the next time, whatever they are."""
        self._seen, self._next = None, self._clock()


def _mark(path: Path) -> Mark | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
