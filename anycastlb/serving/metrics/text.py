"""Families as lines of text, in Prometheus's own format and in OpenMetrics. Pure.

The library's encoder makes several objects for each sample: of ten thousand backends that is four times the work, and
the collector of garbage stops the event loop meanwhile. Here the labels of an object are put into words once, for all
the families it is in. Histograms and the process's own metrics are left to the library.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain, repeat
from typing import NamedTuple

from anycastlb.serving.metrics.families import Family, FamilyLines, FamilySamples, Lines, Sample

ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", '"': '\\"'})


NOTHING = Lines((), ())
TOGETHER = 100
"""Pieces of a family that are joined in one go, of some ten lines each."""
Label = tuple[str, ...]


class Labels:
    """Label values as text; those that were asked for before are remembered."""

    def __init__(self) -> None:
        self._known: dict[Label, dict[Label, bytes]] = {}
        """The text by the labels' names and then by their values."""

    def lines(self, family: Family, samples: Iterable[Sample]) -> Lines:
        """Of each sample the text of its labels, and the text of its number."""
        rows, numbers = tuple(zip(*samples, strict=True)) or ((), ())
        known = self._known.setdefault(family.labels, {})
        for values in rows:
            if values not in known:
                known[values] = _labels(family.labels, values).encode()
        return lines(tuple(map(known.__getitem__, rows)), numbers)


def lines(labels: tuple[bytes, ...], numbers: Sequence[float | None], end: bytes = b"") -> Lines:
    """Labels as text with their numbers, but for those that have none. ``end``: what all labels end with."""
    given: Sequence[float] = numbers  # type: ignore[assignment]
    if None in numbers:
        labels = tuple(label for label, number in zip(labels, numbers, strict=True) if number is not None)
        given = [number for number in numbers if number is not None]
    if not given:
        return NOTHING
    if given.count(given[0]) == len(given):
        return Lines(labels, _for_all(given[0]), end)
    return Lines(labels, tuple(map(_number, given)), end)


@lru_cache(1024, typed=True)
def _for_all(number: float) -> tuple[bytes]:
    """The text of a number that many lines have, as one object."""
    return (_number(number),)


class Written(NamedTuple):
    """A family that is put into words, but not into one text yet."""

    name: bytes
    head: bytes
    pieces: Sequence[Lines]

    def joined(self) -> Iterator[bytes]:
        """Whole lines, in pieces of some ten kilobytes."""
        yield self.head
        for begin in range(0, len(self.pieces), TOGETHER):
            some = self.pieces[begin : begin + TOGETHER]
            yield b"".join(chain.from_iterable(_written(self.name, lines) for lines in some))


class Writer:
    """Puts the families of one scrape into words."""

    def __init__(self, openmetrics: bool, labels: Labels | None = None) -> None:
        self._openmetrics = openmetrics
        self._labels = labels or Labels()

    def write(self, rows: FamilySamples | FamilyLines) -> Written:
        family = rows.family
        name = family.name.removesuffix("_total") if self._openmetrics else family.name
        pieces = rows.pieces if isinstance(rows, FamilyLines) else [self._labels.lines(family, rows.samples)]
        head = f"# HELP {name} {family.text}\n# TYPE {name} {family.type}\n".encode()
        return Written(family.name.encode(), head, pieces)


def _written(name: bytes, lines: Lines) -> Iterable[bytes]:
    """The lines of one metric, joined by what many of them have in common."""
    labels, numbers, end = lines
    if not labels:
        return ()
    if len(numbers) == 1:
        rest = b"%b %b\n" % (end, numbers[0])
        return name, (rest + name).join(labels), rest
    return chain.from_iterable(zip(repeat(name), labels, repeat(end + b" "), numbers, repeat(b"\n")))


def _labels(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    pairs = sorted(zip(names, values, strict=True))  # as the library has them
    inside = ",".join(f'{name}="{escaped(value)}"' for name, value in pairs)
    return f"{{{inside}}}" if inside else ""


def escaped(value: str) -> str:
    """The value of a label, as both formats write it between quotes."""
    return value.translate(ESCAPES) if not value.isalnum() else value


def _number(value: float) -> bytes:
    """A number as both formats write it; a whole number keeps all its 64 bits."""
    if isinstance(value, int):
        return b"%d" % value
    text = repr(float(value))
    return {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}.get(text, text).encode()
