"""An event loop whose time passes only when nobody has anything to do: a day of waiting takes a moment.

Threads and real sockets have no place in it: time would run away while they work.
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest

from anycastlb.adapters.system import lateness

T = TypeVar("T")


class _Selector(selectors.SelectSelector):
    now = 1000.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("everybody waits for ever")
            self.now += max(timeout, 0.0)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


@contextmanager
def machine(seed: str) -> Iterator[None]:
    """A machine for stories in virtual time: chance that nobody else gives a seed has this one, and it never sleeps."""
    before = random.getstate()
    random.seed(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lateness, "suspended", lambda: 0.0)
        yield
    random.setstate(before)


def run(story: Coroutine[Any, Any, T]) -> T:
    """Run a story to its end in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(story)
