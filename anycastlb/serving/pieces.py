"""Large texts in pieces: made, compressed and sent one by one, they are never copied whole.

Memory that is asked for in blocks of many megabytes comes fresh from the system each time, and is touched page by page;
pieces are made of what the last answer has left.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import TypeAlias

Pieces: TypeAlias = tuple[bytes, ...]
PIECE = 128 * 1024
"""Bytes of a piece, at least."""


class Unjoined:
    """A text whose pieces are put together only when somebody reads them, and anew for each who does.

    ``join`` gives them; it must not depend on anything that changes.
    """

    def __init__(self, join: Callable[[], Iterator[bytes]]) -> None:
        self._join = join

    def __iter__(self) -> Iterator[bytes]:
        return self._join()


Text: TypeAlias = Pieces | Unjoined


def pieces(texts: Iterable[bytes]) -> Pieces:
    """The texts, one after the other."""
    return tuple(merged(texts))


def merged(texts: Iterable[bytes]) -> Iterator[bytes]:
    """The same text, in pieces of some size."""
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


def length(given: Text) -> int | None:
    """In bytes; None where nobody knows before they are put together."""
    return None if isinstance(given, Unjoined) else sum(map(len, given))


def gzipped(given: Text, level: int) -> Pieces:
    """The pieces compressed for gzip."""
    packer = zlib.compressobj(level, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return pieces(packer.flush() if text is None else packer.compress(text) for text in chain(given, (None,)))
