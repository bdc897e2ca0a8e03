"""Families as lines of text, in Prometheus's own format and in OpenMetrics. Pure.

The library's encoder makes several objects for each sample: of ten thousand backends that is four times the work, and
the collector of garbage stops the event loop meanwhile. Here the labels of an object are put into words once, for all
the families it is in. Histograms and the process's own metrics are left to the library.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from anycastlb.serving.metrics.families import Family, FamilySamples, FamilyText, Sample

ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", '"': '\\"'})


class Labels:
    """Label values as text; those that were asked for before are remembered."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], dict[tuple[str, ...], str]] = {}
        """The text by the labels' names and then by their values."""

    def lines(self, family: Family, samples: Iterable[Sample]) -> Iterator[str]:
        """One line for each sample."""
        known, name = self._known.setdefault(family.labels, {}), family.name
        for values, number in samples:
            labels = known.get(values)
            if labels is None:
                labels = known[values] = _labels(family.labels, values)
            yield f"{name}{labels} {number if type(number) is int else _number(number)}\n"


class Writer:
    """Writes the families of one scrape."""

    def __init__(self, openmetrics: bool) -> None:
        self._openmetrics = openmetrics
        self._labels = Labels()

    def pieces(self, rows: FamilySamples | FamilyText) -> Iterator[bytes]:
        """The text of a family, in pieces of whole lines."""
        family = rows.family
        name = family.name.removesuffix("_total") if self._openmetrics else family.name
        yield f"# HELP {name} {family.text}\n# TYPE {name} {family.type}\n".encode()
        if isinstance(rows, FamilyText):
            yield from rows.pieces
        else:
            yield "".join(self._labels.lines(family, rows.samples)).encode()


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
