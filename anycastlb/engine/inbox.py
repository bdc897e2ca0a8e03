"""The inputs of the next decision, and the event that wakes the reconciler when they have changed."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from anycastlb.core.model import ALL_TABLES, Inputs, Table


class Inbox:
    """Every writer of ``Inputs`` puts its fields here, and the reconciler waits for ``dirty``."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs
        self.dirty = asyncio.Event()
        self.version = 0
        """Grows with every put that may change a decision."""
        self.stale: set[Table] = set(ALL_TABLES)
        """The tables of the machine that may not be as they were last known, so that the next cycle looks at them."""

    def put(self, wake: bool = True, **fields: Any) -> None:
        """Replace fields of the inputs; ``wake=False`` for what changes no decision."""
        self.inputs = replace(self.inputs, **fields)
        if wake:
            self.version += 1
            self.dirty.set()

    def wake(self, stale: Collection[Table] = ALL_TABLES) -> None:
        """Have the machine looked at soon. ``stale``: the tables in which something may have changed."""
        self.stale.update(stale)
        self.dirty.set()
