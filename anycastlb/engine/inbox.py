"""The inputs of the next decision, and the event that wakes the reconciler when they have changed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from anycastlb.core.model import Inputs


class Inbox:
    """Every writer of ``Inputs`` puts its fields here, and the reconciler waits for ``dirty``."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs
        self.dirty = asyncio.Event()
        self.version = 0
        """Grows with every put that may change a decision."""

    def put(self, wake: bool = True, **fields: Any) -> None:
        """Replace fields of the inputs; ``wake=False`` for what changes no decision."""
        self.inputs = replace(self.inputs, **fields)
        if wake:
            self.version += 1
            self.dirty.set()

    def wake(self) -> None:
        self.dirty.set()
