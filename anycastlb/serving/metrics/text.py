"""Families as lines of text, in Prometheus's own format and in OpenMetrics. Pure.

The library's encoder makes several objects for each sample: of ten thousand backends that is four times the work, and
the collector of garbage stops the event loop meanwhile. Here the labels of an object are put into words once, for all
the families it is in. Histograms and the process's own metrics are left to the library.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, repeat
from operator import is_

from anycastlb.serving.metrics.families import Family, FamilyLines, FamilySamples, Lines, Sample

ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", '"': '\\"'})


class Labels:
    """Label values as text; those that were asked for before are remembered."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], dict[tuple[str, ...], bytes]] = {}
        """The text by the labels' names and then by their values."""
        self._rows: tuple[tuple[str, ...], tuple[tuple[str, ...], ...]] = ((), ())
        """The labels of the last lines, names and values: most families have lines for the same objects."""
        self._last: tuple[bytes, ...] = ()
        """The text of these."""

    def lines(self, family: Family, samples: Iterable[Sample]) -> Lines:
        """Of each sample the text of its labels, and the text of its number."""
        rows, numbers = tuple(zip(*samples, strict=True)) or ((), ())
        if (family.labels, rows) != self._rows:
            self._rows = family.labels, rows
            known = self._known.setdefault(family.labels, {})
            for values in rows:
                if values not in known:
                    known[values] = _labels(family.labels, values).encode()
            self._last = tuple(map(known.__getitem__, rows))
        if all(map(is_, numbers[1:], numbers)):
            numbers = numbers[:1]  # it is one object
        texts = [_number(number).encode() for number in numbers]
        return Lines(self._last, tuple(texts[:1] if len(set(texts)) == 1 else texts))


class Writer:
    """Writes the families of one scrape."""

    def __init__(self, openmetrics: bool, labels: Labels | None = None) -> None:
        self._openmetrics = openmetrics
        self._labels = labels or Labels()

    def text(self, rows: FamilySamples | FamilyLines) -> bytes:
        """A family as whole lines."""
        family = rows.family
        name = family.name.removesuffix("_total") if self._openmetrics else family.name
        pieces = rows.pieces if isinstance(rows, FamilyLines) else [self._labels.lines(family, rows.samples)]
        head = f"# HELP {name} {family.text}\n# TYPE {name} {family.type}\n".encode()
        return b"".join((head, *chain.from_iterable(_written(family.name.encode(), lines) for lines in pieces)))


def _written(name: bytes, lines: Lines) -> Iterable[bytes]:
    """The lines of one metric, joined by what many of them have in common."""
    labels, numbers = lines
    if not labels:
        return ()
    if len(numbers) == 1:
        number = b" %b\n" % numbers[0]
        return name, (number + name).join(labels), number
    return chain.from_iterable(zip(repeat(name), labels, repeat(b" "), numbers, repeat(b"\n")))


def _labels(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    pairs = sorted(zip(names, values, strict=True))  # as the library has them
    inside = ",".join(f'{name}="{value.translate(ESCAPES)}"' for name, value in pairs)
    return f"{{{inside}}}" if inside else ""


def _number(value: float) -> str:
    """A number as both formats write it; a whole number keeps all its 64 bits."""
    if isinstance(value, int):
        return str(int(value))
    text = repr(float(value))
    return {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}.get(text, text)
