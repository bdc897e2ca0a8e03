"""How the house is kept: what a reader meets at the top, how long things are, where shared things of tests lie."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import anycastlb

TESTS = Path(__file__).parents[1]
PACKAGE = Path(anycastlb.__file__).parent
NO_MODULE = {
    "catalog_docs",
    "docs",
    "error_tree",
    "fault_table",
    "house",
    "man",
    "package",
    "reasons",
    "tour",
    "vagrant",
}
"""What the other unit tests are about: documents, the house itself, and the lab. ``rig_*`` are about ``tests/rig``."""


MAX_ENTRIES = 14
"""Files and folders at the top of the package."""
MAX_ARGUMENTS = 6
MANY_ARGUMENTS = {"Client"}
"""Constructors with more of them: what a program says of a node, by keyword, as the user of any HTTP client does."""
SCREEN = 60
"""Lines of a function at most."""
Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def sources() -> Mapping[str, ast.Module]:
    """Every module of the product, by its name with dots."""
    paths = {path.relative_to(PACKAGE.parent).with_suffix("").parts: path for path in sorted(PACKAGE.rglob("*.py"))}
    return {
        ".".join(parts[:-1] if parts[-1] == "__init__" else parts): ast.parse(path.read_text())
        for parts, path in paths.items()
    }


def imports(path: Path) -> Iterator[str]:
    """Every module and name that a file imports, with dots."""
    yield from imported(ast.parse(path.read_text()))


def imported(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
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


def test_the_top_of_the_package_can_be_taken_in_at_a_glance() -> None:
    entries = {path.name for path in PACKAGE.iterdir()} - {"__pycache__"}
    assert len(entries) <= MAX_ENTRIES, sorted(entries)


def test_nothing_is_imported_in_a_circle() -> None:
    known = sources()
    uses = {
        name: {one if one in known else one.rpartition(".")[0] for one in imported(module)} & known.keys() - {name}
        for name, module in known.items()
    }
    TopologicalSorter(uses).prepare()  # raises CycleError, which names them


def test_nothing_is_imported_under_another_name() -> None:
    """What must be renamed wherever it is used has the wrong name. ``X as X`` says that a module hands X on."""
    renamed = [
        f"{name}: {alias.name} as {alias.asname}"
        for name, module in sources().items()
        for node in ast.walk(module)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if alias.asname not in (None, alias.name)
    ]
    assert renamed == []


def test_constructors_take_few_arguments() -> None:
    many = {
        owner.name: arguments
        for module in sources().values()
        for owner in ast.walk(module)
        if isinstance(owner, ast.ClassDef)
        for made in owner.body
        if isinstance(made, ast.FunctionDef) and made.name == "__init__"
        if (arguments := len([*made.args.posonlyargs, *made.args.args[1:], *made.args.kwonlyargs])) > MAX_ARGUMENTS
    }
    assert many.keys() == MANY_ARGUMENTS, many


def test_a_function_fits_a_screen() -> None:
    long = {
        f"{name}.{node.name}": lines
        for name, module in sources().items()
        for node in ast.walk(module)
        if isinstance(node, Function) and (lines := (node.end_lineno or 0) - node.lineno + 1) > SCREEN
    }
    assert long == {}
