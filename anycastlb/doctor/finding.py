"""One finding: how bad, what was looked at, what was seen, and what mends it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Level: TypeAlias = Literal["ok", "notice", "warning", "error"]
Area: TypeAlias = Literal["settings", "kernel", "network", "bgp", "catalog", "node"]
LEVELS: tuple[Level, ...] = ("ok", "notice", "warning", "error")


@dataclass(frozen=True, slots=True)
class Finding:
    level: Level
    """``error``: the node cannot serve. ``warning``: it will hurt some day. ``notice``: worth a look, or not seen."""
    area: Area
    what: str
    evidence: str = ""
    """What was read, as it was read."""
    mend: str = ""
    """The command that mends it."""


def worst(findings: tuple[Finding, ...]) -> Level:
    return max((finding.level for finding in findings), key=LEVELS.index, default="ok")
