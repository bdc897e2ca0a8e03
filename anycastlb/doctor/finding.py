"""One finding: how serious it is, what was seen, and the command that fixes it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

Level: TypeAlias = Literal["ok", "notice", "warning", "error"]
Area: TypeAlias = Literal["settings", "kernel", "network", "bgp", "http", "catalog", "node"]
LEVELS: tuple[Level, ...] = ("ok", "notice", "warning", "error")


@dataclass(frozen=True, slots=True)
class Finding:
    level: Level
    """``error``: the node cannot serve. ``warning``: it will cause trouble some day. ``notice``: it is worth a look, or
    it could not be seen."""
    area: Area
    what: str
    evidence: str = ""
    """The values that were read, as they were read."""
    mend: str = ""
    """The command that fixes it."""


def worst(findings: Iterable[Finding]) -> Level:
    """The most serious level among the findings; ``ok`` if there are none."""
    return max((finding.level for finding in findings), key=LEVELS.index, default="ok")
