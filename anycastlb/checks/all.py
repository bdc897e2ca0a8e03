"""``all``: up if every one of its checks is. They run side by side; the first that is not up tells why."""

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
    bad = [
        f"{one.type}: {outcome}"
        for one, outcome in zip(params.checks, outcomes, strict=True)
        if isinstance(outcome, Down)
    ]
    if bad:
        raise Down("; ".join(bad))
    good = [outcome for outcome in outcomes if isinstance(outcome, Found)]
    weights = [found.weight for found in good if found.weight is not None]
    return Found(
        "; ".join(found.detail for found in good), min(weights, default=None), any(found.drain for found in good)
    )
