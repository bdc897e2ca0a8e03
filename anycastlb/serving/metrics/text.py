"""Families as lines of text, in Prometheus's own format and in OpenMetrics. Pure.

The library's encoder makes several objects for each sample: of ten thousand backends that is four times the work, and
the collector of garbage stops the event loop meanwhile. Here the labels of an object are put into words once, for all
the families it is in. Histograms and the process's own metrics are left to the library.
"""

from __future__ import annotations

from collections.abc import Iterable
from sys import intern

from anycastlb.serving.metrics.families import Family, FamilyLines, FamilySamples, Lines, Sample

ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", '"': '\\"'})


class Labels:
    """Label values as text; those that were asked for before are remembered."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], dict[tuple[str, ...], str]] = {}
        """The text by the labels' names and then by their values."""
        self._last: tuple[str, ...] = ()
        """The labels of the last lines: most families have a line for the same objects."""

    def lines(self, family: Family, samples: Iterable[Sample]) -> Lines:
        """Of each sample the text of its labels, and the text of its number."""
        known = self._known.setdefault(family.labels, {})
        texts, numbers = [], []
        for values, number in samples:
            text = known.get(values)
            if text is None:
                text = known[values] = _labels(family.labels, values)
            texts.append(text)
            numbers.append(intern(str(number) if type(number) is int else _number(number)))
        self._last = labels if (labels := tuple(texts)) != self._last else self._last
        return self._last, tuple(numbers)


class Writer:
    """Writes the families of one scrape."""

    def __init__(self, openmetrics: bool) -> None:
        self._openmetrics = openmetrics
        self._labels = Labels()

    def text(self, rows: FamilySamples | FamilyLines) -> bytes:
        """A family as whole lines."""
        family = rows.family
        name = family.name.removesuffix("_total") if self._openmetrics else family.name
        pieces = rows.pieces if isinstance(rows, FamilyLines) else [self._labels.lines(family, rows.samples)]
        lines = [f"{family.name}{labels} {number}\n" for piece in pieces for labels, number in zip(*piece, strict=True)]
        return f"# HELP {name} {family.text}\n# TYPE {name} {family.type}\n{''.join(lines)}".encode()


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
