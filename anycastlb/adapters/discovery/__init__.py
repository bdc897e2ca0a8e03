"""Discovery: where the backends of a service come from when nobody writes them down, one file per kind.

A discovery reads whole answers and says when they changed. It believes every answer, keeps nothing on disk and never
retries: ``watch`` retries, and decides how much of an answer is believed (docs/decisions/0002).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from anycastlb.core.model import Address, Instance, Share

Endpoint: TypeAlias = tuple[Address, int | None]
"""What makes two instances the same: where they are."""


@dataclass(frozen=True, slots=True)
class DiscoveryAnswer:
    """One whole answer."""

    instances: tuple[Instance, ...] = ()
    """In canonical order (``ordered``), names unique."""
    unfit: frozenset[Endpoint] = frozenset()
    """Known, and known not to be wanted (failing their checks): that they are not among ``instances`` is no loss."""
    problems: tuple[str, ...] = ()
    """What in the answer could not be used, or why there is nothing in it."""
    index: int = 0
    """Consul's index of the read."""

    def same(self, other: DiscoveryAnswer) -> bool:
        """Does it say the same?"""
        mine, others = (self.instances, self.unfit, self.problems), (other.instances, other.unfit, other.problems)
        return mine == others


class Discovery(Protocol):
    async def read(self, after: DiscoveryAnswer | None) -> DiscoveryAnswer:
        """Wait until there is an answer that says something else than ``after``, and return it.

        ``None``: return the answer at once, as it is now and as surely as can be known. An answer without instances is
        an answer. May be cancelled at any await. Raises ``SourceError`` when nobody answers, or answers nonsense; the
        caller retries.
        """
        ...

    async def close(self) -> None:
        """Let go of every socket; a later ``read`` opens them again."""
        ...


@dataclass(frozen=True, slots=True)
class LossRule:
    """Which losses are not believed at once, and how long they must persist."""

    share: Share
    """A loss of more than this at once is doubted; the loss of all always is."""
    grace: float | None
    """Seconds until it is believed; None = only when an operator confirms it."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How one kind of discovery is made, and what of it is doubted."""

    make: Callable[[], Discovery]
    doubt: LossRule
    at_once: int = 0
    """How many of this kind are followed at a time; the others are asked in turn. 0: all of them."""
    pause: float = 0.0
    """Seconds between two questions of one that is asked in turn."""


def ordered(instances: Iterable[Instance]) -> tuple[Instance, ...]:
    """Canonical order, equal on every node: oldest first, then by address and port."""
    return tuple(sorted(instances, key=_place))


def _place(instance: Instance) -> tuple[int, int, int, int, str]:
    address = instance.address
    return instance.created, address.version, int(address), instance.port or 0, instance.name


def endpoint(instance: Instance) -> Endpoint:
    return instance.address, instance.port
