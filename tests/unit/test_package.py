"""What holds for the whole package, read from its syntax."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import anycastlb

PACKAGE = Path(anycastlb.__file__).parent
MAX_ARGUMENTS = 6
TOO_LARGE = {"Client"}
"""The client library's: its keywords are a promise to users' programs."""


def constructors() -> Iterator[tuple[str, str, int]]:
    """The file, the class, and how many arguments its constructor takes beside ``self``."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                for part in node.body:
                    if isinstance(part, ast.FunctionDef) and part.name == "__init__":
                        given = part.args
                        count = len(given.posonlyargs) + len(given.args) + len(given.kwonlyargs) - 1
                        yield str(path.relative_to(PACKAGE)), node.name, count


def test_a_constructor_takes_few_arguments() -> None:
    """Values that belong together are grouped into one, as ``Parts`` of ``engine/node.py`` are."""
    large = {name: f"{file}: {count}" for file, name, count in constructors() if count > MAX_ARGUMENTS}
    assert large.keys() == TOO_LARGE, large
