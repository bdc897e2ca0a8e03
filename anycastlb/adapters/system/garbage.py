"""Keep Python's collector of garbage from stopping the event loop.

A full collection looks at every object there is, and nothing else runs meanwhile: with ten thousand backends that is
more than a tenth of a second. Nearly all of these objects come with the catalog and are freed without the collector, by
their reference counts. So until they are there only the youngest objects are looked at, a few at a time, which frees
the circles that are made on the way (each message of pyroute2 is one); then all that is left is left out. If a full
collection takes long all the same, what it has looked at is left out too, but not often: a cycle that is left out is
never freed.
"""

from __future__ import annotations

import gc
import time
from typing import Any

LONG = 0.01
"""Seconds that a full collection may take."""
APART = 600.0
"""Seconds between two times at which more objects are left out."""
YOUNG = 10_000
"""Objects that are looked at in one go: about a millisecond. Usually it is 700, and a decision about all services makes
tables of as many rows as there are backends, each of which would be looked at several times while it is young."""
OLDER, ALL = 2, 100
"""Of such collections until one that looks at what they have left too, and of those until one of everything. Usually
each is 10: then the proof of a decision, which makes more objects than a catalog, stopped the loop for 30 ms."""
NEVER = 1_000_000
"""Of such collections until one that looks at older objects."""


class GarbageCollection:
    """Of this process. ``defer`` it when the process starts, and ``resume`` once its large tables are there."""

    def __init__(self) -> None:
        self._began = 0.0
        self._left_out = -APART
        self._usual = gc.get_threshold()
        self._deferred = False

    def defer(self) -> None:
        self._deferred = True
        gc.set_threshold(YOUNG, NEVER, NEVER)
        gc.callbacks.append(self._watch)

    def resume(self) -> None:
        """Leave out all objects that there are now."""
        if self._deferred:
            self._deferred = False
            gc.collect(0)
            gc.freeze()
            gc.set_threshold(YOUNG, OLDER, ALL)

    def end(self) -> None:
        """Let the collector be as it was."""
        gc.callbacks.remove(self._watch)
        gc.unfreeze()
        gc.set_threshold(*self._usual)

    def _watch(self, phase: str, info: dict[str, Any]) -> None:
        now = time.monotonic()
        if phase == "start":
            self._began = now
        elif info["generation"] == 2 and now - self._began > LONG and now - self._left_out > APART:
            self._left_out = now
            gc.freeze()
