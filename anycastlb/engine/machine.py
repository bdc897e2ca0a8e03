"""The machine as the reconciler sees it: drivers, the routes' announcer, and what else a cycle asks of the kernel."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from anycastlb.adapters.drivers import Driver, Inspected
from anycastlb.adapters.drivers.names.background import RecordDriver
from anycastlb.adapters.gate_memory import GateMemory, NoGateMemory
from anycastlb.core.model import DestinationKey, Reason, Rows, Speaker, Table, TrafficCounters

PERIOD = 1.0
"""Seconds between two proofs of life to the BGP bridge and the service manager, at most."""
Unused = Callable[[Collection[DestinationKey]], Awaitable[frozenset[DestinationKey]]]
Counters = Callable[[], Awaitable[Mapping[Any, TrafficCounters]]]


class Announcer(Driver, Protocol):
    """The driver of the ``routes`` table, which is also the dead man's switch of the node."""

    def speaker(self) -> Speaker: ...

    def beat(self) -> None: ...

    def absence(self) -> Reason | None:
        """Why no route can be announced or changed now, whatever it is; None if it can."""


class Companion(Protocol):
    """The driver of HAProxy, as far as it is not like any other."""

    async def run(self) -> None: ...

    def absence(self) -> Reason | None:
        """Why HAProxy was not there when it was looked at last; None if it was."""


class Pulse:
    """The node's proof of life: ``at`` is when it was last given.

    ``notify`` passes it on to the service manager. ``silence``: seconds after which its absence means something, half
    of what the bridge and the service manager allow; a machine that could not be seen for so long proves nothing more.
    ``hold``: seconds after which the bridge has withdrawn every route.
    """

    def __init__(
        self,
        notify: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        silence: float = 4.0,
        hold: float = 15.0,
    ) -> None:
        self.notify, self.silence, self.hold = notify, silence, hold
        self.period = min(PERIOD, silence / 2)
        """Seconds between two proofs of life, at most."""
        self.at = clock()


async def none_unused(keys: Collection[DestinationKey]) -> frozenset[DestinationKey]:
    """Nothing is known of connections, so no destination counts as unused."""
    return frozenset()


@dataclass(frozen=True)
class Machine:
    """``drivers`` write every table but the routes and the names."""

    drivers: Sequence[Driver]
    announcer: Announcer
    record_drivers: Sequence[RecordDriver] = ()
    """They write the node's names, in DNS and in Consul."""
    inspected: Inspected | None = None
    """The one of the drivers whose tables are looked at in slices; None: all are looked at as a whole."""
    unused: Unused = none_unused
    """Which of these destinations have no connection left."""
    counters: Counters | None = None
    """What the kernel has counted for each service and destination; None where nobody can say."""
    originals: Callable[[], Mapping[Table, Rows]] = dict
    """What the kernel's settings were before the drivers changed them."""
    gate_memory: GateMemory = field(default_factory=NoGateMemory)
    """Where what is known of the gates outlives the daemon."""
    pulse: Pulse = field(default_factory=Pulse)
    haproxy: Companion | None = None
    """The one of the drivers that works beside the cycles; None: this node serves no gateways."""

    @property
    def all_drivers(self) -> tuple[Driver, ...]:
        """Every driver, in the order in which the tables are read."""
        return (*self.drivers, *self.record_drivers, self.announcer)
