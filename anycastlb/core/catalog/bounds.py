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
from collections.abc import Iterable
from typing import Any

import yaml

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
MAX_ALIASES = 100
"""Aliases in one YAML document."""
MAX_EXPRESSIONS = 50
"""Different regular expressions in one document: each takes about a millisecond to compile."""
MAX_BULK = 5_000_000
"""Values in many documents that come in one text, as an export has them."""

TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}]', re.DOTALL)
"""A string of JSON, so that brackets inside of it do not count, or a bracket."""
BRACKET = re.compile(r"[\[\]{}]")
DOTTED = re.compile(r"""(?<![\w"'.-])(?:[\w"'-]++[ \t]*+\.[ \t]*+){128}""")
"""A key of TOML with so many parts; a name in DNS has at most 127."""
OCTAL = re.compile(r"[-+]?0[0-9_]+")
SEXAGESIMAL = re.compile(r"[-+]?[1-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")
"""Numbers of YAML 1.1 that nobody means: a community of BGP is one of them."""
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Both read the same; the one in C is ten times as fast."""


def read_json(text: str, max_values: int = MAX_VALUES) -> Any:
    """The value in a text of JSON: no name twice in one object, no NaN, no infinity. Raises ValueError."""
    if not text.strip():
        raise ValueError("the value is empty")
    if text.startswith("\ufeff"):
        raise ValueError("it begins with a byte order mark; save it as UTF-8 without one")
    _check_nesting(TOKEN, text, MAX_DEPTH, max_values)
    value = json.loads(text, object_pairs_hook=_unique, parse_constant=_constant, parse_float=_finite, parse_int=_whole)
    return bounded(value, max_values)


def read_toml(text: str) -> Any:
    """The table in a text of TOML. Raises ValueError."""
    _check_nesting(BRACKET, text, 4 * MAX_DEPTH, MAX_VALUES)  # brackets in strings count, so the bound is wide
    if text.count(",") + text.count("=") > 2 * MAX_VALUES:
        raise ValueError(f"more than {MAX_VALUES} values; give each backend a key of its own")
    if DOTTED.search(text):
        raise ValueError(f"deeper than {MAX_DEPTH} levels")
    return bounded(tomllib.loads(text))


def read_yaml(text: str) -> Any:
    """The value in a text of YAML. Raises ValueError."""
    try:
        _check_events(yaml.parse(text, Loader=LOADER))
        return bounded(yaml.load(text, Loader=LOADER))
    except yaml.YAMLError as exc:
        raise ValueError(str(exc)) from exc


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


def _check_events(events: Iterable[Any]) -> None:
    """What the reader of YAML would not tell: an alias inside of what an anchor names could double what is made of it,
    again and again; a field may stand twice; a plain text may be a number of another base."""
    anchors: list[bool] = []
    fields = _FieldNames()
    aliases = 0
    for count, event in enumerate(events):
        if count > 2 * MAX_VALUES:
            raise ValueError(f"more than {MAX_VALUES} values; give each backend a key of its own")
        fields.take(event)
        match event:
            case yaml.CollectionStartEvent():
                anchors.append(event.anchor is not None)
                if len(anchors) > MAX_DEPTH:
                    raise ValueError(f"deeper than {MAX_DEPTH} levels")
            case yaml.CollectionEndEvent():
                anchors.pop()
            case yaml.AliasEvent():
                aliases += 1
                if any(anchors) or aliases > MAX_ALIASES:
                    raise ValueError(f"at most {MAX_ALIASES} aliases, and none inside of what an anchor names")
            case yaml.ScalarEvent() if event.tag is None and event.implicit[0]:
                _check_plain(event.value)
        if getattr(event, "tag", None) not in (None, "!", "tag:yaml.org,2002:str"):
            raise ValueError(f"a YAML tag ({event.tag:.60}) is not read; expected plain values")


def _check_plain(text: str) -> None:
    """A text of YAML without quotes, which may be read as a number."""
    if len(text) > MAX_FIELD:
        if text[0] in "+-.0123456789":
            raise ValueError(f"a number has at most {MAX_FIELD} characters; quote what is text")
    elif OCTAL.fullmatch(text):
        raise ValueError(f"{text} begins with 0, which makes it octal in YAML: leave the 0 out, or quote a text")
    elif SEXAGESIMAL.fullmatch(text):
        raise ValueError(f"{text} is a number of base 60 in YAML: quote it")


class _FieldNames:
    """Follows the events of YAML, and raises ValueError for a field that stands twice in one mapping."""

    def __init__(self) -> None:
        self._open: list[set[str] | None] = []
        """The names so far of every mapping that is open; None for a sequence."""
        self._awaits_name: list[bool] = []

    def take(self, event: Any) -> None:
        if isinstance(event, yaml.CollectionEndEvent):
            self._open.pop()
            self._awaits_name.pop()
            return
        if not isinstance(event, yaml.NodeEvent):
            return
        if self._open and (names := self._open[-1]) is not None:
            if self._awaits_name[-1] and isinstance(event, yaml.ScalarEvent):
                if event.value in names:
                    raise ValueError(f"the field {shown(event.value)} stands twice")
                names.add(event.value)
            self._awaits_name[-1] = not self._awaits_name[-1]
        if isinstance(event, yaml.CollectionStartEvent):
            mapping = isinstance(event, yaml.MappingStartEvent)
            self._open.append(set() if mapping else None)
            self._awaits_name.append(mapping)


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
