"""A check, run once."""

from __future__ import annotations

import time
from collections.abc import Mapping

from anycastlb.adapters.checks import TYPES, CheckType
from anycastlb.core.model import Check, Result
from anycastlb.engine.attempt import attempt


async def run(check: Check, types: Mapping[str, CheckType] = TYPES) -> Result:
    """One check as the prober runs it."""
    return (await attempt(types, check, None, time.monotonic)).result
