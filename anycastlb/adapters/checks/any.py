"""``any``: up if one of its checks is. They run side by side; if none is up, each tells why.

It waits for all of them, at most 95 % of its own time-out. Of those that are up, it asks for the smallest weight that
one asks for, and to be drained if one does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anycastlb.adapters.checks import CheckType
from anycastlb.adapters.checks.all import joined, outcomes, outcomes_text
from anycastlb.adapters.checks.probe.outcome import Down, Found, Probe
from anycastlb.adapters.checks.probe.sockets import own_lack
from anycastlb.core.fields import Document
from anycastlb.core.model import Check, ProbePath
from anycastlb.settings import ChecksSettings


class Params(Document):
    checks: Any
    """The checks, 1 to 16: objects like ``check`` itself, without a time-table of their own."""


def bound(settings: ChecksSettings, types: Mapping[str, CheckType]) -> tuple[type[Params], Probe]:
    async def probe(check: Check, probe_path: ProbePath | None) -> Found:
        ended = await outcomes(check, probe_path, types)
        downs = [outcome for _, outcome in ended if isinstance(outcome, Down)]
        if len(downs) == len(ended):
            raise Down(outcomes_text(ended)) from max(downs, key=lambda down: own_lack(down) is not None)
        return joined(ended)

    return Params, probe
