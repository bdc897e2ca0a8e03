"""What is kept although nobody asks for it any more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Leaving:
    """A row nobody asks for any more, kept so that its flows can end."""

    row: Any
    until: float
    drain: float = 0.0
    """Seconds for which it is kept once nothing new comes to it."""
    serves: bool = False
    """It serves as before, until the backends that replace it were checked for the first time."""
