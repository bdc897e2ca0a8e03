"""Read text that anybody may have written into plain values, within bounds that are checked before anything else.

Every document passes here: from Consul, from files, through the API, from imports. Reading takes time linear in the
text, recurses nowhere deeper than ``MAX_DEPTH`` allows and raises nothing but ``ValueError``. What comes out holds text
that can be written as UTF-8, numbers that JSON has, and no more values than one document may have. Pure.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from typing import Any

from anycastlb.core.fields import shown

MAX_BYTES = 512 * 1024
"""Of one document: the limit that Consul itself has for a value."""
MAX_DEPTH = 32
"""Levels of nesting in one document."""
MAX_VALUES = 10_000
"""Values in one document: fields, items of lists and objects together."""
MAX_FIELD = 256
"""Characters of the name of a field."""
MAX_TEXT = 64 * 1024
"""Characters of one text."""
MAX_WHOLE = 2**63
"""Whole numbers are below it."""
MAX_EXPRESSIONS = 50
"""Different regular expressions in one document: each takes about a millisecond to compile."""
MAX_BULK = 5_000_000
"""Values in many documents that come in one text, as an export has them."""

TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}]', re.DOTALL)
"""A string of JSON, so that brackets inside of it do not count, or a bracket."""
JSON = re.compile(r"\s*([\[{\"0-9-]|true|false|null|NaN|Infinity)")
"""What a value in JSON begins with, and the words that Python takes for one."""
BRACKET = re.compile(r"[\[\]{}]")
DOTTED = re.compile(r"""(?<![\w"'.-])(?:[\w"'-]++[ \t]*+\.[ \t]*+){128}""")
"""A key of TOML with so many parts; a name in DNS has at most 127."""


def read_json(text: str, max_values: int = MAX_VALUES) -> Any:
    """The value in a text of JSON: no name twice in one object, no NaN, no infinity. Raises ValueError."""
    if not text.strip():
        raise ValueError("the value is empty")
    if text.startswith("\ufeff"):
        raise ValueError("it begins with a byte order mark; save it as UTF-8 without one")
    if not JSON.match(text):
        raise ValueError(f"it begins with {shown(text.lstrip()[:10])}, and an object in JSON with {{")
    _check_nesting(TOKEN, text, MAX_DEPTH, max_values)
    value = json.loads(text, object_pairs_hook=_unique, parse_constant=_constant, parse_float=_finite, parse_int=_whole)
    return bounded(value, max_values)


def read_toml(text: str) -> Any:
    """The table in a text of TOML. Raises ValueError."""
    _check_nesting(BRACKET, text, 4 * MAX_DEPTH, MAX_VALUES)  # brackets in strings count, so the bound is wide
    if text.count(",") + text.count("=") > 2 * MAX_VALUES:
        raise ValueError(f"more than {MAX_VALUES} values; give each backend a key of its own")
    if text.count("\n") > 4 * MAX_VALUES or text.count(".") > 8 * MAX_VALUES:
        raise ValueError(f"more lines or dots than {MAX_VALUES} values take; give each backend a key of its own")
    if DOTTED.search(text):
        raise ValueError(f"deeper than {MAX_DEPTH} levels")
    return bounded(_toml(text))


def _toml(text: str) -> Any:
    try:
        return tomllib.loads(text)
    except RecursionError:  # brackets in strings hide how deep it is
        raise ValueError(f"deeper than {MAX_DEPTH} levels") from None
    except tomllib.TOMLDecodeError:
        raise
    except ValueError:  # Python reads no number of so many digits
        raise ValueError("a whole number is below 2**63") from None


def bounded(value: Any, max_values: int = MAX_VALUES) -> Any:
    """The value, if it is made of objects, lists, text, numbers, true, false and null, all within their bounds.

    Raises ValueError.
    """
    level, count = [value], 1
    expressions: set[str] = set()
    for _ in range(MAX_DEPTH):
        inside: list[Any] = []
        for one in level:
            if isinstance(one, (dict, list)):
                if count + len(inside) + len(one) > max_values:
                    raise ValueError(f"more than {max_values} values; give each backend a key of its own")
                if isinstance(one, dict):
                    _check_names(one)
                    inside += one.values()
                else:
                    inside += one
            else:
                _check_scalar(one)
                if isinstance(one, str) and one.startswith("re:"):
                    expressions.add(one)
        if len(expressions) > max(MAX_EXPRESSIONS, max_values // 200):
            raise ValueError(f"more than {MAX_EXPRESSIONS} regular expressions; give each backend a key of its own")
        if not inside:
            return value
        level, count = inside, count + len(inside)
    raise ValueError(f"deeper than {MAX_DEPTH} levels")


def _check_names(fields: dict[Any, Any]) -> None:
    for name in fields:
        if not isinstance(name, str):
            raise ValueError(f"the name of a field is a text, not {shown(name)} (in YAML, quote it)")
        if len(name) > MAX_FIELD or not name.isprintable():
            raise ValueError(f"the name of a field has at most {MAX_FIELD} printable characters, not {shown(name)}")


def _check_scalar(value: Any) -> None:
    match value:
        case None | bool():
            pass
        case str():
            if len(value) > MAX_TEXT:
                raise ValueError(f"a text has at most {MAX_TEXT} characters, not {len(value)}")
            try:
                value.encode()
            except UnicodeEncodeError:
                raise ValueError(f"half of a surrogate pair is no text: {shown(value)}") from None
        case int():
            if not -MAX_WHOLE < value < MAX_WHOLE:
                raise ValueError("a whole number is below 2**63")
        case float():
            if not math.isfinite(value):
                raise ValueError(f"{value} is not JSON")
        case _:
            raise ValueError(f"{type(value).__name__} is neither text nor a number; quote it")


def _check_nesting(pattern: re.Pattern[str], text: str, max_depth: int, max_values: int) -> None:
    """Nothing may be nested deeper: what reads it afterwards recurses."""
    if text.count("[") + text.count("{") <= max_depth:
        return
    depth = opened = 0
    for token in pattern.finditer(text):
        if token[0] in ("[", "{"):
            depth, opened = depth + 1, opened + 1
            if depth > max_depth:
                raise ValueError(f"deeper than {MAX_DEPTH} levels")
            if opened > max_values:
                raise ValueError(f"more than {max_values} values; give each backend a key of its own")
        elif token[0] in ("]", "}"):
            depth -= 1


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"the field {shown(name)} stands twice")
            seen.add(name)
    return fields


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    if len(text) > MAX_FIELD or not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:40]} is too large a number")
    return number


def _whole(text: str) -> int:
    if len(text) > 20:
        raise ValueError(f"{text[:40]} is too large a number")
    return int(text)
