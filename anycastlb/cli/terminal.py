"""The terminal: how wide it is, whether it shows colours, and how styled lines are printed on it.

A person at a terminal gets colours; a pipe gets the same characters without them.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from anycastlb.cli.render.style import Line, plain, printable

if TYPE_CHECKING:
    from rich.text import Text


def width() -> int:
    """The columns to fill: those of the terminal (or ``COLUMNS``), within what a person can read."""
    return max(40, min(120, shutil.get_terminal_size((80, 24)).columns))


def coloured() -> bool:
    """Is standard output a terminal that shows colours, and did the user not refuse them with NO_COLOR?"""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def show(lines: Iterable[Line]) -> None:
    """Print the lines on standard output, in colour where ``coloured`` allows it."""
    if not coloured():
        sys.stdout.write(plain(lines))
        return
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    for line in lines:
        console.print(_rich(line))


def text(lines: Iterable[Line]) -> Text:
    """The lines in colour, as one text of rich."""
    from rich.text import Text

    return Text("\n").join(map(_rich, lines))


def _rich(line: Line) -> Text:
    from rich.text import Text

    return Text.assemble(*((printable(part), style) for part, style in line))
