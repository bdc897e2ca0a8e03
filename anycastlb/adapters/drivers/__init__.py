"""Drivers: the only code that writes to the machine, one per table (IPVS has two tables and one socket).

A driver observes its tables and applies changes to them. It decides nothing: no order, no filter but ownership
(``observe`` returns only what is ours), no retry. A change that is refused is returned as a ``Failure`` and never
stops the others; a driver that cannot work at all raises ``DriverError``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from anycastlb.core.model import Change, Failure, Rows, Table


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
