"""The body of a request as JSON, strictly: no duplicate names, no NaN, no bombs; and the conditions of a write.

It says only whether a body is JSON of the right kind; what a document means is the business of ``core.catalog``.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from typing import Any

from aiohttp import web

from anycastlb.core.catalog.bounds import MAX_BULK, read_json
from anycastlb.core.fields import shown
from anycastlb.serving.api.http.errors import ApiError

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
        return read_json(data.decode(), MAX_BULK)
    except ValueError as exc:
        reason = " ".join(str(exc).split())[:200]
        raise ApiError(
            400, "the body is no JSON", "body", f"one JSON value in UTF-8: {reason}", "check the body"
        ) from exc


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
    """Refuse a condition where there is no single tagged object, which would be ignored silently. Raises
    ``ApiError``."""
    for name in ("If-Match", "If-None-Match"):
        if name in request.headers:
            what = f"{name} is for one document that has an ETag"
            raise ApiError(400, what, name, "no condition here", "leave it out, or write each document by itself")


async def nothing(request: web.Request) -> None:
    """Take a request that has no options: any that it brings would be ignored silently. Raises ``ApiError``."""
    if given := await body(request, dict, optional=True):
        expected = f"no body, not {shown(given)}"
        raise ApiError(400, "nothing can be said in the body of this request", "body", expected, "send none")


def _names(values: Iterable[str], tag: str | None, strong: bool) -> bool:
    text = ",".join(values)
    if tag is None:
        return False
    if text.strip() == "*":
        return True
    return any(match[2] == tag and not (strong and match[1]) for match in TAG.finditer(text))
