"""Lines of styled text, and how they reach the terminal: in colour for a person, plain for a pipe.

A line is a list of parts, (text, style). The plain form has exactly the same characters. What a peer or a document
made up is shown without its control characters.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from rich.text import Text

Part: TypeAlias = tuple[str, str]
Line: TypeAlias = list[Part]

GOOD, BAD, WARN, DIM, BOLD, PLAIN = "green", "bold red", "yellow", "dim", "bold", ""
GLUE = "\u00a0"
"""A space at which no line is broken; it leaves as a plain one."""
_UNITS = re.compile(r"(\d) (?=(?:ms|s|min|h|d|VIPs?|services?|sessions?)\b)")
SIGNS = {True: ("✓", GOOD), False: ("✗", BAD), None: ("·", DIM)}


def width() -> int:
    """Columns to fill: the terminal's (or ``COLUMNS``), within what can be read."""
    return max(40, min(120, shutil.get_terminal_size((80, 24)).columns))


def sign(ok: bool | None) -> Part:
    return SIGNS[ok]


def count(number: int, noun: str) -> str:
    """``1 service``, ``2 services``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def length(line: Iterable[Part]) -> int:
    return sum(len(text) for text, _ in line)


def wrap(parts: Sequence[Part], columns: int, indent: int = 0) -> list[Line]:
    """One line broken at its spaces into lines of at most ``columns``, all but the first indented."""
    lines: list[Line] = [[]]
    room = columns
    for text, style in parts:
        words = _UNITS.sub(rf"\1{GLUE}", clean(text)).split(" ")
        for place, word in enumerate(words):
            piece = (" " if place else "") + word
            if len(piece) > room and length(lines[-1]) > indent:
                lines.append([(" " * indent, PLAIN)])
                piece, room = word, columns - indent
            if lines[-1] and lines[-1][-1][1] == style:
                piece_before, _ = lines[-1].pop()
                lines[-1].append((piece_before + piece, style))
            else:
                lines[-1].append((piece, style))
            room -= len(piece)
    return lines


def clean(text: str) -> str:
    """Without control characters: what a peer sent must not drive the terminal."""
    return "".join(char if char.isprintable() or char == GLUE else "?" for char in text)


def _final(text: str) -> str:
    return clean(text).replace(GLUE, " ")


def plain(lines: Iterable[Line]) -> str:
    """The lines as text, without trailing spaces; every line ends with a newline."""
    return "".join("".join(_final(text) for text, _ in line).rstrip() + "\n" for line in lines)


def coloured() -> bool:
    """Is a person looking, at a terminal that can?"""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def show(lines: Iterable[Line]) -> None:
    """Print on standard output: in colour on a terminal, unless NO_COLOR says otherwise."""
    if not coloured():
        sys.stdout.write(plain(lines))
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    for line in lines:
        console.print(Text.assemble(*((_final(text), style) for text, style in line)))


def text(lines: Iterable[Line]) -> Text:
    """The lines in colour, as one text of rich."""
    from rich.text import Text

    return Text("\n").join(Text.assemble(*((_final(part), style) for part, style in line)) for line in lines)
