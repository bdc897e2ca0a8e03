"""Decode one raw value of the catalog into a document, and merge one document over another.

Pure. A document is a dict of plain values; what its fields mean is the business of ``service``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from anycastlb.core.catalog.bounds import MAX_BYTES, read_json, read_toml
from anycastlb.core.catalog.check import merged_check
from anycastlb.core.fields import is_address, shown
from anycastlb.core.model import AnycastlbError, Entry, Problem

P = ParamSpec("P")
T = TypeVar("T")
MAX_PLAIN = 4096
"""Characters of a backend key in the plain form."""
MAX_PROBLEMS = 50
"""Problems that are listed of one document."""


class MalformedDocument(AnycastlbError):
    """A document that cannot be used, with its problems."""

    def __init__(self, *problems: Problem) -> None:
        if len(problems) > MAX_PROBLEMS:
            more = Problem(problems[0].key, "", "and more problems than are listed")
            problems = (*problems[:MAX_PROBLEMS], more)
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def contained(origin: str, parse: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What ``parse`` returns for one document. Whatever goes wrong in there is that document's problem, and stops no
    other. Raises nothing but ``MalformedDocument``."""
    try:
        return parse(*args, **kwargs)
    except MalformedDocument:
        raise
    except Exception as exc:  # a fault of ours, or a document that nobody thought of
        text = f"expected a document that can be read; this is a fault of anycastlb, please report it: {exc!r:.200}"
        raise MalformedDocument(Problem(origin, "", text)) from exc


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
    except UnicodeDecodeError as exc:
        text = f"expected text in UTF-8; byte {exc.start} is none: save it as UTF-8"
        raise MalformedDocument(Problem(origin, "", text)) from exc
    except ValueError as exc:
        reason = " ".join(str(exc).split())[:200] or type(exc).__name__
        raise MalformedDocument(Problem(origin, "", f"expected a {entry.format.upper()} object: {reason}")) from exc
    if not isinstance(decoded, dict):
        raise MalformedDocument(Problem(origin, "", f"expected a {entry.format.upper()} object, not {shown(decoded)}"))
    return {name: _without_null(value) for name, value in decoded.items() if value is not None}


def backend_document(key: str, name: str, entry: Entry) -> dict[str, Any]:
    """A backend key: an object, or the plain form ``weight=10 port=8080``; its name may be its address.

    Raises ``MalformedDocument``.
    """
    text = entry.value[: MAX_PLAIN + 1].decode(errors="replace").strip()
    plain = entry.format == "json" and len(entry.value) <= MAX_PLAIN
    plain = plain and (not text or re.fullmatch(r"[a-z_]+=\S+(\s+[a-z_]+=\S+)*", text) is not None)
    fields: dict[str, Any] = {}
    if plain:
        pairs = [pair.split("=", 1) for pair in text.split()]
        fields |= dict(pairs)
        if len(fields) < len(pairs):
            twice = next(field for place, (field, _) in enumerate(pairs) if field in dict(pairs[:place]))
            raise MalformedDocument(Problem(entry.origin or key, twice, "expected each field once"))
    else:
        fields = document(key, entry)
    if plain and "drain" in fields:
        fields["drain"] = {"true": True, "1": True, "false": False, "0": False}.get(fields["drain"], fields["drain"])
    if match := re.fullmatch(r"\[?([^\]]*?)\]?(?::(\d{1,5}))?", name):
        host, port = (name, None) if is_address(name) else (match[1], match[2])
        if is_address(host) and "address" not in fields:
            fields = {"address": host, **({"port": port} if port else {}), **fields}
    return fields


def _read_yaml(text: str) -> Any:
    from anycastlb.core.catalog.yaml_text import read_yaml

    return read_yaml(text)


_DECODERS: Mapping[str, Callable[[str], Any]] = {"json": read_json, "toml": read_toml, "yaml": _read_yaml}


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
