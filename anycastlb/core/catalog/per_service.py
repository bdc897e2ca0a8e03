"""A function of one service, worked out once for each service and not again while that is the same object. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from anycastlb.core.model import Service

T = TypeVar("T")


class PerService(Generic[T]):
    """The results for the services of the last call are remembered, and no others."""

    def __init__(self, function: Callable[[Service], T]) -> None:
        self._function = function
        self._known: dict[str, tuple[Service, T]] = {}

    def __call__(self, services: Iterable[Service]) -> list[T]:
        """The result for each service, in their order."""
        known, results = self._known, []
        self._known = {}
        for service in services:
            row = known.get(service.name)
            if row is None or row[0] is not service:
                row = (service, self._function(service))
            self._known[service.name] = row
            results.append(row[1])
        return results
