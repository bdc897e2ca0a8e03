"""``GET /v1/why?url=``: which route, rule and pool a request would meet, and what HAProxy itself says of it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from functools import partial
from ipaddress import ip_address

from aiohttp import web

from anycastlb.core.fields import shown
from anycastlb.core.model import Address
from anycastlb.serving.api.http.context import built, context
from anycastlb.serving.api.http.errors import ApiError
from anycastlb.serving.views.why_url import explain_url, looked_up

MEND = "such as /v1/why?url=https://shop.example/blog/1&method=GET&header=user-agent:%20curl/8"


async def why_url(request: web.Request) -> web.Response:
    at, asked = context(request), request.query
    snapshot, method = at.snapshot(), asked.get("method", "GET")
    if not re.fullmatch("[A-Z]{1,20}", method):
        raise _strange("method", f"a method in capital letters, not {shown(method)}")
    headers, source = list(_headers(asked.getall("header", []))), _source(asked.get("source", ""))
    look = partial(looked_up, snapshot.inputs.catalog, asked.get("url", ""), method, headers, source)
    try:
        looked = await asyncio.to_thread(look)
    except ValueError as exc:
        raise _strange("url", str(exc)) from exc
    answers = await at.ask_haproxy(looked.questions) if at.ask_haproxy and looked.questions else {}
    ends = await asyncio.to_thread(at.certificate_ends) if at.certificate_ends else {}
    return await built(partial(explain_url, snapshot, at.clock(), looked, answers, ends))


def _headers(texts: list[str]) -> Iterator[tuple[str, str]]:
    for text in texts:
        name, colon, value = text.partition(":")
        if not colon or not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name.strip()) or not value.isprintable():
            raise _strange("header", f"NAME: VALUE, not {shown(text)}")
        yield name, value


def _source(text: str) -> Address | None:
    try:
        return ip_address(text) if text else None
    except ValueError as exc:
        raise _strange("source", f"an address of a client, not {shown(text)}") from exc


def _strange(where: str, expected: str) -> ApiError:
    return ApiError(400, "that is no request", where, expected, MEND)
