"""Reasons are values: every code is documented, and nobody takes a text apart."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from anycastlb.core.decision.gate import WAITS
from anycastlb.core.decision.http.passive import FAILED
from anycastlb.core.model import Reason

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "anycastlb").rglob("*.py"))
DOCUMENTED = set(re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", (ROOT / "docs/REASONS.md").read_text(), re.MULTILINE))
CODES = {code for cell in DOCUMENTED for code in re.findall(r"`(\w+)`", cell)}


def words(node: ast.AST) -> Iterator[str]:
    """The text constants of an expression that are no empty text."""
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str) and part.value:
            yield part.value


def codes_of(tree: ast.AST) -> Iterator[str]:
    """The codes in ``Reason(code, ...)``, ``reason.also(text, code)``, and in pairs that a ``..._refusal`` returns."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Reason" and node.args:
            yield from words(node.args[0])
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "also":
            yield from (word for argument in node.args[1:] for word in words(argument))
        if isinstance(node, ast.FunctionDef) and node.name.endswith("_refusal"):
            pairs = (part.value for part in ast.walk(node) if isinstance(part, ast.Return))
            yield from (word for pair in pairs if isinstance(pair, ast.Tuple) for word in words(pair.elts[0]))


def test_every_code_is_documented_and_every_documented_code_is_used() -> None:
    used = (
        {code for path in SOURCES for code in codes_of(ast.parse(path.read_text()))} | set(WAITS) | {"damped", FAILED}
    )
    assert used == CODES


def test_a_clause_joins_and_decides_only_if_it_has_a_code() -> None:
    shut = Reason("too_few_backends", "0/1 backends up", "web")
    assert shut.also("as before") == Reason("too_few_backends", "0/1 backends up; as before", "web")
    assert shut.also("damped", "damped") == Reason("damped", "0/1 backends up; damped", "web")
    assert f"{shut}" == "0/1 backends up"


def test_nobody_takes_a_reason_apart() -> None:
    """Of a row in Consul only its output is known, which is no reason of ours (``row.reason``)."""
    apart = re.compile(
        r"(?<!row\.)reason(\.text|\[\"reason\"\])?\.(r?partition|r?split|startswith|endswith|remove(pre|suf)fix)\("
    )
    found = [f"{path.name}: {line.strip()}" for path in SOURCES for line in path.read_text().splitlines()
             if apart.search(line)]  # fmt: skip
    assert found == []
