"""``anycastlb checks``: the types of health checks and their parameters, from their own documentation.

No node is asked, so the list does not depend on which programs or extras a node has.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any, get_args

import click
from pydantic.fields import FieldInfo

from anycastlb.adapters.checks import TYPES, CheckType
from anycastlb.cli.render.style import BOLD, DIM, PLAIN, Line, wrap
from anycastlb.core.catalog.schema import CheckDocument
from anycastlb.core.fields import UNITS, Document, duration

HINT = "`anycastlb checks TYPE` lists the parameters of one type, `anycastlb checks -v` those of all."
DIRECT = 'It cannot go through IPVS ("via": "forward").'


def list_types(name: str | None, verbose: bool, columns: int) -> list[Line]:
    """Every type with its summary; or everything about one type or all. Raises ``click.ClickException``."""
    if name is not None and name not in TYPES:
        raise click.ClickException(f"there is no check type {name!r:.60}; expected one of {', '.join(TYPES)}")
    if name is None and not verbose:
        return [*_summaries(columns), [], *wrap([(HINT, DIM)], columns)]
    lines: list[Line] = []
    for kind in [name] if name is not None else list(TYPES):
        lines += [*_type_lines(kind, TYPES[kind], columns), []]
    lines.append([("every check", BOLD)])
    return lines + _parameters(CheckDocument, columns)


def _summaries(columns: int) -> list[Line]:
    width = max(map(len, TYPES))
    lines: list[Line] = []
    for name, kind in TYPES.items():
        summary = plain(kind.summary).removeprefix(f"{name}: ")
        lines += wrap([(f"{name:<{width}}", BOLD), (f"  {summary}", PLAIN)], columns, width + 2)
    return lines


def _type_lines(name: str, kind: CheckType, columns: int) -> list[Line]:
    text = sys.modules[kind.params.__module__].__doc__ or ""
    lines: list[Line] = [[(name, BOLD)]]
    for part in paragraphs(plain(text).removeprefix(f"{name}: ")):
        lines += wrap([(f"  {part}", PLAIN)], columns, 4 if part.startswith("- ") else 2)
    if kind.direct_only and "through IPVS" not in " ".join(text.split()):
        lines += wrap([(f"  {DIRECT}", PLAIN)], columns, 2)
    return [*lines, [], *_parameters(kind.params, columns)]


def _parameters(model: type[Document], columns: int) -> list[Line]:
    schema = model.model_json_schema()["properties"]
    lines: list[Line] = [] if schema else [[("  No parameters.", DIM)]]
    for name, field in model.model_fields.items():
        form = f"{form_of(field, schema[name])}, {default_of(field, schema[name])}"
        lines += wrap([("  ", PLAIN), (name, BOLD), (f"  {form}", DIM)], columns, 6)
        for part in paragraphs(plain(schema[name].get("description", ""))):
            lines += wrap([(f"      {part}", PLAIN)], columns, 6)
    return lines


def plain(text: str) -> str:
    """A docstring without its double backquotes."""
    return text.replace("``", "").strip()


def paragraphs(text: str) -> Iterator[str]:
    """Each paragraph and each item of a list, as one line."""
    for part in re.split(r"\n\s*\n|\n\s*(?=- )", text):
        if words := " ".join(part.split()):
            yield words


def form_of(field: FieldInfo, schema: Mapping[str, Any]) -> str:
    """The kind of value that a field takes: ``duration``, ``number``, ``text``, ``true or false``, or its words."""
    if _is_duration(field.annotation, field.metadata):
        return "duration"
    choices = [one for one in _choices(schema) if one.get("type") != "null"]
    if words := [str(word) for one in choices for word in one.get("enum", ())]:
        return " or ".join(words)
    kinds = {one.get("type", "list") for one in choices}
    if "array" in kinds and len(kinds) > 1:
        return "number, range or list"
    if kinds == {"integer", "string"}:
        return "number" if any("ge" in str(item).lower() for item in _metadata(field)) else "name or number"
    names = {"integer": "number", "boolean": "true or false", "string": "text", "array": "list"}
    return " or ".join(names.get(kind, kind) for kind in sorted(kinds))


def _choices(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if "anyOf" not in schema or "type" in schema:  # with a type of its own, they are only its formats
        return [schema]
    return [choice for one in schema["anyOf"] for choice in _choices(one)]


def _is_duration(annotation: Any, metadata: Any) -> bool:
    if any(getattr(item, "func", None) is duration for item in metadata):
        return True
    inside = getattr(annotation, "__metadata__", ())
    return any(getattr(item, "func", None) is duration for item in inside) or any(
        _is_duration(part, ()) for part in get_args(annotation) if part is not type(None)
    )


def _metadata(field: FieldInfo) -> list[Any]:
    metadata = list(field.metadata)
    for part in get_args(field.annotation):
        metadata += getattr(part, "__metadata__", ())
    return metadata


def default_of(field: FieldInfo, schema: Mapping[str, Any]) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return f"default {str(value).lower()}"
    if isinstance(value, float) and _is_duration(field.annotation, field.metadata):
        return f"default {brief(value)}"
    if value == ():
        return "default {}" if schema.get("type") == "object" else "default []"
    return f"default {value}" if str(value) else "default empty"


def brief(seconds: float) -> str:
    """A duration as a person writes it: ``500ms``, ``2s``, ``5m``."""
    for unit, size in sorted(UNITS.items(), key=lambda item: -item[1]):
        if seconds >= size and abs(seconds / size - round(seconds / size)) < 1e-9:
            return f"{round(seconds / size)}{unit}"
    return f"{seconds:g}s"


def describe_type(name: str | None) -> dict[str, Any]:
    """Every type, or one, for programs: the summary and the JSON schema of the parameters. Raises as ``list_types``."""
    if name is not None and name not in TYPES:
        raise click.ClickException(f"there is no check type {name!r:.60}; expected one of {', '.join(TYPES)}")
    return {
        kind: {"summary": plain(TYPES[kind].summary), "parameters": TYPES[kind].params.model_json_schema()}
        for kind in ([name] if name is not None else TYPES)
    }
