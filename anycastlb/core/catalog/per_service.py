"""A function of one service, worked out once for each service and not again while that is the same object. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import compress
from operator import is_not
from typing import Generic, TypeVar

from anycastlb.core.model import Service

T = TypeVar("T")


class PerService(Generic[T]):
    """The results for the services of the last call are remembered, and no others. It may be called in any thread."""

    def __init__(self, function: Callable[[Service], T]) -> None:
        self._function = function
        self._last: tuple[tuple[Service, ...], list[T]] = (), []
        """The services of the last call, and the result of each."""

    def __call__(self, services: Iterable[Service]) -> list[T]:
        """The result for each service, in their order. Most services are at the same place as in the last call."""
        now, (before, results) = tuple(services), self._last
        both = min(len(now), len(before))
        moved = list(compress(range(both), map(is_not, now, before)))
        known = {id(before[place]): results[place] for place in (*moved, *range(both, len(before)))}
        made = results[:both]
        for place in moved:
            made[place] = self._result(now[place], known)
        made += [self._result(service, known) for service in now[both:]]
        self._last = now, made
        return made

    def _result(self, service: Service, known: dict[int, T]) -> T:
        return known[id(service)] if id(service) in known else self._function(service)
