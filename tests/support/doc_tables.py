"""The tables of fields in the pages about documents: what stands in them, and how a model reads it."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, NamedTuple

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo


class Row(NamedTuple):
    name: str
    default: str
    example: str
    meaning: str


def cells(line: str) -> list[str]:
    """The cells of a table's line: a bar is a border, inside of code too."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def tables(text: str) -> dict[str, dict[str, Row]]:
    """By heading and field."""
    tables: dict[str, dict[str, Row]] = {}
    heading, inside = "", False
    for line in text.splitlines():
        if line.startswith("#"):
            heading, inside = line.lstrip("# "), False
        elif line.startswith("| field |"):
            inside = True
        elif inside and line.startswith("| `"):
            name, default, example, meaning = cells(line)
            rows = tables.setdefault(heading, {})
            assert name.strip("`") not in rows, f"{heading}: {name} stands twice"
            rows[name.strip("`")] = Row(name.strip("`"), default, example, meaning)
        elif not line.startswith("|"):
            inside = False
    return tables


def coded(cell: str) -> Any:
    """The JSON value in a cell."""
    match = re.fullmatch(r"`([^`]+)`", cell)
    assert match, f"expected one JSON value in backticks, not {cell}"
    return json.loads(match[1])


def read_field(field: FieldInfo, value: Any) -> Any:
    """A value as the model reads it for this field."""
    kind: Any = field.annotation
    for item in field.metadata:
        kind = Annotated[kind, item]
    return TypeAdapter(kind).validate_python(value)
