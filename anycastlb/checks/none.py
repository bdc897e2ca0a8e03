"""``none``: always up. For a backend whose health nobody can or wants to test."""

from __future__ import annotations

from anycastlb.checks import Found
from anycastlb.documents import Document
from anycastlb.model import Check, Lane

DIRECT_ONLY = True


class Params(Document):
    """No parameters."""


async def probe(check: Check, lane: Lane | None) -> Found:
    return Found("not checked (type none)")
