"""``any``: up if one of its checks is. They run side by side; if none is up, each tells why."""

from __future__ import annotations

import asyncio
from typing import Any

from anycastlb.checks import Down, Found, part
from anycastlb.documents import Document
from anycastlb.model import Check, Combination, Lane


class Params(Document):
    checks: Any
    """The checks: objects like ``check`` itself, without a time-table of their own."""


async def probe(check: Check, lane: Lane | None) -> Found:
    params = check.params
    assert isinstance(params, Combination)
    outcomes = await asyncio.gather(*(part(one, lane) for one in params.checks))
    for outcome in outcomes:
        if isinstance(outcome, Found):
            return outcome
    raise Down("; ".join(f"{one.type}: {why}" for one, why in zip(params.checks, outcomes, strict=True)))
