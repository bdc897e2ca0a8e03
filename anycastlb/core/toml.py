"""TOML as text to a document, and the line where a key stands, for messages."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from anycastlb.core.model import Problem, SettingsError


def load(text: str, name: str) -> dict[str, Any]:
    """The document in this text. Raises ``SettingsError`` with the line if it is no TOML; ``name`` is the file's."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        line = re.search(r"line (\d+)", str(exc))
        problem = Problem(name, "", f"expected TOML: {exc}", int(line[1]) if line else 0)
        raise SettingsError((problem,)) from exc


def line_of(text: str, path: str) -> int:
    """The 1-based line where ``table.key`` is set in a TOML text; its table's line if the key is absent; else 0."""
    table, _, rest = path.partition(".")
    key = rest.split(".")[0]
    inside = at = 0
    current = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[+\s*([^\]]+?)\s*\]", line):
            current = header[1].replace('"', "")
            if current == table:
                inside = at = number
        elif (setting := re.match(r'\s*"?([\w.-]+)"?\s*=', line)) and (
            (current == table and setting[1] == key) or (not current and setting[1] in (table, f"{table}.{key}"))
        ):
            return number
    return inside or at
