"""Large texts in pieces: made, compressed and sent one by one, they are never copied whole.

Memory that is asked for in blocks of many megabytes comes fresh from the system each time, and is touched page by page;
pieces are made of what the last answer has left.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import TypeAlias

Pieces: TypeAlias = tuple[bytes, ...]
PIECE = 128 * 1024
"""Bytes of a piece, at least."""


def pieces(texts: Iterable[bytes]) -> Pieces:
    """The texts, one after the other."""
    return tuple(_joined(texts))


def _joined(texts: Iterable[bytes]) -> Iterator[bytes]:
    found: list[bytes] = []
    size = 0
    for text in texts:
        found.append(text)
        size += len(text)
        if size >= PIECE:
            yield found[0] if len(found) == 1 else b"".join(found)
            found.clear()
            size = 0
    if found:
        yield b"".join(found)


def length(given: Pieces) -> int:
    """In bytes."""
    return sum(map(len, given))


def gzipped(given: Pieces, level: int) -> Pieces:
    """The pieces compressed for gzip."""
    packer = zlib.compressobj(level, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return pieces(packer.flush() if text is None else packer.compress(text) for text in (*given, None))
