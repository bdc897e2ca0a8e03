"""What ``import`` and ``plan`` read that is not in a form of our own directories: for now, our own dump.

It returns documents by key, and notes on what could not be carried over. It writes nothing.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

Documents = dict[str, Any]


def load(path: str) -> str:
    """The text of a file, of standard input for ``-``. Raises ``click.ClickException``."""
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text()
    except (OSError, ValueError) as exc:
        raise click.ClickException(f"{path} cannot be read: {getattr(exc, 'strerror', None) or exc}") from None


def beside(path: str) -> Any:
    """What the file may include: nothing in a dump."""
    return None


def read(text: str, format: str = "auto", include: Any = None) -> tuple[Documents, list[str]]:
    """The documents by key, and a line for everything that could not be carried over."""
    if format not in ("auto", "anycastlb"):
        raise click.ClickException(f"{format} cannot be read yet")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise click.ClickException(f"expected a dump that `anycastlb export` wrote: {exc}") from None
    inner = found.get("catalog", found) if isinstance(found, dict) else None
    if not isinstance(inner, dict) or not all(isinstance(value, dict) for value in inner.values()):
        raise click.ClickException('expected documents by key, as {"catalog": {"services/web": {...}}}')
    return inner, []
