"""``all``: up if every one of its checks is. They run side by side; those that are not up tell why.

It asks for the smallest of the weights that its checks ask for, and to be drained if one of them does. Its checks have
95 % of its own time-out, so that a slow one can still be named.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from anycastlb.adapters.checks import CheckType
from anycastlb.adapters.checks.probe.outcome import Down, Found, Probe
from anycastlb.adapters.checks.probe.sockets import own_lack
from anycastlb.adapters.system.lateness import Deadline
from anycastlb.core.fields import Document
from anycastlb.core.model import Check, Combination, ProbePath
from anycastlb.settings import ChecksSettings

MARGIN = 0.95
"""The part of the whole's time-out that the checks inside have: when the whole is cancelled, nobody can tell why."""
Outcome = tuple[Check, Found | Down]


class Params(Document):
    checks: Any
    """The checks, 1 to 16: objects like ``check`` itself, without a time-table of their own."""


def bound(settings: ChecksSettings, types: Mapping[str, CheckType]) -> tuple[type[Params], Probe]:
    async def probe(check: Check, probe_path: ProbePath | None) -> Found:
        ended = await outcomes(check, probe_path, types)
        if bad := [(one, outcome) for one, outcome in ended if isinstance(outcome, Down)]:
            downs = [outcome for _, outcome in bad if isinstance(outcome, Down)]
            raise Down(outcomes_text(bad)) from min(downs, key=lambda down: own_lack(down) is not None)
        return joined(ended)

    return Params, probe


async def outcomes(check: Check, probe_path: ProbePath | None, types: Mapping[str, CheckType]) -> list[Outcome]:
    """Every check of a combination with what it found or why not, in their order."""
    assert isinstance(check.params, Combination)
    parts = [replace(part, timeout=check.timeout * MARGIN) for part in check.params.checks]
    return list(zip(parts, await asyncio.gather(*(_outcome(part, probe_path, types) for part in parts)), strict=True))


async def _outcome(check: Check, probe_path: ProbePath | None, types: Mapping[str, CheckType]) -> Found | Down:
    """Never raises but for being cancelled: a fault of one probe must not hide what the others found."""
    try:
        async with Deadline(check.timeout):
            return await types[check.type].probe(check, probe_path)
    except Down as exc:
        return exc
    except TimeoutError:
        return Down(f"no answer within {check.timeout:.3g} s")
    except Exception as exc:
        failed = Down(f"the probe failed: {type(exc).__name__}: {exc}")
        failed.__cause__ = exc
        return failed


def joined(outcomes: Sequence[Outcome]) -> Found:
    """What those that are up found, as one."""
    good = [outcome for _, outcome in outcomes if isinstance(outcome, Found)]
    weights = [one.weight for one in good if one.weight is not None]
    return Found("; ".join(one.detail for one in good), min(weights, default=None), any(one.drain for one in good))


def outcomes_text(outcomes: Sequence[Outcome]) -> str:
    return "; ".join(f"{check.type}: {outcome}" for check, outcome in outcomes)
