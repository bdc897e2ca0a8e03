"""Lines of styled text: how they are built, broken and made plain. ``cli/terminal.py`` prints them.

A line is a list of parts, (text, style). The plain form has exactly the same characters as the coloured one. Text that
a peer or a document supplied is shown without its control characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TypeAlias

Part: TypeAlias = tuple[str, str]
Line: TypeAlias = list[Part]

GOOD, BAD, WARN, DIM, BOLD, PLAIN = "green", "bold red", "yellow", "dim", "bold", ""
GLUE = "\u00a0"
"""A space at which no line is broken; it leaves as a plain one."""
_UNITS = re.compile(r"(\d) (?=(?:ms|s|min|h|d|VIPs?|services?|sessions?)\b)")
SIGNS = {True: ("✓", GOOD), False: ("✗", BAD), None: ("·", DIM)}


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


def printable(text: str) -> str:
    """The text as it is printed: without control characters, and with plain spaces."""
    return clean(text).replace(GLUE, " ")


def plain(lines: Iterable[Line]) -> str:
    """The lines as text, without trailing spaces; every line ends with a newline."""
    return "".join("".join(printable(text) for text, _ in line).rstrip() + "\n" for line in lines)
