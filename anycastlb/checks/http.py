"""``http``: up if a request is answered with an expected status code.

A new connection each time, no redirects followed, no proxy, no cookies; the body is not read.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import aiohttp
from pydantic import BeforeValidator, Field
from yarl import URL

from anycastlb.checks import Down, Found
from anycastlb.dial import opened, told
from anycastlb.documents import Document, one_or_many, shown
from anycastlb.model import Check, Lane, endpoint


def _codes(value: Any) -> tuple[tuple[int, int], ...]:
    """``200``, ``"200-299"`` or a list of both, as (low, high) ranges."""
    return tuple(_range(item) for item in one_or_many(value))


def _range(item: Any) -> tuple[int, int]:
    match = re.fullmatch(r"([1-5]\d\d)(?:\s*-\s*([1-5]\d\d))?", str(item).strip())
    if not match or isinstance(item, bool) or int(match[1]) > int(match[2] or match[1]):
        raise ValueError(f'a status code such as 200, a range such as "200-299", or a list of them, not {shown(item)}')
    return int(match[1]), int(match[2] or match[1])


def _headers(value: Any) -> Any:
    return tuple(sorted(value.items())) if isinstance(value, dict) else value


def _plain(value: str) -> str:
    if not value.isprintable():
        raise ValueError(f"printable text, not {shown(value)}")
    return value


Text = Annotated[str, Field(max_length=4096), BeforeValidator(lambda v: _plain(v) if isinstance(v, str) else v)]
Token = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]


class Params(Document):
    method: Literal["GET", "HEAD", "OPTIONS", "POST"] = "GET"
    path: Annotated[Text, Field(pattern=r"^/\S*$")] = "/"
    host: Text | None = None
    """The Host header; the backend's address and port unless given."""
    headers: Annotated[tuple[tuple[Token, Text], ...], BeforeValidator(_headers)] = ()
    expect: Annotated[Any, BeforeValidator(_codes)] = ((200, 200),)
    """Status codes that mean up: a number, a range ``"200-299"``, or a list of them."""


async def probe(check: Check, lane: Lane | None) -> Found:
    params = check.params
    assert isinstance(params, Params)
    headers = {"User-Agent": "anycastlb", "Connection": "close", **dict(params.headers)}
    if params.host:
        headers["Host"] = params.host
    url = URL(f"http://{endpoint(check.address, check.port)}{params.path}", encoded=True)  # the path as it was written
    connector = aiohttp.TCPConnector(force_close=True, socket_factory=lambda info: opened(info[0], info[1], lane))
    async with aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=None)
    ) as session:
        try:
            async with session.request(params.method, url, headers=headers, allow_redirects=False) as response:
                status = response.status
        except aiohttp.ClientConnectorError as exc:
            raise Down(told(exc.os_error)) from exc
        except (aiohttp.ClientError, ValueError) as exc:
            raise Down(f"no HTTP answer: {shown(str(exc) or type(exc).__name__, 120)}") from exc
        except OSError as exc:
            raise Down(told(exc)) from exc
    if any(low <= status <= high for low, high in params.expect):
        return Found(f"HTTP {status}")
    wanted = ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in params.expect)
    raise Down(f"HTTP {status}, expected {wanted}")
