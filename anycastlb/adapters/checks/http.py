"""``http``: up if a request is answered with an expected status code, and with an expected body if one is given.

A new connection each time (HTTP/1.1, closed after the answer), no cookies, nothing looked up in DNS.
"""

from __future__ import annotations

from anycastlb.adapters.checks.probe.outcome import Exchange, Found
from anycastlb.adapters.checks.probe.params import WebParams
from anycastlb.adapters.checks.probe.status import lean_web
from anycastlb.adapters.checks.probe.web import probe_web
from anycastlb.core.model import Check, ProbePath


class Params(WebParams):
    """Every field has a default: ``GET /``, expecting 200."""


async def probe(check: Check, probe_path: ProbePath | None) -> Found:
    return await probe_web(check, probe_path)


def lean(check: Check) -> Exchange | None:
    return lean_web(check)
