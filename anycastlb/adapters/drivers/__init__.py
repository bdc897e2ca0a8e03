"""Drivers: the only code that writes to the machine, one per table (IPVS has two tables and one socket).

A driver observes its tables and applies changes to them. It decides nothing: no order, no filter but ownership
(``observe`` returns only what is ours), no retry. A change that is refused is returned as a ``Failure`` and never
stops the others; a driver that cannot work at all raises ``DriverError``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from anycastlb.core.model import Change, Failure, Rows, ServiceKey, Table


class Driver(Protocol):
    tables: tuple[Table, ...]

    async def observe(self) -> Mapping[Table, Rows]:
        """Our rows of every table in ``tables``. Raises ``DriverError``.

        A kernel's listing may omit a row when another program edits the same table meanwhile, so a row that is not
        shown once need not be lost (``engine.observation``).
        """
        ...

    async def apply(self, changes: Sequence[Change]) -> Sequence[Failure]:
        """Write the changes, in this order. Raises ``DriverError`` only when nothing can be written at all."""
        ...


class Inspected(Driver, Protocol):
    """A driver that knows what it has seen and written, and can compare it with a part of the kernel."""

    async def services_differ(self, keys: Collection[ServiceKey] | None) -> bool:
        """Are these services (None: is the list of all) not as last seen or written, whatever their destinations?

        Raises ``DriverError``.
        """
        ...

    async def differ(self, keys: Collection[ServiceKey]) -> bool:
        """Are these services or their destinations not as last seen or written? Raises ``DriverError``."""
        ...

    async def suspects(self, services: Sequence[ServiceKey]) -> Sequence[ServiceKey]:
        """Those of these services whose destinations may not be as last seen or written, by a cheap look."""
        ...

    async def destinations_differ(self, keys: Collection[ServiceKey]) -> bool:
        """Are the destinations of these services not as last seen or written? Raises ``DriverError``."""
        ...
