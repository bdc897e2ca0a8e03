"""The body of a request as JSON, strictly: no duplicate names, no NaN, no bombs; and the conditions of a write.

It says only whether a body is JSON of the right kind; what a document means is the business of ``core.catalog``.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Iterable
from typing import Any

from aiohttp import web

from anycastlb.core.fields import shown
from anycastlb.serving.api.http.errors import ApiError

MAX_DEPTH = 32
"""Levels of nesting; no document needs so many."""
TYPES = frozenset({"application/json", "application/merge-patch+json"})
TAG = re.compile(r'\s*(W/)?("[^"]*")\s*(?:,|$)')


async def body(request: web.Request, kind: type, optional: bool = False) -> Any:
    """The JSON body, an object or a list as ``kind`` says. ``optional``: None if there is none. Raises ``ApiError``."""
    data = await request.read()
    if optional and not data.strip():
        return None
    charset = request.charset
    if request.content_type not in TYPES or (charset or "utf-8").lower() not in ("utf-8", "utf8", "us-ascii"):
        given = request.headers.get("Content-Type", "nothing")
        mend = "send -H 'Content-Type: application/json'"
        raise ApiError(
            415, "the body is not said to be JSON", "Content-Type", f"application/json, not {given[:60]}", mend
        )
    value = await asyncio.to_thread(decode, data)
    if not isinstance(value, kind):
        expected = "an object" if kind is dict else "a list"
        mend = "/v1/openapi.json has every shape"
        raise ApiError(400, "the body has not the right shape", "body", f"{expected}, not {shown(value)}", mend)
    return value


def decode(data: bytes) -> Any:
    """Raises ``ApiError``."""
    try:
        value = json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_constant, parse_float=_finite)
        _bounded(value)
        return value
    except (ValueError, RecursionError) as exc:
        reason = " ".join(str(exc).split())[:200]
        if isinstance(exc, RecursionError):
            reason = f"deeper than {MAX_DEPTH} levels"
        raise ApiError(
            400, "the body is no JSON", "body", f"one JSON value in UTF-8: {reason}", "check the body"
        ) from exc


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the field {shown(next(n for n in names if names.count(n) > 1))} stands twice")
    return fields


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:40]} is too large a number")
    return number


def _bounded(whole: Any) -> None:
    """No deeper than documents are, and of text that can be written: half a surrogate pair cannot."""
    level = [whole]
    for _ in range(MAX_DEPTH):
        inside: list[Any] = []
        for value in level:
            if isinstance(value, str):
                value.encode()
            elif isinstance(value, dict):
                "".join(value).encode()
                inside += value.values()
            elif isinstance(value, list):
                inside += value
        if not inside:
            return
        level = inside
    raise ValueError(f"deeper than {MAX_DEPTH} levels")


# ---------------------------------------------------------------- conditions


def condition(request: web.Request, tag: str | None) -> None:
    """Check ``If-Match`` and ``If-None-Match`` against the tag of the stored document, if any. Raises ``ApiError``."""
    wanted, unwanted = request.headers.getall("If-Match", []), request.headers.getall("If-None-Match", [])
    if wanted and not _names(wanted, tag, strong=True):
        expected = f"the ETag of what is stored, {tag}" if tag else "an object that exists"
        mend = "somebody changed it: GET it again and decide anew" if tag else "without If-Match, PUT makes a new one"
        raise ApiError(412, "it is not what If-Match says", "If-Match", expected, mend)
    if unwanted and _names(unwanted, tag, strong=False):
        mend = "without If-None-Match, PUT replaces it"
        raise ApiError(412, "it exists, and If-None-Match forbids that", "If-None-Match", "no such object", mend)


def unconditional(request: web.Request) -> None:
    """Refuse a condition on many objects, which would be ignored silently. Raises ``ApiError``."""
    for name in ("If-Match", "If-None-Match"):
        if name in request.headers:
            what = f"{name} is for one document"
            raise ApiError(400, what, name, "no condition on many documents", "write each by itself")


def _names(values: Iterable[str], tag: str | None, strong: bool) -> bool:
    text = ",".join(values)
    if tag is None:
        return False
    if text.strip() == "*":
        return True
    return any(match[2] == tag and not (strong and match[1]) for match in TAG.finditer(text))
