"""How the tests themselves are kept: where shared things lie, and what a file of tests is called."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import anycastlb

TESTS = Path(__file__).parents[1]
PACKAGE = Path(anycastlb.__file__).parent
NO_MODULE = {"catalog_docs", "docs", "error_tree", "house", "man", "package", "reasons", "tour", "vagrant"}
"""What the other unit tests are about: documents, and the house itself. ``rig_*`` are about ``tests/rig``."""


def imports(path: Path) -> Iterator[str]:
    """Every module and name that a file imports, with dots."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{name.name}" for name in node.names)


def test_nothing_is_imported_from_a_test_module() -> None:
    """What two tests share lies in ``tests/support``."""
    shared = {
        f"{path.relative_to(TESTS)}: {name}"
        for path in TESTS.rglob("*.py")
        for name in imports(path)
        if name.startswith("tests.") and any(part.startswith("test_") for part in name.split("."))
    }
    assert shared == set()


def modules() -> Iterator[str]:
    """Every way to name a module or package by the last parts of its path: ``views_names``, ``names``."""
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        yield from ("_".join(parts[start:]) for start in range(len(parts)))


def test_a_file_of_unit_tests_is_named_after_its_module() -> None:
    """``test_<module>.py``, or ``test_<module>_<topic>.py``."""
    known = set(modules())
    stray = {
        name
        for name in (path.stem.removeprefix("test_") for path in (TESTS / "unit").glob("test_*.py"))
        if name not in NO_MODULE and not name.startswith("rig_")
        if not any(name == module or name.startswith(f"{module}_") for module in known)
    }
    assert stray == set()
