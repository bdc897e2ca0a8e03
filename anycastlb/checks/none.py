"""``none``: always up. For a backend whose health nobody can or wants to test."""

from __future__ import annotations

from anycastlb.documents import Document
from anycastlb.model import Check


class Params(Document):
    """No parameters."""


async def probe(check: Check) -> str:
    return "not checked (type none)"
