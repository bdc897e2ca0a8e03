"""JSON texts of many objects that differ in little: what they have in common is put into words once.

A *mould* is the JSON text of one object with a gap for each of its values that are its own: its name, its address, its
ages. Objects that are alike in all else are poured into the same mould, which takes a tenth of the time. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable
from typing import Any, TypeAlias
from uuid import uuid4

MARK = uuid4().hex
"""What stands for a gap until the mould is made. Nobody can know it and write it into a document."""
Word: TypeAlias = float | str
"""What fills a gap: a number, or JSON."""
LIMIT = 4096
"""Moulds that are kept. Objects that are alike in nothing are no faster than without."""


class Moulds:
    """The moulds of one kind of object. ``gaps``: its fields that are gaps, such as ``check.last.age_seconds``."""

    def __init__(self, *gaps: str) -> None:
        self._gaps = frozenset(gaps)
        self._known: dict[Hashable, str] = {}

    def get(self, common: Hashable, view: Callable[[], dict[str, Any]]) -> str:
        """The mould, for ``%`` and the values of the gaps in their order. ``common``: all that is between the gaps;
        ``view`` makes an object of which this is true."""
        mould = self._known.get(common)
        if mould is None:
            if len(self._known) >= LIMIT:
                self._known.clear()
            text = json.dumps(self._gapped(view()))
            mould = self._known[common] = text.replace("%", "%%").replace(f'"{MARK}"', "%s")
        return mould

    def _gapped(self, view: Any, path: str = "") -> Any:
        if path in self._gaps:
            return MARK
        if isinstance(view, list):
            return [self._gapped(item, path) for item in view]
        if isinstance(view, dict):
            return {name: self._gapped(value, f"{path}.{name}" if path else name) for name, value in view.items()}
        return view


def word(value: float | None) -> Word:
    """A number for a gap."""
    return "null" if value is None else value


def listed(texts: list[str]) -> str:
    """The list of these texts."""
    return f"[{', '.join(texts)}]"
