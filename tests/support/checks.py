"""A check, run once."""

from __future__ import annotations

from anycastlb.adapters.checks import TYPES
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.model import Check, Result
from anycastlb.engine.prober import Prober


async def run(check: Check) -> Result:
    """One check as the prober runs it."""
    prober = Prober(TYPES, lambda health, turned: None, Journal())
    return await prober._result(check, None)
