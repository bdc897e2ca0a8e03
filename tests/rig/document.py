"""The commands of docs/INSTALL.md that the tests run: fenced boxes after a comment that says where."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/INSTALL.md"
BOX = re.compile(r"^<!-- run: ([^>]+?) -->\n```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Box:
    where: str
    """on which machine, and when, if not once on each: ``builder``, ``consul``, ``node``, ``consul, for each node``,
    ``node, until it succeeds``, ``node, at the end``, and ``with gateways`` what takes HAProxy"""
    script: str


def boxes() -> list[Box]:
    return [Box(where, script) for where, script in BOX.findall(DOCUMENT.read_text(encoding="utf-8"))]
