"""JSON texts with gaps for what the mere passing of time changes.

A picture of ten thousand backends is ten megabytes, and most of it is as it was a second ago, but for its ages. So each
part is put into words when it changes, with a gap for each age, and the gaps are filled for whoever asks. Pure.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from sys import intern
from typing import TypeAlias
from uuid import uuid4

from anycastlb.core.model import Snapshot
from anycastlb.serving.views.index import Index, Places

MARK = uuid4().hex
"""What stands for a gap until the text is taken apart. Nobody can know it and write it into a document."""
GAP = re.compile(rf'"{MARK}(\d+)"')


@dataclass(frozen=True, slots=True)
class Age:
    """Seconds since a moment (``sign`` 1), or until it (-1); never negative."""

    moment: float
    sign: int

    def write(self, words: list[str], now: float) -> None:
        words.append(repr(round(max(0.0, (now - self.moment) * self.sign), 3)))


@dataclass(frozen=True, slots=True, eq=False)
class Text:
    """A JSON text in pieces, with a gap between each two of them."""

    pieces: tuple[str, ...]
    gaps: tuple[Gap, ...] = ()

    def at(self, now: float) -> str:
        """The text at this moment, by the clock of the snapshots."""
        words: list[str] = []
        self.write(words, now)
        return "".join(words)

    def write(self, words: list[str], now: float) -> None:
        """Add the text at this moment to ``words``."""
        pieces = self.pieces
        words.append(pieces[0])
        for place, gap in enumerate(self.gaps, 1):
            gap.write(words, now)
            words.append(pieces[place])


@dataclass(slots=True, eq=False)
class Slot:
    """The place of a text that changes more often than what is around it."""

    text: Text

    def write(self, words: list[str], now: float) -> None:
        self.text.write(words, now)


Gap: TypeAlias = Age | Text | Slot


class Stencil(Index):
    """An index whose ages are gaps of the ``text`` that is made of it."""

    def __init__(self, snapshot: Snapshot, now: float, places: Places) -> None:
        super().__init__(snapshot, now, places)
        self._gaps: list[Gap] = []

    def part(self, text: Text | Slot) -> str:
        """Stands for a text inside of the one that is being made."""
        return self._gap(text)

    def age(self, since: float) -> float | None:
        return self._gap(Age(since, 1)) if math.isfinite(since) else None  # type: ignore[return-value]

    def left(self, until: float) -> float:
        return self._gap(Age(until, -1))  # type: ignore[return-value]

    def text(self, view: object) -> Text:
        """The text of a view that was made of this index since the last text."""
        pieces = GAP.split(json.dumps(view))
        gaps = tuple(self._gaps[int(number)] for number in pieces[1::2])
        self._gaps.clear()
        return Text(tuple(map(intern, pieces[0::2])), gaps)

    def _gap(self, gap: Gap) -> str:
        self._gaps.append(gap)
        return f"{MARK}{len(self._gaps) - 1}"
