"""Every exception class of the product stands in one tree, and ``core.model`` draws all of it."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections import Counter
from collections.abc import Iterator

import anycastlb
from anycastlb.core import model
from anycastlb.core.model import AnycastlbError

LINE = re.compile(r"^ {4}(?P<branch>[│├└─ ]*)(?P<name>[A-Za-z_]\w*)(?P<text> +\S.*)?$")
Edge = tuple[str, str]
"""A class and the one that it derives from, by name."""


def defined() -> Iterator[type[BaseException]]:
    """The exception classes that the package defines, each once."""
    for module in pkgutil.walk_packages(anycastlb.__path__, "anycastlb."):
        if not module.name.endswith(".__main__"):
            for value in vars(importlib.import_module(module.name)).values():
                if isinstance(value, type) and issubclass(value, BaseException) and value.__module__ == module.name:
                    yield value


def drawn(text: str) -> Iterator[Edge]:
    """What a drawing says: the depth of a name is where it stands, four columns for each level."""
    above: list[str] = []
    for line in text.splitlines():
        if match := LINE.match(line):
            depth = len(match["branch"]) // 4
            yield match["name"], above[depth - 1] if depth else "Exception"
            above[depth:] = [match["name"]]


def test_every_exception_derives_from_the_root() -> None:
    stray = [f"{found.__module__}.{found.__qualname__}" for found in defined() if not issubclass(found, AnycastlbError)]
    assert not stray, "derive them from AnycastlbError, or from what they are a case of"


def test_the_drawing_shows_every_exception() -> None:
    picture = (model.__doc__ or "").partition("::\n")[2]
    classes: Counter[Edge] = Counter((found.__name__, found.__bases__[0].__name__) for found in defined())
    in_drawing = Counter(drawn(picture))
    assert not classes - in_drawing, "draw them in the docstring of core/model/__init__.py, under their base"
    assert not in_drawing - classes, "no such class; remove the line from the docstring of core/model/__init__.py"


def test_the_drawing_is_read_by_its_columns() -> None:
    picture = "\n".join(("    A", "    ├── B   text", "    │   └── C", "    └── D  text"))
    assert list(drawn(picture)) == [("A", "Exception"), ("B", "A"), ("C", "B"), ("D", "A")]
