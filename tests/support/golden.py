"""Texts that operators read, compared with golden files."""

from __future__ import annotations

import os
from pathlib import Path

from anycastlb.cli.render import status, style
from anycastlb.core.model import (
    Snapshot,
)
from anycastlb.serving.views.status import status_view
from tests.support import scene

GOLDEN = Path(__file__).parents[1] / "unit" / "golden"


def golden(name: str, text: str) -> None:
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("ANYCASTLB_GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text(), f"{name} changed: if that is right, write it anew with ANYCASTLB_GOLDEN=write"


def drawn(snapshot: Snapshot, columns: int = 80, now: float = scene.NOW) -> str:
    return style.plain(status.status_lines(status_view(snapshot, now, scene.SOURCE), columns))
