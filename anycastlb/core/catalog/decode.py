"""Decode one raw value of the catalog into a document, and merge one document over another.

Pure. A document is a dict of plain values; what its fields mean is the business of ``service``.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from anycastlb.core.catalog.service import merged_check
from anycastlb.core.fields import is_address, shown
from anycastlb.core.model import AnycastlbError, Entry, Problem

MAX_BYTES = 512 * 1024
"""The limit that Consul itself has for a value."""


class MalformedDocument(AnycastlbError):
    """A document that cannot be used, with its problems."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def document(key: str, entry: Entry) -> dict[str, Any]:
    """The object in one value; ``null`` fields are left out (they mean the default). Raises
    ``MalformedDocument``."""
    origin = entry.origin or key
    if entry.error:
        raise MalformedDocument(Problem(origin, "", entry.error))
    if len(entry.value) > MAX_BYTES:
        raise MalformedDocument(Problem(origin, "", f"expected at most {MAX_BYTES} bytes, not {len(entry.value)}"))
    try:
        decoded = _DECODERS[entry.format](entry.value.decode())
    except (ValueError, RecursionError, yaml.YAMLError) as exc:
        reason = " ".join(str(exc).split())[:200] or type(exc).__name__
        raise MalformedDocument(Problem(origin, "", f"expected a {entry.format.upper()} object: {reason}")) from exc
    if not isinstance(decoded, dict) or not all(isinstance(name, str) for name in decoded):
        raise MalformedDocument(Problem(origin, "", f"expected a {entry.format.upper()} object, not {shown(decoded)}"))
    return {name: _without_null(value) for name, value in decoded.items() if value is not None}


def backend_document(key: str, name: str, entry: Entry) -> dict[str, Any]:
    """A backend key: an object, or the plain form ``weight=10 port=8080``; its name may be its address.

    Raises ``MalformedDocument``.
    """
    text = entry.value[:MAX_BYTES].decode(errors="replace").strip()
    plain = entry.format == "json" and (not text or re.fullmatch(r"[a-z_]+=\S+(\s+[a-z_]+=\S+)*", text))
    fields: dict[str, Any] = {}
    if plain:
        fields |= dict(pair.split("=", 1) for pair in text.split())
    else:
        fields = document(key, entry)
    if plain and "drain" in fields:
        fields["drain"] = {"true": True, "1": True, "false": False, "0": False}.get(fields["drain"], "?")
    if match := re.fullmatch(r"\[?([^\]]*?)\]?(?::(\d{1,5}))?", name):
        host, port = (name, None) if is_address(name) else (match[1], match[2])
        if is_address(host) and "address" not in fields:
            fields = {"address": host, **({"port": port} if port else {}), **fields}
    return fields


def _json(text: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"the field {shown(twice)} stands twice")
        return dict(pairs)

    def constant(name: str) -> Any:
        raise ValueError(f"{name} is not JSON")

    return json.loads(text, object_pairs_hook=unique, parse_constant=constant)


_DECODERS: Mapping[str, Callable[[str], Any]] = {"json": _json, "toml": tomllib.loads, "yaml": yaml.safe_load}


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_null(item) for name, item in value.items() if item is not None}
    return value


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` merged over ``under``, object by object; a check of another type replaces the one below."""
    merged = dict(under)
    for name, value in over.items():
        below = merged.get(name)
        if name == "check" and isinstance(below, dict) and isinstance(value, dict):
            merged[name] = merged_check(below, value)
        elif isinstance(below, dict) and isinstance(value, dict):
            merged[name] = merge(below, value)
        else:
            merged[name] = value
    return merged
