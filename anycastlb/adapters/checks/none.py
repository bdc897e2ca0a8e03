"""``none``: always up. For a backend whose health nobody can or wants to test."""

from __future__ import annotations

from anycastlb.adapters.checks.probe.outcome import Found
from anycastlb.core.fields import Document
from anycastlb.core.model import Check, ProbePath

DIRECT_ONLY = True
FOUND = Found("not checked (type none)")


class Params(Document):
    """No parameters."""


async def probe(check: Check, probe_path: ProbePath | None) -> Found:
    return FOUND
