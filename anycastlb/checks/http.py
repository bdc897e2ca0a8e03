"""``http``: up if a request is answered with an expected status code, and with an expected body if one is given.

A new connection each time (HTTP/1.1, closed after the answer), no cookies, nothing looked up in DNS.
"""

from __future__ import annotations

from anycastlb import probing
from anycastlb.checks import Down, Found
from anycastlb.model import Check, Lane
from anycastlb.probing.params import WebParams


class Params(WebParams):
    """Every field has a default: ``GET /``, expecting 200."""


async def probe(check: Check, lane: Lane | None) -> Found:
    params = check.params
    assert isinstance(params, Params)
    try:
        return Found(await probing.probe(check, params, lane))
    except probing.Refused as exc:
        raise Down(str(exc)) from exc
